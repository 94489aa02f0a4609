"""Maglev (Eisenbud et al., 2016): a table of prime size that the hosts fill in turns, each in an order of its own.

Slot for slot Envoy's table.  Lookups cost the same for any number of hosts; where hosts come and go few slots change hands.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache

from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.placing import Placed

_MODULUS = 2**64


class Maglev:
    """A `Table`."""

    __slots__ = ("_hosts", "_size", "slots")

    def __init__(self, hosts: Sequence[Placed], size: int) -> None:
        """`size`: a prime.  At least one host."""
        ordered = sorted(hosts, key=lambda each: each.key)
        self._hosts = [each.host for each in ordered]
        self._size = size
        self.slots = _filled(tuple(each.key for each in ordered), tuple(each.weight for each in ordered), size)

    def pick(self, hashed: int, attempt: int = 0) -> Host:
        if attempt:
            hashed ^= _MODULUS - attempt
        return self._hosts[self.slots[hashed % self._size]]


# Filling takes tens of milliseconds: an endpoint that comes back, or a subset that is all of its service, costs it only once.
@lru_cache(maxsize=32)
def _filled(keys: Sequence[bytes], weights: Sequence[float], size: int) -> array[int]:
    """For each slot the index of its host."""
    from xxhash import xxh64_intdigest  # only for those who hash

    if len(keys) == 1:
        return array("I", bytes(4 * size))
    slots = [-1] * size
    place = [xxh64_intdigest(key) % size for key in keys]
    skips = [xxh64_intdigest(key, 1) % (size - 1) + 1 for key in keys]
    for index in _turns(weights, size):
        slot, skip = place[index], skips[index]
        while slots[slot] >= 0:
            slot = (slot + skip) % size
        slots[slot] = index
        place[index] = (slot + skip) % size
    return array("I", slots)


def _turns(weights: Sequence[float], size: int) -> list[int]:
    """Whose turn it is, slot by slot: the heaviest in every round, the others as often as their weights say."""
    if len(set(weights)) == 1:
        count = len(weights)
        rounds = list(range(count)) * (size // count + 1)
        return rounds[:size]
    heaviest = max(weights)
    targets = [0.0] * len(weights)
    turns: list[int] = []
    number = 0
    while len(turns) < size:
        number += 1
        for index, weight in enumerate(weights):
            if number * weight >= targets[index]:
                targets[index] += heaviest
                turns.append(index)
    return turns[:size]
