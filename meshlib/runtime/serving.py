"""The server's side in a process: drives server flows, keeps the request's context in place, counts what is in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType

from meshlib.flow.inbound import NO_POLICY, InboundPlan
from meshlib.flow.server import Handle, ServerFlow, server_flow
from meshlib.model.inbound import Inspection, Refusal, RequestContext, ServerRequest
from meshlib.model.listener import MtlsMode
from meshlib.runtime.context import CURRENT
from meshlib.runtime.fork import forget_in_child

_STRICTNESS = (MtlsMode.DISABLE, MtlsMode.PERMISSIVE, MtlsMode.STRICT)


def _not_yet(inspection: Inspection) -> Refusal:
    return Refusal(503, "policy_not_received", b"Service Unavailable")


POLICY_UNKNOWN = InboundPlan(mtls=MtlsMode.STRICT, steps=(_not_yet,))
"""Of a process that has an identity, until the control service says what holds: nothing comes in before that is known."""


class Inbound:
    """What this process serves.  One per Mesh."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._idle = threading.Condition()
        self.active = 0  # requests in the application now
        self.served = 0
        self.refused = 0
        self.draining = False
        self._plans: Mapping[int, InboundPlan] = {}
        self._elsewhere = NO_POLICY
        forget_in_child(self)

    def publish(self, plans: Mapping[int, InboundPlan], unlisted: InboundPlan = NO_POLICY) -> None:
        """What holds from now on for each served port, for new connections and for requests on those that are open.

        `unlisted` is what holds as long as there are no plans at all (`POLICY_UNKNOWN` in a process with an identity).  Once
        there are, a port that none of them names is a way around those that they name, and has the strictest of them.
        """
        strictest = max(plans.values(), key=lambda plan: _STRICTNESS.index(plan.mtls), default=unlisted)
        self._plans, self._elsewhere = plans, strictest

    def plan(self, port: int) -> InboundPlan:
        """What holds for `port` of this process (0: unknown, or no TCP port)."""
        return self._plans.get(port, self._elsewhere)

    def serve(self, request: ServerRequest) -> Serving:
        """Begin a request.  Look at `Serving.refusal` first; otherwise run the application inside of ``with``."""
        return Serving(self, server_flow(request, time.monotonic(), self.plan(request.connection.local_port)))

    def wait_idle(self, timeout: float) -> bool:
        """Block until nothing is being served any more; False when `timeout` seconds passed first.  Only while draining."""
        with self._idle:
            return self._idle.wait_for(lambda: self.active == 0, timeout)

    def left(self) -> None:
        with self.lock:
            self.active -= 1
            self.served += 1
        if self.draining and self.active == 0:
            with self._idle:
                self._idle.notify_all()

    def forget(self) -> None:
        """In a forked child: what is in flight is in flight in the parent."""
        self.lock = threading.Lock()
        self._idle = threading.Condition()
        self.active = 0


class Serving:
    """One request on its way through the server's flow.

    ``refusal`` is set when the application must not see the request.  ``close``: say ``connection: close`` in the response, as
    this process is draining.  Entering puts the request's context in place for everything the application starts.
    """

    __slots__ = ("_flow", "_inbound", "_token", "close", "context", "inspection", "refusal", "target")

    def __init__(self, inbound: Inbound, flow: ServerFlow) -> None:
        self._inbound = inbound
        self._flow = flow
        self.refusal: Refusal | None = None
        self.inspection: Inspection | None = None  # what the filters changed in headers; set when there is no refusal
        self.close = inbound.draining
        try:
            handle = next(flow)
        except StopIteration as stop:
            self.refusal = stop.value
            self.context = RequestContext()
            self.target = b""
            inbound.refused += 1
        else:
            assert isinstance(handle, Handle)
            self.context = handle.context
            self.inspection = handle.inspection
            self.target = handle.target

    def __enter__(self) -> Serving:
        self._token = CURRENT.set(self.context)
        inbound = self._inbound
        with inbound.lock:
            inbound.active += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inbound.left()
        try:
            CURRENT.reset(self._token)
        except ValueError:
            # A WSGI server may finish a body in another context than it began in; that context ends with the request.
            CURRENT.set(None)
        self._flow.close()
