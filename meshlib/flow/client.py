"""The client's side of a call: the order of mechanisms, written once.

    path → route → fault → rate limit → overall deadline → cluster → request limit → alterations
        → [ endpoint → attempt → worth a retry? → budget → backoff ]
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
   that refused anybody's connection a moment ago.
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
from dataclasses import replace
from typing import Any

from meshlib import errors
from meshlib.flow.alterations import Alterations, Share
from meshlib.flow.commands import ATTEMPT_COUNT, EXPECTED_TIMEOUT, Attempt, Command, Sleep
from meshlib.flow.destination import Destination, Plan
from meshlib.flow.record import CallRecord
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call, Headers, Overrides
from meshlib.model.cluster import Discovery
from meshlib.model.outcome import UNREACHED, Outcome, Reset
from meshlib.model.route import RetryPolicy
from meshlib.policy.balancing import Host
from meshlib.policy.fault import drawn_delay, is_aborted
from meshlib.policy.hashing import NO_HASH
from meshlib.policy.local_reply import LocalReply
from meshlib.policy.paths import canonical_text
from meshlib.policy.retrying import Retry, backoff, strategy_wait
from meshlib.policy.rng import Rng
from meshlib.wire.errors import NoIdentity, TlsFailed

ClientFlow = Generator[Command, "Outcome | float", "Served | None"]

_ATTEMPT_HEADERS = tuple(((ATTEMPT_COUNT, str(number).encode()),) for number in range(32))
_PASSTHROUGH = Discovery.PASSTHROUGH


class Lease:
    """The slots that a response holds until its body has been read or given up.  `release` is idempotent."""

    __slots__ = ("_host", "_upstream")

    def __init__(self, upstream: Upstream, host: Host) -> None:
        self._upstream: Upstream | None = upstream
        self._host = host

    def release(self) -> None:
        """Under the same lock as the flow's steps."""
        if self._upstream is not None:
            self._upstream.active -= 1
            self._host.active -= 1
            self._upstream = None


class Served:
    """How a flow ends well: the last outcome, and the lease to release (None when nothing is held).

    ``headers`` are set when they are not those of the outcome: the route has changed them, or the response is its own.

    ``limit`` is set when the attempt had less time than the call: a response that has begun is bounded by the call's deadline
    (None: by none) and its name, and no longer by the timeout of one try, as in Envoy.
    """

    __slots__ = ("body", "headers", "lease", "limit", "outcome")

    def __init__(
        self,
        outcome: Outcome,
        lease: Lease | None,
        body: bytes = b"",
        limit: tuple[float | None, errors.TimeoutName] | None = None,
    ) -> None:
        self.outcome = outcome
        self.lease = lease
        self.body = body
        self.headers: Headers | None = None
        self.limit = limit


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
        reply = yield from _without_upstream(altered, share, call, record, rng)
        if reply is not None:
            return reply
        name = share.name
    if destination.limits is not None:
        destination.limits.check(call, record)
    upstream = plan.upstreams.get(name)
    if upstream is None or upstream.error:
        reason = upstream.error if upstream is not None else "it is not configured"
        raise errors.ClusterNotFound(
            f"the route's cluster cannot be used: {reason}", authority=call.authority, route=plan.name, cluster=name
        )
    record.use(upstream)
    cluster = upstream.cluster
    if cluster.discovery is _PASSTHROUGH:
        if altered is not None and share is not None and altered.changes(share):
            raise _unalterable(call, plan, name)
        return None
    if upstream.active >= cluster.circuit_breakers.max_requests:
        raise fail(errors.Overflow, "the cluster's limit of concurrent requests (maxRequests) is reached", record)
    placed = plan.hasher(call, rng) if upstream.hashes and plan.hasher is not None else NO_HASH
    if altered is not None and share is not None:
        altered.apply(call, share)
    if plan.mirrors is not None:
        yield from plan.mirrors.copies(call, rng)
    tries = _Tries(call, plan, upstream, record, count=destination.attempt_count_header, hash_=placed.value)
    served = yield from tries.run(rng)
    if placed.cookies:
        served.headers = [*served.outcome.headers, *((b"set-cookie", cookie) for cookie in placed.cookies)]
    if share is not None and share.response is not None:
        served.headers = share.response(served.outcome.headers if served.headers is None else served.headers)
    return served


def _without_upstream(
    altered: Alterations, share: Share, call: Call, record: CallRecord, rng: Rng
) -> Generator[Command, Outcome | float, Served | None]:
    """What comes before a route's destinations, or in their place: faults, and responses of its own."""
    reply: LocalReply | None = None
    if altered.fault is not None:
        pause = drawn_delay(altered.fault, rng)
        if pause:
            record.flag("DI")
            yield from _hold_up(pause, call, record)
        if is_aborted(altered.fault, rng):
            record.flag("FI")
            reply = altered.aborted(call, share)
    if reply is None:
        reply = altered.answered(call, share)
    if reply is None:
        return None
    record.status = reply.status
    served = Served(Outcome(call.started, status=reply.status), None, reply.body)
    served.headers = reply.headers
    return served


