"""The server's side in a process: drives server flows, keeps the request's context in place, counts what is in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from meshlib.flow.admission import EXPIRED, Wait
from meshlib.flow.inbound import NO_POLICY, InboundPlan
from meshlib.flow.server import Check, Handle, ServerFlow, server_flow
from meshlib.flow.shedding import Stay
from meshlib.model.authorization import AuthorizerAnswer, BodyStart
from meshlib.model.inbound import Inspection, Refusal, RequestContext, ServerRequest
from meshlib.model.listener import MtlsMode
from meshlib.policy.external_authorization import apply_answer, cut, too_large, wanted_body
from meshlib.runtime.context import CURRENT
from meshlib.runtime.denials import Denials, log_denial, log_notes
from meshlib.runtime.fork import forget_in_child

_NOT_SERVED = RequestContext()
_NOBODY = AuthorizerAnswer(error="this process has no way to ask it")
_STRICTNESS = (MtlsMode.DISABLE, MtlsMode.PERMISSIVE, MtlsMode.STRICT)


def _not_yet(inspection: Inspection) -> Refusal:
    return Refusal(503, "policy_not_received", b"Service Unavailable")


POLICY_UNKNOWN = InboundPlan(mtls=MtlsMode.STRICT, steps=(_not_yet,))
"""Of a process that has an identity, until the control service says what holds: nothing comes in before that is known."""


class Authorizers(Protocol):
    """Who asks external authorizers.  Neither method raises for what goes wrong: that is an answer with an `error`."""

    def ask(self, check: Check, body: BodyStart) -> AuthorizerAnswer: ...

    async def aask(self, check: Check, body: BodyStart) -> AuthorizerAnswer: ...


class Inbound:
    """What this process serves.  One per Mesh.

    `denied` counts what was refused, by reason; `authorizers` None: requests that one is to be asked about are refused.
    """

    def __init__(self, unlisted: InboundPlan = NO_POLICY, clock: Callable[[], float] = time.monotonic) -> None:
        """`unlisted`: what holds as long as there are no plans: a process that cannot even start is not to be open for that."""
        self.unlisted = unlisted
        self.clock = clock
        self.lock = threading.Lock()
        self._idle = threading.Condition()
        self.active = 0  # requests in the application now
        self.waiting = 0  # requests before it: an authorizer is asked about them, or there is no place for them yet
        self.served = 0
        self.denied = Denials()
        self.authorizers: Authorizers | None = None
        self.draining = False
        self._plans: Mapping[int, InboundPlan] = {}
        self._elsewhere = unlisted
        forget_in_child(self)

    def publish(self, plans: Mapping[int, InboundPlan], unlisted: InboundPlan | None = None) -> None:
        """What holds from now on for each served port, for new connections and for requests on those that are open.

        `unlisted` is what holds as long as there are no plans at all; None: what this object was made with.  Once
        there are, a port that none of them names is a way around those that they name, and has the strictest of them.
        """
        strictest = max(plans.values(), key=lambda plan: _STRICTNESS.index(plan.mtls), default=unlisted or self.unlisted)
        self._plans, self._elsewhere = plans, strictest

    def plan(self, port: int) -> InboundPlan:
        """What holds for `port` of this process (0: unknown, or no TCP port)."""
        return self._plans.get(port, self._elsewhere)

    def serve(self, request: ServerRequest) -> Serving:
        """Begin a request.  While there is a `Serving.pending` check, have it asked; then look at `Serving.refusal`, and
        run the application inside of ``with`` if there is none.
        """
        plan = self._plans.get(request.connection.local_port, self._elsewhere)  # `plan`, for every request
        return Serving(self, server_flow(request, self.clock(), plan), request)

    @property
    def refused(self) -> int:
        """Requests that were not let in."""
        return self.denied.total

    def wait_idle(self, timeout: float) -> bool:
        """Block until nothing is being served any more; False when `timeout` seconds passed first.  Only while draining."""
        with self._idle:
            return self._idle.wait_for(lambda: self.active == self.waiting == 0, timeout)

    def left(self) -> None:
        """A request has ended while this process is draining."""
        if self.active == self.waiting == 0:
            with self._idle:
                self._idle.notify_all()

    @contextmanager
    def before_application(self, serving: Serving) -> Iterator[None]:
        """A request waits: whoever drains this process waits for it, too."""
        with self.lock:
            self.waiting += 1
        admitted = False
        try:
            yield
            admitted = serving.refusal is None
        finally:
            with self.lock:
                self.waiting -= 1
            if self.draining and not admitted:  # else it is in the application at once, and its end is told
                self.left()

    def forget(self) -> None:
        """In a forked child: what is in flight is in flight in the parent."""
        self.lock = threading.Lock()
        self._idle = threading.Condition()
        self.active = self.waiting = 0
        self.denied.forget()


class Serving:
    """One request on its way through the server's flow.

    ``refusal`` is set when the application must not see the request.  ``close``: say ``connection: close`` in the response, as
    this process is draining.  Entering puts the request's context in place for everything the application starts.

    ``pending`` is set as long as an external authorizer is to be asked or the application has no place for it yet: read as much
    of the body as ``wanted_body`` says, then call `check` or `acheck`, and look again.  The application still gets the whole
    body.

    ``stay``: to be ended when the response begins, and at once for what lasts (streams, web sockets); None: nobody needs that.
    """

    __slots__ = (
        "_flow", "_inbound", "_request", "_token", "close", "context", "inspection", "pending", "refusal", "stay", "target",
    )  # fmt: skip

    def __init__(self, inbound: Inbound, flow: ServerFlow, request: ServerRequest) -> None:
        self._inbound = inbound
        self._flow = flow
        self._request = request
        self.pending: Check | Wait | None = None
        self.refusal: Refusal | None = None
        self.inspection: Inspection | None = None  # what the filters changed in headers; set when there is no refusal
        self.stay: Stay | None = None
        self.close = inbound.draining
        self.context = _NOT_SERVED
        self.target = b""
        try:
            self._take(next(flow))
        except StopIteration as stop:
            self._refuse(stop.value)

    def _take(self, command: Check | Wait | Handle) -> None:
        if type(command) is Handle:
            self.context = command.context
            self.inspection = command.inspection
            self.stay = command.stay
            self.target = command.target
            if command.inspection.notes:
                log_notes(self._request, command.inspection)
        else:
            assert isinstance(command, Check | Wait)
            self.pending = command

    def _refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal
        if not refusal.denial:
            return
        inbound, check = self._inbound, self.pending
        inbound.denied.count(refusal.reason)
        log_denial(refusal, self._request, check.inspection if check is not None else None)

    # --- external authorizers, and the queue before the application

    @property
    def wanted_body(self) -> int:
        """Bytes of the body to read before the pending check, and one more to see whether there are more; 0: none."""
        return wanted_body(self.pending.filter, self._request) if isinstance(self.pending, Check) else 0

    def check(self, body: bytes = b"", *, complete: bool = True) -> None:
        """Ask the pending authorizer, or wait, blocking.  `body`: what was read of it; `complete`: there is no more."""
        with self._inbound.before_application(self):
            self._check(body, complete=complete)

    def _check(self, body: bytes, *, complete: bool) -> None:
        if isinstance(wait := self.pending, Wait):
            self._go_on(None if wait.place.wait(wait.timeout) else EXPIRED)
            return
        check, authorizers, start = *self._to_ask(), BodyStart(body, complete)
        refusal = too_large(check.filter, start)
        if refusal is None:
            answer = _NOBODY if authorizers is None else authorizers.ask(check, cut(check.filter, start))
            refusal = apply_answer(check.filter, answer, check.inspection)
        self._go_on(refusal)

    async def acheck(self, body: bytes = b"", *, complete: bool = True) -> None:
        """`check` without blocking the event loop."""
        with self._inbound.before_application(self):
            await self._acheck(body, complete=complete)

    async def _acheck(self, body: bytes, *, complete: bool) -> None:
        if isinstance(wait := self.pending, Wait):
            try:
                admitted = await wait.place.await_(wait.timeout)
            except BaseException:
                self._flow.close()  # the client has gone: the place is somebody else's
                raise
            self._go_on(None if admitted else EXPIRED)
            return
        check, authorizers, start = *self._to_ask(), BodyStart(body, complete)
        refusal = too_large(check.filter, start)
        if refusal is None:
            answer = _NOBODY if authorizers is None else await authorizers.aask(check, cut(check.filter, start))
            refusal = apply_answer(check.filter, answer, check.inspection)
        self._go_on(refusal)

    def _to_ask(self) -> tuple[Check, Authorizers | None]:
        if self.pending is None or isinstance(self.pending, Wait):
            raise RuntimeError("no authorizer is to be asked about this request")
        return self.pending, self._inbound.authorizers

    def _go_on(self, refusal: Refusal | None) -> None:
        try:
            command = self._flow.send(refusal)
        except StopIteration as stop:
            self._refuse(stop.value)
            self.pending = None
        else:
            self.pending = None
            self._take(command)

    # --- the application

    def __enter__(self) -> Serving:
        self._token = CURRENT.set(self.context)
        inbound = self._inbound
        with inbound.lock:
            inbound.active += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        inbound = self._inbound
        with inbound.lock:
            inbound.active -= 1
            inbound.served += 1
        if inbound.draining:
            inbound.left()
        if self.stay is not None and kind is not None and not issubclass(kind, Exception):
            self.stay.end(sampled=False)  # it was given up: how soon its sender has gone says nothing about the load
        try:
            CURRENT.reset(self._token)
        except ValueError:
            # A WSGI server may finish a body in another context than it began in; that context ends with the request.
            CURRENT.set(None)
        self._flow.close()
