"""Every kind of server in front of `tests.support.mtlsapp`, and the world of certificates that it lives in."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.certificates import Minted, TrustDomain
from tests.support.servers import READY, ROOT, free_port

APP = "tests.support.mtlsapp"
PROTOCOL = "meshlib_integrations.uvicorn:MeshProtocol"
H11 = "meshlib_integrations.uvicorn:MeshH11Protocol"
WORKERS = "meshlib_integrations.gunicorn"
WERKZEUG = (
    f"from werkzeug.serving import run_simple; from {APP} import wsgi; "
    "from meshlib_integrations.werkzeug import MeshRequestHandler; "
    "run_simple('127.0.0.1', PORT, wsgi, threaded=True, request_handler=MeshRequestHandler)"
)
WSGIREF = (
    f"from wsgiref.simple_server import make_server; from {APP} import wsgi; wsgi.started(); "
    "make_server('127.0.0.1', PORT, wsgi).serve_forever()"
)


@dataclass(frozen=True)
class Kind:
    """`listens`: the middleware listens on a mesh port of its own.  `asgi`: otherwise WSGI.  `keeps_alive`: connections."""

    arguments: tuple[str, ...]
    listens: bool = False
    asgi: bool = True
    workers: int = 1
    keeps_alive: bool = True

    def command(self, port: int) -> list[str]:
        return [sys.executable, *(argument.replace("PORT", str(port)) for argument in self.arguments)]


def _uvicorn(loop: str, http: str, *more: str, workers: int = 1) -> Kind:
    options = ("--loop", loop, "--http", http, "--port", "PORT", "--log-level", "warning", *more)
    return Kind(("-m", "uvicorn", f"{APP}:asgi", *options), workers=workers)


def _gunicorn(app: str, worker: str, *more: str, listens: bool = False, workers: int = 1) -> Kind:
    options = ("-k", worker, "-b", "127.0.0.1:PORT", "--no-control-socket", "-w", str(workers), "--keep-alive", "30", *more)
    arguments = ("-m", "gunicorn", f"{APP}:{app}", *options)
    keeps_alive = not worker.endswith("SyncMeshWorker")
    return Kind(arguments, listens=listens, asgi=app == "asgi", workers=workers, keeps_alive=keeps_alive)


HOOKS = ("-c", "python:meshlib_integrations.gunicorn")
GRANIAN = ("-m", "granian", f"{APP}:asgi", "--interface", "asgi", "--host", "127.0.0.1", "--port", "PORT")

KINDS: Mapping[str, Kind] = {
    "uvicorn-asyncio-httptools": _uvicorn("asyncio", PROTOCOL, "--ws", "websockets-sansio"),
    "uvicorn-asyncio-h11": _uvicorn("asyncio", H11, "--ws", "wsproto"),
    "uvicorn-uvloop-httptools": _uvicorn("uvloop", PROTOCOL, "--ws", "wsproto"),
    "uvicorn-uvloop-h11": _uvicorn("uvloop", H11, "--ws", "websockets-sansio"),
    "uvicorn-workers": _uvicorn("auto", PROTOCOL, "--workers", "2", workers=2),
    "hypercorn": Kind(("-m", "hypercorn", f"{APP}:asgi", "--bind", "127.0.0.1:PORT"), listens=True),
    "granian": Kind(GRANIAN, listens=True),
    "gunicorn-asgi": _gunicorn("asgi", "asgi", listens=True, workers=2),
    "gunicorn-uvicorn": _gunicorn("asgi", f"{WORKERS}.UvicornMeshWorker"),
    "gunicorn-sync": _gunicorn("wsgi", f"{WORKERS}.SyncMeshWorker", *HOOKS),
    "gunicorn-gthread": _gunicorn("wsgi", f"{WORKERS}.ThreadMeshWorker", *HOOKS, "--threads", "8"),
    "werkzeug": Kind(("-c", WERKZEUG), asgi=False, keeps_alive=False),
    "wsgiref": Kind(("-c", WSGIREF), listens=True, asgi=False),
}


@dataclass
class World:
    """What a running application is told.  `set` changes it live, and returns when every process has taken it over."""

    file: Path
    domain: TrustDomain = field(default_factory=lambda: TrustDomain("td1"))
    mode: str = "STRICT"
    workers: int = 1
    generation: int = 0
    clean: int = -1  # the generation that tests begin with

    def __post_init__(self) -> None:
        self.leaf: Minted | None = self.domain.leaf("server")
        self.roots: dict[str, list[Minted]] = {"td1": [self.domain.root]}

    def write(self) -> None:
        """The file, for processes that start after this."""
        state = {
            "generation": self.generation,
            "mode": self.mode,
            "chain": self.leaf.chain_pem.decode() if self.leaf else "",
            "key": self.leaf.key_pem.decode() if self.leaf else "",
            "roots": {domain: b"".join(root.pem for root in roots).decode() for domain, roots in self.roots.items()},
        }
        written = self.file.with_suffix(".new")
        written.write_text(json.dumps(state))
        written.rename(self.file)

    def set(self, *, mode: str | None = None, leaf: Minted | None = None, roots: dict[str, list[Minted]] | None = None) -> None:
        self.mode = mode or self.mode
        self.leaf = leaf or self.leaf
        self.roots = roots if roots is not None else self.roots
        self.generation += 1
        self.write()
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + READY
        folder = self.file.with_suffix(".d")
        while True:
            known = [int(ack.read_text()) for ack in folder.glob("[0-9]*")] if folder.exists() else []
            if len(known) >= self.workers and all(number >= self.generation for number in known):
                return
            assert time.monotonic() < deadline, f"{known} of {self.workers} processes follow generation {self.generation}"
            time.sleep(0.005)


@dataclass
class Served:
    """`port` takes mTLS; `own` is the server's own, which is the same one unless the middleware listens."""

    kind: Kind
    world: World
    port: int
    own: int
    process: subprocess.Popen[bytes]
    log: Path

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def running(kind: Kind, folder: Path, **changes: str) -> Iterator[Served]:
    """The server, from when its ports answer; started anew if one was taken meanwhile."""
    log = folder / "log"
    for attempt in range(3):
        own = free_port()
        port = free_port() if kind.listens else own
        world = World(folder / f"state-{attempt}", workers=kind.workers)
        world.write()
        environ = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'integrations'}",
            "MESHLIB_PORT": str(own),
            "MESHLIB_MESH_PORT": str(port if kind.listens else 0),
            "MESHLIB_DRAIN_SECONDS": "0.1",
            "MTLS_STATE": str(world.file),
            **changes,
        }
        with log.open("wb") as output, _process(kind.command(own), environ, output) as process:
            if _ready(process, (own, port), world):
                yield Served(kind, world, port, own, process, log)
                return
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')}")