def _hold_up(pause: float, call: Call, record: CallRecord) -> Generator[Command, Outcome | float, None]:
    """An injected delay.  The route's timeout begins after it, the caller's deadline does not."""
    deadline = call.deadline
    woken = yield Sleep(pause if deadline is None else max(min(pause, deadline - call.started), 0.0))
    assert isinstance(woken, float)
    if deadline is not None and woken >= deadline:
        raise reset_error(Outcome(woken, reset=Reset.TIMEOUT, sent=False, timeout=call.deadline_name), record, call)
    call.started = woken


def _unalterable(call: Call, plan: Plan, name: str) -> errors.RouteError:
    return errors.RouteError(
        "the route changes headers, path or host, but what it leads to is called by the application's own transport: "
        "leave the changes out, or give the ServiceEntry a resolution (STATIC or DNS)",
        authority=call.authority,
        route=plan.name,
        cluster=name,
    )


class _Tries:
    """The retry loop of one call."""

    __slots__ = ("_call", "_count", "_deadline", "_deadline_name", "_hash", "_per_try", "_record", "_retry", "_upstream")

    def __init__(
        self, call: Call, plan: Plan, upstream: Upstream, record: CallRecord, *, count: bool, hash_: int | None = None
    ) -> None:
        """`count`: the endpoints are told which try each one is; `hash_`: what the call is placed by."""
        self._hash = hash_
        self._call = call
        self._count = count
        self._upstream = upstream
        self._record = record
        overrides = call.overrides
        if overrides is None:
            self._retry, self._per_try = plan.retry, plan.per_try
        else:
            self._retry, self._per_try = overridden(plan.retry, overrides)
        self._deadline = call.deadline
        self._deadline_name: errors.TimeoutName = call.deadline_name
        if plan.timeout:
            at = call.started + plan.timeout
            if self._deadline is None or at < self._deadline:
                self._deadline, self._deadline_name = at, "route"

    def run(self, rng: Rng) -> Generator[Command, Outcome | float, Served]:
        call, upstream, record, retry = self._call, self._upstream, self._record, self._retry
        now = call.started
        tried: list[Host] = []
        holds_retry = False
        lease: Lease | None = None
        upstream.active += 1
        try:
            while True:
                host = self._pick_again(tried, rng, now) if tried else upstream.pick((), 0, rng, now, self._hash)
                if host is None:
                    raise self._nobody()
                attempt = self._attempt(host, now)
                host.active += 1
                host.total += 1
                record.tried(host)
                try:
                    outcome: Outcome = yield attempt  # type: ignore[assignment]  # what comes back for an Attempt
                    if outcome.reset is not None or upstream.attentive:
                        upstream.learn(host, outcome, rng)
                    if holds_retry:
                        upstream.active_retries -= 1
                        holds_retry = False
                    # Nearly all calls end here: whether the policy wants another try is asked before anything else is.
                    pause = None
                    if retry is not None and retry.wants(outcome, call.method, unsent_only=call.inherited_attempt > 1):
                        pause = self._pause(retry, outcome, rng)
                    if pause is None:
                        if outcome.reset is not None:
                            raise reset_error(outcome, record, call)
                        record.status = outcome.status
                        if outcome.complete:
                            return Served(outcome, None)
                        lease = Lease(upstream, host)
                        limit = (self._deadline, self._deadline_name) if attempt.deadline_name == "per_try" else None
                        return Served(outcome, lease, limit=limit)
                finally:
                    if lease is None:
                        host.active -= 1
                tried.append(host)
                if outcome.reset not in UNREACHED:
                    upstream.active_retries += 1
                    holds_retry = True
                now = outcome.at
                if pause > 0.0:
                    now = yield Sleep(pause)  # type: ignore[assignment]  # what comes back for a Sleep
        finally:
            if holds_retry:
                upstream.active_retries -= 1
            if lease is None:  # complete, failed, or closed by the driver: the caller gave up
                upstream.active -= 1

    def _pick_again(self, tried: list[Host], rng: Rng, now: float) -> Host | None:
        assert self._retry is not None
        return self._upstream.pick_again(tried, self._retry.policy, rng, now, self._hash)

    def _nobody(self) -> errors.CallError:
        upstream = self._upstream
        reason = "all are unhealthy or draining" if upstream.hosts else "it has none"
        return fail(errors.NoHealthyUpstream, f"no endpoint of {upstream.name} can be used: {reason}", self._record)

    def _attempt(self, host: Host, now: float) -> Attempt:
        number = self._record.attempts + 1
        headers = _ATTEMPT_HEADERS[number if number < 32 else -1] if self._count else ()
        limit: float | None = self._deadline
        name: errors.TimeoutName = self._deadline_name
        if self._per_try and (limit is None or now + self._per_try < limit):
            limit, name = now + self._per_try, "per_try"
        if limit is not None:
            headers = (*headers, (EXPECTED_TIMEOUT, b"%d" % max(int((limit - now) * 1000), 1)))
        return Attempt(host, self._upstream.cluster, number, limit, name, headers)

    def _pause(self, retry: Retry, outcome: Outcome, rng: Rng) -> float | None:
        """Seconds until the next try, which the policy wants; None when this outcome is the last all the same."""
        call, record, upstream = self._call, self._record, self._upstream
        if not call.replayable and outcome.sent:
            return None
        if outcome.reset is not None:
            record.flag(outcome.reset.flag)
        strategies = call.overrides if call.overrides is not None and call.overrides.has_strategies else None
        if strategies is None and record.attempts > retry.policy.attempts:
            record.flag("URX")
            return None
        if outcome.reset not in UNREACHED and not upstream.may_retry():
            record.flag("UO")
            return None
        if strategies is None:
            pause = backoff(retry.policy, record.attempts, rng)
        else:
            wait = strategy_wait(strategies, outcome, record.attempts, call.started)
            if wait is None:
                record.flag("URX")
                return None
            pause = wait
        if self._deadline is not None and outcome.at + pause >= self._deadline:
            return None
        return pause


