"""What a route does to a call besides sending it somewhere; compiled once, and absent for a route that does nothing of it.

    fault → (answer of the route's own | request headers → path → Host → upstream) → response headers

Envoy's order: faults come before the router, so they are neither retried nor counted against the cluster, and responses of
the route's own have its response headers, too, but not those of a destination that was never chosen.
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.flow.commands import ATTEMPT_COUNT, EXPECTED_TIMEOUT
from meshlib.model.call import Call
from meshlib.model.route import (
    NO_CHANGES,
    DirectResponse,
    Fault,
    Forward,
    HeaderChanges,
    Redirect,
    Route,
    WeightedCluster,
)
from meshlib.policy.fault import ABORTED, Strike, compile_fault
from meshlib.policy.header_mutation import FoldedEdit, HeaderEdit, compile_request_edit, compile_response_edit
from meshlib.policy.local_reply import GRPC_NAMES, LocalReply, local_reply
from meshlib.policy.rewriting import compile_location, compile_rewrite
from meshlib.policy.rng import Rng
from meshlib.policy.routing import Split

ORIGINAL_PATH = b"x-envoy-original-path"
ORIGINAL_HOST = b"x-envoy-original-host"
_SCHEME = "http"
"""Of every call that a route gets to see: what is encrypted by its caller goes by without one."""


class Share:
    """One destination of the route: its cluster, and the changes that come with it."""

    __slots__ = ("authority", "name", "original", "request", "response", "tells_original")

    def __init__(
        self, cluster: WeightedCluster, authority: str, levels: tuple[HeaderChanges, ...], *, rewritten: bool = False
    ) -> None:
        """`authority`: the route's own, which takes the place of a destination's; `levels`: the route's and wider ones;
        `rewritten`: it has another path.
        """
        self.name = cluster.name
        self.authority = authority or cluster.authority
        # Envoy tells of the original host only where the route changes it: by then it is the destination's, if that has one.
        self.tells_original = bool(authority)
        self.original = cluster.authority
        own = (cluster.headers, *levels)
        without: set[bytes] = set()  # what is said of the request anew, here or by each try
        if compile_request_edit(own) is not None:
            without |= _OURS
        if self.authority:
            without |= _HOST_HEADERS
        if rewritten:
            without.add(ORIGINAL_PATH)
        self.request: HeaderEdit | None = compile_request_edit(own, frozenset(without))
        self.response: HeaderEdit | None = compile_response_edit(own)


class Alterations:
    """Of one route."""

    __slots__ = ("_draw_fault", "_hashes", "_only", "_rewrite", "_shares", "_split", "answer", "fault")

    def __init__(self, route: Route, levels: tuple[HeaderChanges, ...]) -> None:
        """Raises ValueError for a rewrite that RE2 does not take."""
        action = route.action
        self.fault: Fault | None = route.fault
        self._draw_fault = compile_fault(route.fault) if route.fault is not None else None
        self.answer = _compile_answer(route)
        self._rewrite = compile_rewrite(route.match.path, action) if isinstance(action, Forward) else None
        clusters = action.clusters if isinstance(action, Forward) else (WeightedCluster(""),)
        authority = action.authority if isinstance(action, Forward) else ""
        self._hashes = isinstance(action, Forward) and bool(action.hash_policies)  # by headers as they are sent
        rewritten = self._rewrite is not None
        self._shares = tuple(Share(cluster, authority, levels, rewritten=rewritten) for cluster in clusters)
        self._only = self._shares[0] if len(clusters) == 1 else None
        self._split = Split(clusters)

    def draw(self, rng: Rng) -> Share:
        """The share that this call belongs to; one without a cluster if the route answers by itself."""
        return self._only or self._shares[self._split.place(rng)]

    def drawn(self, rng: Rng) -> Strike | None:
        """Not None: the call meets a fault, or ends with the route's own response."""
        strike = self._draw_fault(rng) if self._draw_fault is not None else None
        return strike if self.answer is None else strike or _UNHARMED

    def changes(self, share: Share) -> bool:
        """Whether requests or responses of this share become others."""
        return share.request is not None or share.response is not None

    def apply(self, call: Call, share: Share) -> None:
        """Make the request what it is to be upstream."""
        if share.request is None:
            return
        originals: tuple[tuple[bytes, bytes], ...] = ()
        if share.authority:
            if share.tells_original:
                originals = ((ORIGINAL_HOST, (share.original or call.host).encode("latin-1")),)
            call.host = share.authority
        if self._rewrite is not None:
            originals = (*originals, (ORIGINAL_PATH, call.path.encode("latin-1")))
            call.path = self._rewrite(call.path)
        edit, filed = share.request, call.filed
        if filed is None or filed[0] is not call.headers or type(edit) is not FoldedEdit or not edit.gone.isdisjoint(filed[1]):
            call.headers = [*edit(call.headers), *originals]
            return
        # Nearly always: nothing has to go, and the index of the headers holds for all but what comes after them.
        call.headers = headers = [*call.headers, *edit.tail, *originals]
        if self._hashes:
            fields = {**filed[1], **edit.fields}
            fields.update(originals)
            call.filed = headers, fields

    def aborted(self, call: Call, share: Share) -> LocalReply:
        """The response to a call that fails on purpose."""
        fault = self.fault
        assert fault is not None
        return _edited(local_reply(call, fault.http_status or 200, ABORTED, grpc_status=fault.grpc_status), share)

    def answered(self, call: Call, share: Share) -> LocalReply | None:
        """The route's own response; None: it has none."""
        return _edited(self.answer(call), share) if self.answer is not None else None


def alterations_of(route: Route, host: HeaderChanges) -> Alterations | None:
    """`host`: what its virtual host does to headers.  None: the route only sends calls on.  Raises ValueError."""
    action = route.action
    levels = tuple(level for level in (route.headers, host) if level != NO_CHANGES)
    if levels or route.fault is not None or isinstance(action, DirectResponse | Redirect):
        return Alterations(route, levels)
    if isinstance(action, Forward) and (
        action.prefix_rewrite
        or action.regex_rewrite is not None
        or action.authority
        or any(cluster.authority or cluster.headers != NO_CHANGES for cluster in action.clusters)
    ):
        return Alterations(route, levels)
    return None


def _compile_answer(route: Route) -> Callable[[Call], LocalReply] | None:
    action = route.action
    if isinstance(action, DirectResponse):
        status, body = action.status, action.body
        return lambda call: local_reply(call, status, body)
    if isinstance(action, Redirect):
        location = compile_location(route.match.path, action)
        moved = action.status
        return lambda call: local_reply(call, moved, b"", location=location(_SCHEME, call.host, call.path).encode("utf-8"))
    return None


def _edited(reply: LocalReply, share: Share) -> LocalReply:
    """What gRPC needs stays as it is, whatever the route does to headers."""
    if share.response is None:
        return reply
    if not any(name == b"grpc-status" for name, _ in reply.headers):
        return reply._replace(headers=share.response(reply.headers))
    own = [pair for pair in reply.headers if pair[0] in GRPC_NAMES]
    rest = share.response([pair for pair in reply.headers if pair[0] not in GRPC_NAMES])
    return reply._replace(headers=[*(pair for pair in rest if pair[0].lower() not in GRPC_NAMES), *own])


_OURS = frozenset({ATTEMPT_COUNT, EXPECTED_TIMEOUT})
"""Each try says these itself, whatever an operator wants."""
_HOST_HEADERS = frozenset({b"host", ORIGINAL_HOST})
_UNHARMED = Strike(0.0, aborted=False)
