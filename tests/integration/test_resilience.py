"""From YAML to breakers that open and servers that shed: a real control service, real servers, calls in each way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import grpc
import httpx
import pybreaker
import pytest
import requests
import uvicorn

from meshlib import Mesh, Overrides, errors
from meshlib_integrations import asgi, wsgi
from meshlib_integrations.grpc import server_interceptors
from meshlib_integrations.httpx import MeshTransport
from meshlib_integrations.requests import MeshAdapter
from tests.support import backends
from tests.support.control import Control, eventually
from tests.support.meshcalls import WAYS

pytestmark = pytest.mark.timeout(240)

ONCE = Overrides(retries=0)

SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %(host)s}
spec:
  hosts: [%(host)s.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: %(port)d}}]
---
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: %(host)s}
spec:
  host: %(host)s
"""
BREAKER = "  circuitBreaker: {minRequests: 10, openDuration: %(open)s, maxOpenDuration: 60s, halfOpenRequests: 2}\n"
SHEDDING = """
apiVersion: meshlib.io/v1
kind: ResiliencePolicy
metadata: {name: %(service)s}
spec:
  selector: {matchLabels: {app: %(service)s}}
  loadShedding:
    maxConcurrency: 10
    retryAfter: 2s
    priorities:
    - {urgency: 0, match: [{uri: {exact: /healthz}}]}
"""


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with Control(tmp_path_factory.mktemp("control")) as running:
        yield running


@contextmanager
def calling(control: Control, host: str, port: int, policy: str) -> Iterator[Mesh]:
    control.apply((SERVICE + policy) % {"host": host, "port": port, "open": "300ms"})
    eventually(lambda: _reaches(control, host), what="the control service knows the host")
    with Mesh(control=control.xds, insecure_dev=True) as mesh:
        yield mesh


def _reaches(control: Control, host: str) -> bool:
    """What the discovery service knows, by a process of its own: a call would count for the breaker."""
    with Mesh(control=control.xds, insecure_dev=True) as mesh:
        try:
            mesh.request("GET", f"http://{host}/", timeout=30.0)
        except errors.RouteError:
            return False
        except errors.TimeoutExceeded:
            return True
        return True


@pytest.fixture
def backend() -> Iterator[backends.Backend]:
    with backends.running(["a"]) as servers:
        yield servers["a"]


# --- circuit breakers


class Listener(pybreaker.CircuitBreakerListener):
    """Keeps what it is told, and in which thread."""

    def __init__(self) -> None:
        self.moves: list[tuple[str, str]] = []
        self.threads: set[str] = set()

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.moves.append((old_state.name, new_state.name))
        self.threads.add(threading.current_thread().name)


def failing_until_open(mesh: Mesh, host: str, way: str = "blocking whole") -> Counter[str]:
    """What 30 calls come to, each tried once."""
    seen: Counter[str] = Counter()
    for _ in range(30):
        try:
            seen[str(WAYS[way](mesh, "GET", f"http://{host}/", overrides=ONCE).status_code)] += 1
        except errors.CircuitOpen:
            seen["open"] += 1
    return seen


def test_a_breaker_opens_lets_probes_through_and_closes_and_listeners_hear_of_it(
    control: Control, backend: backends.Backend
) -> None:
    with calling(control, "ratings", backend.port, BREAKER) as mesh:
        listener = Listener()
        mesh.circuit_breakers.add_listener(listener)
        assert mesh.request("GET", "http://ratings/").status_code == 200
        breaker = mesh.circuit_breakers["ratings"]
        assert breaker.current_state == "closed"
        assert breaker.name == "outbound|80||ratings.default.svc.cluster.local"
        backend.failures = 10**9
        before = len(backend.requests)
        seen = failing_until_open(mesh, "ratings")
        assert seen["open"] > 0
        assert len(backend.requests) - before == seen["503"] <= 30 - seen["open"]
        assert mesh.circuit_breakers["ratings"].current_state in ("open", "half-open")
        backend.failures = 0
        eventually(lambda: _answers(mesh, "ratings") and breaker.current_state == "closed", what="the breaker closes")
        assert _answers(mesh, "ratings")
    assert listener.moves[0] == ("closed", "open")
    assert listener.moves[-1] == ("half-open", "closed")
    assert ("open", "half-open") in listener.moves


