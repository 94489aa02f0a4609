"""The client's side of a call: the order of mechanisms, written once.

    path → route → fault → rate limit → overall deadline → cluster → request limit → alterations
        → [ endpoint → guards → attempt → worth a retry? → budget → backoff ]
        → outcome

Each stands where it does for a reason:

1. **Path** in its canonical form: routes look at it, and it is what goes on the wire, as in Envoy, so both sides see the same.
   Then the **route**: everything after it is its policy.  **Faults** come before all else that a route does, as in Envoy:
   they are not retried, and what they delay does not use up the route's timeout.  A response of the route's own ends the
   call before it can use anything up.  **Rate limits** come before the cluster, which they know nothing of: a call counts once.
2. **Deadline** next, before anything may wait: it covers every retry and every backoff (Envoy's route timeout), and it is the
   tightest of the route's, the caller's, and what is left of the request that this process is serving.
3. **Cluster**: one draw of the weighted split.  Retries keep it, as in Envoy, or a 1 % canary would get more than 1 %.
4. **Request limit** outside of the retry loop: a call counts once, however often it is tried, and one that is refused here
   costs nothing.  Then the **alterations** of path, host and headers, once: every try sends the same, and so do the copies
   for **mirrors**, which leave now and are heard of no more.
5. **Endpoint** inside of the loop: each try balances anew and avoids the hosts that have already failed this call, and those
   that refused anybody's connection a moment ago.  Where calls are placed by a **hash**, it is that of the request as it is
   sent, as in Envoy 1.40, and all tries have the same.  **Guards** (circuit breaker, adaptive concurrency) have the last word
   on each attempt, and learn from each.  A cluster that is **hedged** has this loop with several attempts at the same time
   (`flow.hedging`).
6. **Budget** after the policy has said yes and before any waiting: a retry holds its slot from then until it is decided, so a
   burst of failures cannot book more retries than the budget allows.  A try that made no connection is outside of it, as
   gRPC's transparent retries are (gRFC A6): it reached nobody, so trying elsewhere adds no load to anybody.
7. **Backoff** last, and only if the deadline leaves room for it: sleeping into a timeout helps nobody.

A flow never reads a clock: the time comes in with each outcome.  It raises the MeshError that the caller gets, or returns the
outcome with its response; a `Lease` then holds the endpoint's slot until the body has been read.  It returns None when the
matched cluster is a passthrough: the call belongs to the caller's own transport.
"""

from __future__ import annotations

from collections.abc import Generator

from meshlib import errors
from meshlib.flow.alterations import Alterations, Share
from meshlib.flow.commands import Command, Result, Sleep
from meshlib.flow.destination import Destination, Plan
from meshlib.flow.failing import fail, overflowing, reset_error
from meshlib.flow.hedging import HedgedTries, may_hedge
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.tries import Tries
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.cluster import Discovery
from meshlib.model.outcome import Outcome, Reset
from meshlib.policy.fault import Strike
from meshlib.policy.hashing import NO_HASH, Hashed
from meshlib.policy.paths import canonical_text
from meshlib.policy.rng import Rng

ClientFlow = Generator[Command, Result, "Served | None"]

_PASSTHROUGH = Discovery.PASSTHROUGH


