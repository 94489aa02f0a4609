"""Consistent hashing with bounded loads (Mirrokni et al., 2016; Envoy ``hash_balance_factor``).

A host takes at most so many percent of its fair share of what is in flight; what is beyond goes to others, which are looked at
in an order that depends on the hash alone, so that a hot key overflows to the same hosts every time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.placing import Placed, Table

_WORD = 2**32


class BoundedLoad:
    """A `Table` around another one."""

    __slots__ = ("_factor", "_hosts", "_in_use", "_table", "_weights")

    def __init__(self, table: Table, hosts: Sequence[Placed], factor: int, in_use: Sequence[Host]) -> None:
        """`hosts`: those in the table; `factor`: percent, 100 or more; `in_use`: all hosts of the cluster."""
        self._table = table
        self._factor = factor
        self._in_use = tuple(in_use)
        self._hosts = tuple(each.host for each in hosts)
        self._weights = {each.host: each.weight for each in hosts}

    def pick(self, hashed: int, attempt: int = 0) -> Host:
        first = self._table.pick(hashed, attempt)
        active = sum([host.active for host in self._in_use])
        least = self._load(first, active)
        if least <= 1.0:
            return first
        chosen = first
        for host in shuffled(self._hosts, hashed):
            if host is first:
                continue
            load = self._load(host, active)
            if load <= 1.0:
                return host
            if load < least:
                chosen, least = host, load
        return chosen

    def _load(self, host: Host, active: int) -> float:
        return host.active / slots_of(active, self._factor, self._weights[host])


def slots_of(active: int, factor: int, weight: float) -> int:
    """How many requests a host may have, with `active` in the whole cluster; Envoy divides by 100 before it weighs."""
    return max(ceil(((active + 1) * factor + 99) // 100 * weight), 1)


def shuffled(hosts: Sequence[Host], seed: int) -> Sequence[Host]:
    """In the order of Envoy's shuffle: Fisher-Yates over a Mersenne twister; `seed` is the hash of the call."""
    order = list(hosts)
    draw = _mersenne_twister(seed % _WORD)
    for index in range(len(order) - 1):
        other = index + _uniform(draw, len(order) - index)
        order[index], order[other] = order[other], order[index]
    return order


def _uniform(draw: Callable[[], int], stop: int) -> int:
    width = _WORD // stop
    number = draw() // width
    while number >= stop:
        number = draw() // width
    return number


def _mersenne_twister(seed: int) -> Callable[[], int]:
    """MT19937 as C++ seeds it (``init_genrand``): Python's own takes a seed in another way."""
    state = [seed]
    for index in range(1, 624):
        before = state[-1]
        state.append((1812433253 * (before ^ before >> 30) + index) % _WORD)
    position = 0

    def draw() -> int:
        nonlocal position
        index = position % 624
        mixed = (state[index] & 0x80000000) | (state[(index + 1) % 624] & 0x7FFFFFFF)
        word = state[(index + 397) % 624] ^ mixed >> 1 ^ (0x9908B0DF if mixed & 1 else 0)
        state[index] = word
        position += 1
        word ^= word >> 11
        word ^= word << 7 & 0x9D2C5680
        word ^= word << 15 & 0xEFC60000
        return (word ^ word >> 18) % _WORD

    return draw