class Relay:
    """Kinds of servers one after another: each starts while the one before is asked, for that takes seconds of another core."""

    def __init__(self, names: Sequence[str], new_folder: Callable[[], Path]) -> None:
        self._names = list(names)
        self._new_folder = new_folder
        self._starting: dict[str, Future[tuple[contextlib.ExitStack, Served]]] = {}
        self._executor = ThreadPoolExecutor(1)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.ExitStack() as unused:
            unused.callback(self._executor.shutdown)
            for future in self._starting.values():
                unused.enter_context(future.result()[0])

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[Served]:
        started, served = (self._starting.pop(name, None) or self._start(name)).result()
        with started:
            for following in self._names[self._names.index(name) + 1 :][:1]:
                self._starting[following] = self._start(following)
            yield served

    def _start(self, name: str) -> Future[tuple[contextlib.ExitStack, Served]]:
        folder = self._new_folder()

        def enter() -> tuple[contextlib.ExitStack, Served]:
            started = contextlib.ExitStack()
            return started, started.enter_context(running(KINDS[name], folder))

        return self._executor.submit(enter)


@contextlib.contextmanager
def relay(request: pytest.FixtureRequest, new_folder: Callable[[], Path]) -> Iterator[Relay]:
    """Of the kinds that the chosen tests of a module ask their fixture `served` for."""
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    names = dict.fromkeys(call.params["served"] for call in calls if call is not None and "served" in call.params)
    with Relay(list(names), new_folder) as found:
        yield found


@contextlib.contextmanager
def _process(command: list[str], environ: Mapping[str, str], output: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        stdout=output,  # type: ignore[call-overload]  # a file
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=dict(environ),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: its workers go with it
            process.wait()


def _ready(process: subprocess.Popen[bytes], ports: tuple[int, ...], world: World) -> bool:
    deadline = time.monotonic() + READY
    waiting = list(dict.fromkeys(ports))
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", waiting[0]), 1):
            waiting.pop(0)
        if not waiting:
            world.wait()
            return True
        time.sleep(0.02)
    return False