def client_flow(call: Call, destination: Destination, record: CallRecord, rng: Rng) -> ClientFlow:
    """Drive with an Outcome for each Attempt and the new time for each Sleep.  Raises errors.CallError."""
    path = canonical_text(call.path, destination.normalization)
    if path is None:
        raise errors.RequestError(f"{call.path!r} is no path to call: Envoy answers 400 to it; it must not contain %00")
    call.path = path
    plan = destination.plan(call, rng)
    if plan is None:
        raise errors.RouteNotFound(f"no route of {call.authority} matches {call.method} {call.path}", authority=call.authority)
    record.route = plan.name
    altered = plan.alterations
    share: Share | None = None
    if altered is None:
        name = plan.only or plan.pick(rng)
    else:
        share = altered.draw(rng)
        strike = altered.drawn(rng)
        if strike is not None:
            reply = yield from _without_upstream(altered, share, strike, call, record)
            if reply is not None:
                return reply
        name = share.name
    if destination.limits is not None:
        destination.limits.check(call, record)
    upstream = plan.upstreams.get(name)
    if upstream is None or upstream.error:
        raise _unusable(call, plan, name, upstream)
    record.use(upstream)
    cluster = upstream.cluster
    if cluster.discovery is _PASSTHROUGH:
        if altered is not None and share is not None and altered.changes(share):
            raise _unalterable(call, plan, name)
        return None
    if upstream.active >= cluster.circuit_breakers.max_requests:
        raise _overflow(call, upstream, record)
    if altered is not None and share is not None:
        altered.apply(call, share)
        record.response_edit = share.response
    if plan.mirrors is not None and upstream.usable:  # what nobody gets has no copies either, as in Envoy
        for copy in plan.mirrors.copies(call, rng):  # noqa: UP028  # a list takes nothing that is sent
            yield copy
    if upstream.plain:
        served = yield from Tries(call, plan, upstream, record, count=destination.attempt_count_header).run(rng)
    else:
        hashed = plan.hasher(call, rng) if upstream.hashes and plan.hasher is not None else NO_HASH
        served = yield from _tries(call, plan, upstream, record, hashed, count=destination.attempt_count_header).run(rng)
        if hashed.cookies:
            served.headers = [*served.outcome.headers, *((b"set-cookie", cookie) for cookie in hashed.cookies)]
    if share is not None and share.response is not None:
        served.headers = share.response(served.outcome.headers if served.headers is None else served.headers)
    return served


def _tries(call: Call, plan: Plan, upstream: Upstream, record: CallRecord, hashed: Hashed, *, count: bool) -> Tries:
    tries = Tries if upstream.hedger is None or not may_hedge(call) else HedgedTries
    return tries(call, plan, upstream, record, count=count, hash_=hashed.value)


def _without_upstream(
    altered: Alterations, share: Share, strike: Strike, call: Call, record: CallRecord
) -> Generator[Command, Result, Served | None]:
    """What comes before a route's destinations, or in their place: faults, and responses of its own."""
    if strike.delay:
        record.flag("DI")
        yield from _hold_up(strike.delay, call, record)
    if strike.aborted:
        record.flag("FI")
    reply = altered.aborted(call, share) if strike.aborted else altered.answered(call, share)
    if reply is None:
        return None
    record.status = reply.status
    served = Served(Outcome(call.started, status=reply.status), None, reply.body)
    served.headers = reply.headers
    return served


def _hold_up(pause: float, call: Call, record: CallRecord) -> Generator[Command, Result, None]:
    """An injected delay.  The route's timeout begins after it, the caller's deadline does not."""
    deadline = call.deadline
    woken = yield Sleep(pause if deadline is None else max(min(pause, deadline - call.started), 0.0))
    assert isinstance(woken, float)
    if deadline is not None and woken >= deadline:
        raise reset_error(Outcome(woken, reset=Reset.TIMEOUT, sent=False, timeout=call.deadline_name), record, call)
    call.started = woken


def _unusable(call: Call, plan: Plan, name: str, upstream: Upstream | None) -> errors.ClusterNotFound:
    reason = upstream.error if upstream is not None else "it is not configured"
    return errors.ClusterNotFound(
        f"the route's cluster cannot be used: {reason}", authority=call.authority, route=plan.name, cluster=name
    )


def _overflow(call: Call, upstream: Upstream, record: CallRecord) -> errors.CallError:
    upstream.counts.overflow(upstream, call.started, "maxRequests")
    return fail(errors.Overflow, overflowing(upstream), record)


def _unalterable(call: Call, plan: Plan, name: str) -> errors.RouteError:
    return errors.RouteError(
        "the route changes headers, path or host, but what it leads to is called by the application's own transport: "
        "leave the changes out, or give the ServiceEntry a resolution (STATIC or DNS)",
        authority=call.authority,
        route=plan.name,
        cluster=name,
    )
