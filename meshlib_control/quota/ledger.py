"""Who holds which share of one shared bucket, as one replica knows it.  Pure; times are monotonic seconds.

A share is not given to anybody before whoever has it cannot use it any more: because he said that a smaller one is in force,
because he closed his stream in good order, or because the time is over for which he keeps it without hearing from us.  So the
shares in use never add up to more than the replica's claim, whatever is lost on the way.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf

from meshlib_control.quota.shares import divide

TTL = 5.0
"""Seconds for which an assignment holds; it is renewed well before."""

MARGIN = 1.0
"""Seconds that a message may take: its receiver's time begins when it arrives."""

SILENCE = 5.0
"""Seconds without a report after which a holder wants nothing more."""

_SMOOTHING = 0.5
_HARDLY = 0.001  # of the whole: a change that is not worth a message
_LEAST = 0.01  # of the whole: what somebody is taken to want who wants nothing at the moment


@dataclass(slots=True)
class _Lease:
    number: int  # of the response that told it
    share: float
    until: float


@dataclass(slots=True)
class Holder:
    """One stream.  `demand` as a share of the whole; `share`: told last."""

    demand: float = 0.0
    heard: float = -inf
    share: float = 0.0
    told: float = -inf
    leases: list[_Lease] = field(default_factory=list)

    @property
    def outstanding(self) -> float:
        """The most that may be in use."""
        return max((lease.share for lease in self.leases), default=0.0)


class Ledger:
    """Of one bucket.  `claim`: what this replica may give away, as a share of the whole; `aim`: what it is to give away, less
    than that where others want their part.
    """

    def __init__(self, per_second: float, keep: float) -> None:
        """`per_second`: the whole; `keep`: seconds for which a share holds beyond its lease, without a control service."""
        self.per_second = per_second
        self.claim = self.aim = 0.0
        self.holders: dict[Hashable, Holder] = {}
        self._keep = keep
        self._gone: list[tuple[Hashable, _Lease]] = []  # of those who vanished

    @property
    def want(self) -> float:
        """What all holders want, as a share of the whole."""
        return min(sum(holder.demand for holder in self.holders.values()), 1.0) if self.holders else 0.0

    @property
    def outstanding(self) -> float:
        return sum(holder.outstanding for holder in self.holders.values()) + sum(lease.share for _, lease in self._gone)

    @property
    def idle(self) -> bool:
        return not self.holders and not self._gone

    def heard(self, stream: Hashable, requests: int, elapsed: float, now: float) -> None:
        """A report: so many requests, allowed or not, in so many seconds."""
        holder = self.holders.setdefault(stream, Holder())
        # A first report comes with the first request: what it asks for shows later.
        rate = requests / elapsed / self.per_second if elapsed >= 0.2 else _LEAST
        first = holder.heard == -inf
        wanted = rate if first else holder.demand + _SMOOTHING * (rate - holder.demand)
        holder.demand = max(wanted, rate, _LEAST)
        holder.heard = now

    def holds(self, stream: Hashable, share: float, now: float) -> None:
        """The stream has a share from before, which somebody's claim was moved here for."""
        holder = self.holders.setdefault(stream, Holder())
        holder.leases.append(_Lease(0, share, now + self._lasts))
        holder.share = share

    def applied(self, stream: Hashable, number: int) -> None:
        """All responses up to `number` are in force: what they replaced is not."""
        holder = self.holders.get(stream)
        if holder is not None:
            newest = max((lease.number for lease in holder.leases if lease.number <= number), default=None)
            if newest is not None:
                holder.leases = [lease for lease in holder.leases if lease.number >= newest]

    def left(self, stream: Hashable, *, in_order: bool, process: Hashable) -> None:
        """The stream of a process has ended.  `in_order`: it uses its shares no more."""
        holder = self.holders.pop(stream, None)
        if holder is not None and holder.leases and not in_order:
            self._gone.append((process, _Lease(0, holder.outstanding, max(lease.until for lease in holder.leases))))

    def returned(self, stream: Hashable, process: Hashable) -> None:
        """A process whose stream has ended has another one: what it may have in use is its own, not lost."""
        back = [lease for who, lease in self._gone if who == process]
        if back:
            self._gone = [(who, lease) for who, lease in self._gone if who != process]
            holder = self.holders.setdefault(stream, Holder())
            holder.leases += back
            holder.share = holder.outstanding

    def assign(self, now: float) -> dict[Hashable, float]:
        """Shares to tell now, of those whose share changes or is about to run out.  Call `told` for those that are."""
        self._expire(now)
        wants = {stream: holder.demand for stream, holder in self.holders.items() if now - holder.heard < SILENCE}
        targets = divide(min(self.aim, self.claim), wants)
        free = self.claim - self.outstanding
        rises = {
            stream: target - self.holders[stream].outstanding
            for stream, target in targets.items()
            if target > self.holders[stream].outstanding
        }
        grants = divide(free, rises) if free > 0 else {}
        result: dict[Hashable, float] = {}
        for stream, target in targets.items():
            holder = self.holders[stream]
            share = min(target, holder.outstanding + min(grants.get(stream, 0.0), rises.get(stream, 0.0)))
            due = now - holder.told >= TTL / 2
            if share > 0 and (due or abs(share - holder.share) > max(_HARDLY, holder.share * 0.02)):
                result[stream] = share
        return result

    def told(self, stream: Hashable, share: float, number: int, now: float) -> None:
        """The response `number` of the stream says so."""
        holder = self.holders[stream]
        holder.share, holder.told = share, now
        holder.leases.append(_Lease(number, share, now + self._lasts))

    @property
    def _lasts(self) -> float:
        return TTL + self._keep + MARGIN

    def _expire(self, now: float) -> None:
        self._gone = [(process, lease) for process, lease in self._gone if lease.until > now]
        for stream, holder in list(self.holders.items()):
            holder.leases = [lease for lease in holder.leases if lease.until > now]
            if now - holder.heard >= SILENCE and not holder.leases:
                del self.holders[stream]
