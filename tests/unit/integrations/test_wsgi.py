"""The WSGI middleware, driven by hand: environments of every server, bodies of every kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from meshlib import Mesh, current_request
from meshlib.flow.inbound import NO_POLICY, InboundPlan
from meshlib.model.listener import MtlsMode
from meshlib.testing import StaticControl
from meshlib_integrations.wsgi import MeshMiddleware

WERKZEUG: dict[str, Any] = {"werkzeug.socket": None}
"""A server that takes an application's word about its connection."""


class Server:
    """Of one application; keeps the status, the headers and the environment that the application got."""

    def __init__(self, body: Any = ()) -> None:
        self.control = StaticControl()
        self.mesh = Mesh(control=self.control, service="tests", port=8080, drain_seconds=0.0)
        self._body = body
        self.environ: dict[str, Any] = {}
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    def _app(self, environ: Any, start_response: Any) -> Any:
        self.environ = environ
        start_response("200 OK", [("Connection", "keep-alive"), ("X", "1")])
        return self._body() if callable(self._body) else self._body

    def _start(self, status: str, headers: list[tuple[str, str]]) -> Any:
        self.status, self.headers = status, headers
        return lambda data: None

    def call(self, **changes: Any) -> Iterable[bytes]:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        return MeshMiddleware(self._app, self.mesh)({**environ, **changes}, self._start)

    def serve(self, **changes: Any) -> None:
        """One request, to its end."""
        close(self.call(**changes))

    @property
    def active(self) -> int:
        return self.mesh._inbound.active


def close(body: object) -> None:
    getattr(body, "close")()  # noqa: B009  # PEP 3333: if there is one


@pytest.mark.parametrize(
    ("changes", "path", "query"),
    [
        ({"RAW_URI": "/a%2Fb?q=1", "PATH_INFO": "/a/b", "QUERY_STRING": "q=1"}, "/a/b", "q=1"),
        ({"RAW_URI": "http://127.0.0.1/x%20y?q=1", "PATH_INFO": "http://127.0.0.1/x y"}, "/x y", "q=1"),
        ({"REQUEST_URI": "http://127.0.0.1/", "PATH_INFO": "/"}, "/", ""),
        ({"PATH_INFO": "/a b/\xc3\xbc%", "QUERY_STRING": "q=%20"}, "/a b/\xc3\xbc%", "q=%20"),
        ({"SCRIPT_NAME": "/shop", "RAW_URI": "http://127.0.0.1/shop/x", "PATH_INFO": "?"}, "/x", ""),
    ],
)
def test_the_application_gets_the_origin_form(changes: dict[str, Any], path: str, query: str) -> None:
    server = Server()
    server.serve(**changes)
    assert (server.environ["PATH_INFO"], server.environ["QUERY_STRING"]) == (path, query)


@pytest.mark.parametrize(
    "changes",
    [
        {"RAW_URI": "/admin%00"},
        {"RAW_URI": "/admin#x"},
        {"PATH_INFO": "/admin\0"},
        {"HTTP_HOST": "a/?x="},
        {"HTTP_HOST": "a,b"},
        {"CONTENT_LENGTH": "+1"},
        {"REQUEST_METHOD": "get"},
    ],
)
def test_ambiguous_requests_are_refused(changes: dict[str, Any]) -> None:
    server = Server()
    assert server.call(**changes, **WERKZEUG) == [b"Bad Request"]
    assert server.status == "400 Bad Request"
    assert ("Connection", "close") in server.headers
    assert server.environ == {}


@pytest.mark.parametrize("header", ["HTTP_SCRIPT_NAME", "HTTP_PATH_INFO"])
def test_H14_no_header_says_what_is_routed(header: str) -> None:
    """Gunicorn makes ``SCRIPT_NAME: /public`` of whoever it trusts, as this machine, a part of the path that is cut off."""
    server = Server()
    server.call(RAW_URI="/public/admin", PATH_INFO="/admin", SCRIPT_NAME="/public", **{header: "/public"})
    assert server.status.startswith("400")
    assert not server.environ
    server.serve(RAW_URI="/public/admin", PATH_INFO="/admin", SCRIPT_NAME="/public")  # the operator's own
    assert server.status.startswith("200")