def _answers(mesh: Mesh, host: str) -> bool:
    try:
        return mesh.request("GET", f"http://{host}/", overrides=ONCE).status_code == 200
    except errors.CircuitOpen as refused:
        time.sleep(min(refused.retry_after, 0.2))
        return False


@pytest.mark.parametrize("way", WAYS)
def test_what_is_refused_was_not_sent(control: Control, backend: backends.Backend, way: str) -> None:
    host = f"never-{way.replace(' ', '-')}"
    with calling(control, host, backend.port, BREAKER.replace("%(open)s", "60s")) as mesh:
        backend.failures, before = 10**9, len(backend.requests)
        assert failing_until_open(mesh, host, way) == {"503": 10, "open": 20}
        assert len(backend.requests) - before == 10
        with pytest.raises(errors.CircuitOpen) as caught:
            WAYS[way](mesh, "GET", f"http://{host}/")
        assert 0 < caught.value.retry_after <= 60
        assert caught.value.flags == ("UO",)
        assert caught.value.attempts == 0


def test_without_a_policy_nothing_opens(control: Control, backend: backends.Backend) -> None:
    """The control."""
    with calling(control, "unguarded", backend.port, "  timeout: 60s\n") as mesh:
        backend.failures = 10**9
        assert failing_until_open(mesh, "unguarded") == {"503": 30}
        assert len(mesh.circuit_breakers) == 0
        with pytest.raises(KeyError, match="unguarded has no circuit breaker"):
            mesh.circuit_breakers["unguarded"]


def test_users_of_httpx_and_requests_get_their_own_errors(control: Control, backend: backends.Backend) -> None:
    with calling(control, "wrapped", backend.port, BREAKER.replace("%(open)s", "60s")) as mesh:
        mesh.request("GET", "http://wrapped/")
        mesh.circuit_breakers["wrapped"].open()
        with httpx.Client(transport=MeshTransport(mesh)) as client, pytest.raises(httpx.ConnectError) as caught:
            client.get("http://wrapped/")
        assert isinstance(caught.value, errors.CircuitOpen)
        assert caught.value.retry_after > 0
        with requests.Session() as session:
            session.mount("http://", MeshAdapter(mesh))
            with pytest.raises(requests.ConnectionError) as raised:
                session.get("http://wrapped/", timeout=30)
        assert isinstance(raised.value, errors.CircuitOpen)
        mesh.circuit_breakers["wrapped"].close()
        assert mesh.request("GET", "http://wrapped/").status_code == 200
        with pytest.raises(TypeError, match="guarded"):
            mesh.circuit_breakers["wrapped"].call(print)


def test_a_timeout_of_the_policy_ends_calls_without_a_route(control: Control) -> None:
    """A server that takes the request and says nothing."""
    with ExitStack() as stack:
        silent = stack.enter_context(backends.running(["silent"]))["silent"]
        silent.lock.acquire()
        stack.callback(silent.lock.release)
        mesh = stack.enter_context(calling(control, "silent", silent.port, "  timeout: 300ms\n"))
        with pytest.raises(errors.TimeoutExceeded) as caught:
            mesh.request("GET", "http://silent/")
        assert caught.value.which == "route"


# --- load shedding


