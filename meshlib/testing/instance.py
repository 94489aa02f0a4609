"""A process that serves, in memory: an ASGI application at an address, with the identity that it would prove.

It is served as a server would: an application that fails answers 500, one whose client has gone is told so and runs on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Protocol

from meshlib.model.call import Headers
from meshlib.model.identity import Peer
from meshlib.model.inbound import Connection
from meshlib.testing.faults import Delay, Fault, Injected, Reset, Status
from meshlib.testing.virtual_time import serving
from meshlib.wire.errors import Terminated, WireError

logger = logging.getLogger("meshlib.testing")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]
"""ASGI 3."""

_ARRIVED = "meshlib.arrived"
CONNECTION = "meshlib.connection"  # where `meshlib_integrations.asgi` looks for it in the scope's state


@dataclass(slots=True, eq=False)
class Arrived:
    """A request that has come to an instance.  Headers are raw pairs with lower-case names."""

    method: str
    target: bytes
    headers: Headers
    body: bytes
    connection: Connection
    at: float  # seconds on the clock of the simulation
    served: bool = False  # the application got it: nothing before it has refused or answered it

    @property
    def path(self) -> str:
        """Without the query, as on the wire."""
        return self.target.partition(b"?")[0].decode("ascii")

    @property
    def peer(self) -> str:
        """The SPIFFE ID that its caller has proved; empty: none."""
        return self.connection.peer.uri if self.connection.peer is not None else ""

    def header(self, name: str) -> str | None:
        """The first value of a header; None: there is none."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), None)


class Responding(Protocol):
    """Where a response goes; nothing happens any more once it has ended."""

    gone: asyncio.Event
    """Set when nobody waits for the response any more."""

    def start(self, status: int, headers: Headers) -> None: ...

    def write(self, piece: bytes) -> None: ...

    def end(self, error: WireError | None = None) -> None: ...


class Instance:
    """One address.  `peer`: who it proves to be; None: it speaks no mTLS.  `inner`: whose lifespan it is, if not the app's."""

    def __init__(
        self, name: str, key: str, app: Application, *, inner: Application | None = None, peer: Peer | None = None
    ) -> None:
        self.name = name
        self.key = key  # "10.0.0.7:9080"
        self.app = app
        self.inner = inner or app
        self.peer = peer
        self.up = True
        self.arrived: list[Arrived] = []
        self.failures: list[BaseException] = []  # what the application has raised
        self._faults: list[Injected] = []
        self._context = copy_context()  # of whoever declared it, and not of its callers
        self._lifespan: _Lifespan | None = None

    def inject(self, injected: Injected) -> None:
        self._faults.append(injected)

    def take(self, *kinds: type[Fault]) -> Iterator[Fault]:
        """The faults of these kinds that happen now, in the order in which they were injected."""
        self._faults = [each for each in self._faults if each.active]
        for injected in self._faults:
            if isinstance(injected.fault, kinds) and injected.active:
                yield injected.take()

    def serve(self, request: Arrived, response: Responding) -> asyncio.Task[None]:
        """Serve a request, in the running loop's own time."""
        loop = asyncio.get_running_loop()
        return loop.create_task(self._serve(request, response), context=self._context.copy())

    async def stop(self) -> None:
        """The application's own shutdown."""
        if self._lifespan is not None:
            await self._lifespan.stop()

    async def _serve(self, request: Arrived, response: Responding) -> None:
        serving()
        for fault in self.take(Delay, Status, Reset):
            match fault:
                case Delay(seconds):
                    await asyncio.sleep(seconds)
                case Status(status, body, headers):
                    response.start(status, [(name.lower().encode(), value.encode()) for name, value in headers])
                    response.write(body)
                    response.end()
                    return
                case Reset(None):
                    response.end(Terminated("the connection was lost (injected by the test)"))
                    return
                case Reset(int(after)):
                    response = _Cut(response, after)
        self.arrived.append(request)
        if self._lifespan is None:
            self._lifespan = _Lifespan(self.inner, self._context)
        await _Exchange(self, request, response, await self._lifespan.started()).run()