def test_a_host_does_not_choose_the_port_whose_policies_hold() -> None:
    """On a UNIX socket (no address) gunicorn makes a port of the Host header."""
    server = Server()
    server.mesh.start()
    server.mesh._inbound.publish({8080: InboundPlan(mtls=MtlsMode.STRICT), 9090: NO_POLICY})
    server.serve(REMOTE_ADDR="127.0.0.1", SERVER_PORT="9090", HTTP_HOST="a:9090")
    assert server.status.startswith("200")
    for remote, port in (("127.0.0.1", "8080"), ("", "8080"), ("", "9090")):
        server.call(REMOTE_ADDR=remote, SERVER_PORT=port, HTTP_HOST=f"a:{port}")
        assert server.status.startswith("403")


def test_an_empty_content_length_is_none() -> None:
    server = Server()
    server.serve(CONTENT_LENGTH="", CONTENT_TYPE="")
    assert server.status == "200 OK"


def test_the_request_lasts_until_its_body_is_closed() -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            assert current_request() is server.environ["meshlib"]
            yield b"a"

        def close(self) -> None:
            closed.append(current_request())

    server = Server(Body())
    body = server.call()
    assert b"".join(body) == b"a"
    assert server.active == 1
    close(body)
    close(body)
    assert server.active == 0
    assert closed == [server.environ["meshlib"]]
    assert current_request() is None


def test_a_failing_close_ends_the_request() -> None:
    class Body(list[bytes]):
        def close(self) -> None:
            raise RuntimeError("no")

    server = Server(Body())
    body = server.call()
    with pytest.raises(RuntimeError, match="no"):
        close(body)
    assert server.active == 0
    assert current_request() is None


def test_a_failing_application_ends_the_request() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    server = Server(fail)
    with pytest.raises(RuntimeError, match="no"):
        server.call()
    assert server.active == 0
    assert current_request() is None


def test_a_file_goes_to_the_server_as_it_is(tmp_path: Any) -> None:
    """Only then can it send the file by itself."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        wrapper = FileWrapper(file)
        server = Server(wrapper)
        assert server.call(**{"wsgi.file_wrapper": FileWrapper}) is wrapper
    assert server.active == 0


@pytest.mark.parametrize(("draining", "connection"), [(False, "keep-alive"), (True, "close")])
def test_draining_is_said_in_responses(draining: bool, connection: str) -> None:
    server = Server()
    if draining:
        server.mesh.drain()
    server.serve(**WERKZEUG)
    assert dict(server.headers) == {"X": "1", "Connection": connection}


def test_other_servers_are_sent_no_header_about_connections() -> None:
    """PEP 3333 forbids it; wsgiref and waitress answer 500 to an application that does it."""
    server = Server()
    server.mesh.drain()
    server.serve()
    assert dict(server.headers) == {"X": "1"}


def test_gunicorns_response_is_told() -> None:
    class Response:
        def __init__(self) -> None:
            self.closed = 0
            self.headers: list[tuple[str, str]] = []

        def force_close(self) -> None:
            self.closed += 1

        def start_response(self, status: str, headers: list[tuple[str, str]]) -> Any:
            self.headers = headers

    server, response = Server(), Response()
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    close(MeshMiddleware(server._app, server.mesh)(environ, response.start_response))
    assert response.closed == 0
    server.mesh.drain()
    close(MeshMiddleware(server._app, server.mesh)(environ, response.start_response))
    assert response.closed == 1
    assert dict(response.headers) == {"X": "1"}


def test_the_first_request_announces() -> None:
    server = Server()
    assert server.control.announced == []
    server.serve()
    assert server.control.announced == [8080]


def test_a_process_that_cannot_prove_who_it_is_lets_nobody_in() -> None:
    """A WSGI server starts the mesh with its first request, which has nobody to tell: each is refused."""
    server = Server()
    server.serve()
    assert server.status == "200 OK", "a mesh without identities by choice"
    server = Server()
    server.mesh = Mesh(service="tests", port=8080)
    middleware = MeshMiddleware(server._app, server.mesh)
    for _ in range(2):
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        b"".join(middleware(environ, server._start))
        assert server.status.startswith("403")
    assert server.environ == {}