def overridden(retry: Retry | None, overrides: Overrides) -> tuple[Retry | None, float]:
    """The policy and the seconds of each try, with what this call says in their place."""
    own = overridden_retry(retry, overrides)
    if overrides.per_try_timeout is not None:
        return own, overrides.per_try_timeout
    return own, own.policy.per_try_timeout if own is not None else 0.0


def overridden_retry(retry: Retry | None, overrides: Overrides) -> Retry | None:
    """The route's policy with what this call says in its place."""
    if overrides.retries is None and overrides.retry_on is None and not overrides.has_strategies:
        return retry
    base = retry.policy if retry is not None else RetryPolicy(attempts=0)
    attempts = base.attempts if overrides.retries is None else overrides.retries
    if attempts == 0 and not overrides.has_strategies:
        return None
    return Retry(replace(base, attempts=attempts, retry_on=base.retry_on if overrides.retry_on is None else overrides.retry_on))


def fail(kind: type[errors.CallError], message: str, record: CallRecord, **more: Any) -> errors.CallError:
    """An error that knows everything its call went through."""
    record.flag(kind.flag)
    return kind(
        message,
        authority=record.authority,
        route=record.route,
        cluster=record.cluster,
        endpoint=record.endpoint,
        attempts=record.attempts,
        flags=record.flags,
        **more,
    )


_RESET_ERRORS: dict[Reset, tuple[type[errors.CallError], str]] = {
    Reset.CONNECT_FAILURE: (errors.ConnectFailed, "no connection to the endpoint"),
    Reset.CONNECT_TIMEOUT: (errors.ConnectTimeout, "no connection to the endpoint in time"),
    Reset.POOL_TIMEOUT: (errors.PoolTimeout, "no connection became free within the caller's pool timeout"),
    Reset.OVERFLOW: (errors.Overflow, "the cluster's limit of connections or pending requests is reached"),
    Reset.CONNECTION_TERMINATION: (errors.ConnectionTerminated, "the connection ended before the response was complete"),
    Reset.PROTOCOL_ERROR: (errors.UpstreamProtocolError, "the endpoint's answer breaks HTTP/1.1 or was cut short"),
    Reset.LOCAL: (errors.UpstreamError, "the attempt was given up on this side"),
}

_TLS_ERROR = (errors.TlsFailed, "no connection that both sides trust")

_TIMEOUT_TEXT = {
    "route": "the route's timeout (VirtualService http.timeout)",
    "per_try": "the route's timeout for one try (retries.perTryTimeout)",
    "deadline": "the deadline of the request that this process is serving",
    "total": "the caller's timeout",
}


def reset_error(outcome: Outcome, record: CallRecord, call: Call) -> errors.CallError:
    """The error for a call whose last outcome is a reset; the low-level exception stays as its cause."""
    reset = outcome.reset
    assert reset is not None
    error: errors.CallError
    if reset in (Reset.TIMEOUT, Reset.PER_TRY_TIMEOUT):
        which = outcome.timeout or ("per_try" if reset is Reset.PER_TRY_TIMEOUT else "total")
        text = _TIMEOUT_TEXT.get(which, f"the caller's {which} timeout")
        seconds = outcome.at - call.started
        message = f"{text} passed after {seconds:.3f} s"
        error = fail(errors.TimeoutExceeded, message, record, which=which, seconds=seconds)
    else:
        kind, text = _TLS_ERROR if isinstance(outcome.error, TlsFailed | NoIdentity) else _RESET_ERRORS[reset]
        error = fail(kind, f"{text}: {outcome.error}" if outcome.error is not None else text, record)
    error.__cause__ = outcome.error
    return error