class _Cut:
    """A response whose connection is lost `after` so many bytes of its body."""

    def __init__(self, response: Responding, after: int) -> None:
        self._response = response
        self._left = after
        self.gone = response.gone

    def start(self, status: int, headers: Headers) -> None:
        self._response.start(status, headers)
        self.write(b"")

    def write(self, piece: bytes) -> None:
        self._response.write(piece[: self._left])
        self._left -= min(self._left, len(piece))
        if not self._left:
            self._response.end(Terminated("the connection was lost (injected by the test)", responded=True))

    def end(self, error: WireError | None = None) -> None:
        self._response.end(error)


class _Exchange:
    """One request in the application."""

    def __init__(self, instance: Instance, request: Arrived, response: Responding, state: dict[str, Any]) -> None:
        self._instance = instance
        self._request = request
        self._response = response
        self._state = state
        self._received = False
        self._started = False
        self._ended = False

    async def run(self) -> None:
        try:
            await self._instance.app(self._scope(), self._receive, self._send)
        except Exception as error:
            self._instance.failures.append(error)
            logger.exception("%s failed at %s %s", self._instance.name, self._request.method, self._request.path)
        if not self._started:
            self._response.start(500, [(b"content-type", b"text/plain; charset=utf-8")])
            self._response.write(b"Internal Server Error")
            self._response.end()
        elif not self._ended:
            self._response.end(Terminated("the application ended before its response did", responded=True))

    def _scope(self) -> Scope:
        request = self._request
        raw, _, query = request.target.partition(b"?")
        connection = request.connection
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": _unquoted(raw),
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": (connection.remote_address, 40000),
            "server": (connection.local_address, connection.local_port),
            "state": {**self._state, CONNECTION: connection, _ARRIVED: request},
        }

    async def _receive(self) -> Message:
        if not self._received:
            self._received = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._response.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._response.start(message["status"], [(bytes(k).lower(), bytes(v)) for k, v in message.get("headers", ())])
        elif message["type"] == "http.response.body":
            self._response.write(bytes(message.get("body", b"")))
            if not message.get("more_body", False):
                self._ended = True
                self._response.end()


def noted(app: Application) -> Application:
    """`app`, which notes that it got a request.  It goes behind whatever may refuse one."""

    async def noting(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            arrived: Arrived = scope["state"].pop(_ARRIVED)
            arrived.served = True
        await app(scope, receive, send)

    return noting


def _unquoted(raw: bytes) -> str:
    from urllib.parse import unquote

    return unquote(raw.decode("ascii"))


class _Lifespan:
    """The application's startup before its first request, and its shutdown.  One without a lifespan has neither."""

    def __init__(self, app: Application, context: Context) -> None:
        self._state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.get_running_loop().create_task(self._run(app), context=context.copy())
        self._startup = asyncio.get_running_loop().create_task(self._answer())

    async def started(self) -> dict[str, Any]:
        """What the application has put into its state.  Raises RuntimeError when its startup failed."""
        answer = await asyncio.shield(self._startup)
        if answer["type"] == "lifespan.startup.failed":
            raise RuntimeError(f"the application did not start: {answer.get('message', '')}")
        return self._state

    async def stop(self) -> None:
        if not self._task.done():
            self._inbox.put_nowait({"type": "lifespan.shutdown"})
            await self._answer()
            await self._task

    async def _answer(self) -> Message:
        return await self._answers.get()

    async def _run(self, app: Application) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await app(scope, self._inbox.get, self._answers.put)
        except Exception:  # the specification's way to say: no lifespan here
            logger.debug("no lifespan", exc_info=True)
        finally:
            self._answers.put_nowait({"type": "lifespan.none"})