class Gate:
    """What an application waits at: requests come in, and stay until the gate is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.inside = 0
        self.lock = threading.Lock()

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
        assert self.opened.wait(60)


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        pass


@contextmanager
def wsgi_server(mesh: Mesh, gate: Gate, port: int) -> Iterator[None]:
    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/held":
            gate.enter()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    server = make_server("127.0.0.1", port, wsgi.MeshMiddleware(app, mesh), server_class=_Threads, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def asgi_server(mesh: Mesh, gate: Gate, port: int) -> Iterator[None]:
    import asyncio

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/held":
            with gate.lock:
                gate.inside += 1
            while not gate.opened.is_set():  # noqa: ASYNC110  # it is opened by another thread
                await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(asgi.MeshMiddleware(app, mesh), host="127.0.0.1", port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, what="uvicorn to start")
        yield
    finally:
        server.should_exit = True
        thread.join()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("serving", [wsgi_server, asgi_server])
def test_a_server_sheds_the_less_urgent_first(control: Control, serving: Callable[..., Any]) -> None:
    """Ten at once: nine of the usual urgency, and the last place is for what is more urgent; batches end at three."""
    service, gate, port = serving.__name__.replace("_", "-"), Gate(), free_port()
    control.apply(SHEDDING % {"service": service})
    mesh = Mesh(control=control.xds, insecure_dev=True, service=service, labels={"app": service}, port=port)
    with mesh, ExitStack() as stack:
        stack.callback(gate.opened.set)
        stack.enter_context(serving(mesh, gate, port))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=httpx.Limits()))
        eventually(lambda: client.get("/").status_code == 200 and _sheds(mesh, port), what="the policy to arrive")
        pool = stack.enter_context(ThreadPoolExecutor(16))
        held: list[Future[httpx.Response]] = [pool.submit(client.get, "/held", headers={"priority": "u=7"}) for _ in range(3)]
        eventually(lambda: gate.inside == 3, what="three batches are in")
        assert client.get("/", headers={"priority": "u=7"}).status_code == 503
        held += [pool.submit(client.get, "/held") for _ in range(6)]
        eventually(lambda: gate.inside == 9, what="nine are in")
        refused = client.get("/", headers={"priority": "u=0"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "2"
        assert refused.text == "service overloaded"
        assert client.get("/healthz").status_code == 200
        gate.opened.set()
        assert [answer.result().status_code for answer in held] == [200] * 9
        assert client.get("/", headers={"priority": "u=7"}).status_code == 200


def _sheds(mesh: Mesh, port: int) -> bool:
    return mesh._running()._enforcement.shedding.get(port) is not None


def test_a_grpc_server_sheds(control: Control) -> None:
    gate, held = Gate(), 10
    service, port = "grpc-server", free_port()
    control.apply(SHEDDING % {"service": service})
    mesh = Mesh(control=control.xds, insecure_dev=True, service=service, labels={"app": service}, port=port)

    def respond(request: bytes, context: object) -> bytes:
        if request == b"held":
            gate.enter()
        return request

    def follow(request: bytes, context: object) -> Iterator[bytes]:
        gate.opened.wait(60)
        yield request

    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(respond),
        "Stream": grpc.unary_stream_rpc_method_handler(follow),
    }
    with mesh, ExitStack() as stack:
        stack.callback(gate.opened.set)
        pool = stack.enter_context(ThreadPoolExecutor(32))
        server = grpc.server(pool, interceptors=server_interceptors(mesh, port))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Shop", methods),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        stack.callback(lambda: server.stop(0).wait(10))
        mesh.serve_started(port)
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
        unary, stream = channel.unary_unary("/test.Shop/Unary"), channel.unary_stream("/test.Shop/Stream")
        eventually(lambda: unary(b"", timeout=30) == b"" and _sheds(mesh, port), what="the policy to arrive")
        streams = [stream(b"", timeout=60) for _ in range(12)]  # what lasts takes no place
        calls = [unary.future(b"held", timeout=60) for _ in range(held - 1)]
        eventually(lambda: gate.inside == held - 1, what="nine are in")
        with pytest.raises(grpc.RpcError) as caught:
            unary(b"", timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ("retry-after", "2") in tuple(caught.value.trailing_metadata())
        gate.opened.set()
        assert [call.result() for call in calls] == [b"held"] * (held - 1)
        assert [list(each) for each in streams] == [[b""]] * 12
        assert unary(b"", timeout=30) == b""
