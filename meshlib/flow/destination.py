"""What a call looks up by its authority: one target, compiled.  Immutable but for the upstreams that it points to."""

from __future__ import annotations

from collections.abc import Mapping

from meshlib.flow.alterations import alterations_of
from meshlib.flow.limiting import CallLimits
from meshlib.flow.mirroring import Mirrors, mirrors_of
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.route import NO_CHANGES, Forward, HeaderChanges, Route
from meshlib.model.snapshot import Target
from meshlib.policy.hashing import Hasher, hasher_of
from meshlib.policy.retrying import Retry
from meshlib.policy.rng import Rng
from meshlib.policy.routing import Router, Split


class Plan:
    """What to do once a route has matched."""

    __slots__ = (
        "alterations",
        "hasher",
        "mirrors",
        "name",
        "only",
        "per_try",
        "retry",
        "route",
        "split",
        "timeout",
        "upstreams",
    )

    def __init__(
        self, route: Route, upstreams: Mapping[str, Upstream], host: HeaderChanges = NO_CHANGES, *, address: str = ""
    ) -> None:
        """`host`: what the route's virtual host does to headers; `address`: of this process.

        Raises ValueError for a rewrite that cannot be compiled.
        """
        action = route.action
        self.route = route
        self.name = route.name
        self.alterations = alterations_of(route, host)
        self.upstreams = upstreams
        self.split: Split | None = None
        self.only = ""  # the one cluster there is, if there is one: then nothing needs to be drawn
        self.timeout = 0.0
        self.retry: Retry | None = None
        self.per_try = 0.0  # seconds; 0: a try has what the call has
        self.mirrors: Mirrors | None = None
        self.hasher: Hasher | None = None  # for clusters that place calls by a hash
        if isinstance(action, Forward):
            self.split = Split(action.clusters)
            if len(action.clusters) == 1:
                self.only = action.clusters[0].name
            self.timeout = action.timeout
            self.retry = Retry(action.retry) if action.retry is not None and action.retry.attempts > 0 else None
            self.per_try = self.retry.policy.per_try_timeout if self.retry is not None else 0.0
            self.hasher = hasher_of(action.hash_policies, address)
            self.mirrors = mirrors_of(action, route.name, lambda target: Destination(target, upstreams))

    def pick(self, rng: Rng) -> str:
        """The cluster that this call goes to, by name; empty when the route forwards nothing."""
        return self.split.pick(rng) if self.split is not None else ""


class Destination:
    """One authority: its compiled routes."""

    __slots__ = (
        "_plans", "_router", "attempt_count_header", "authority", "limits", "mirrored", "normalization", "target", "upstreams",
    )  # fmt: skip

    def __init__(
        self, target: Target, upstreams: Mapping[str, Upstream], limits: CallLimits | None = None, *, address: str = ""
    ) -> None:
        """`address`: of this process.  Raises ValueError when a route cannot be compiled (a regex that RE2 refuses)."""
        host = target.virtual_host
        self.target = target
        self.authority = target.authority
        self.normalization = target.normalization
        self.upstreams = upstreams
        self.attempt_count_header = host.attempt_count_header
        self.limits = limits  # how many calls may be made; None: any number
        self._router = Router(host)
        self._plans = tuple(Plan(route, upstreams, host.headers, address=address) for route in host.routes)
        self.mirrored = any(plan.mirrors is not None for plan in self._plans)

    def plan(self, call: Call, rng: Rng) -> Plan | None:
        """The plan of the first route that matches."""
        index = self._router.match(call, rng)
        return self._plans[index] if index >= 0 else None
