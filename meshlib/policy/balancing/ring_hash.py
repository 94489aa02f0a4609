"""Ring hash (ketama): each host has places on a ring in proportion to its weight; a hash leads to the next place.

Place for place Envoy's ring: the same hash function, the same keys, the same running sums.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from math import ceil

from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.placing import Placed


class Ring:
    """A `Table`."""

    __slots__ = ("_hosts", "hashes")

    def __init__(self, hosts: Sequence[Placed], minimum_size: int, maximum_size: int) -> None:
        """At least one host."""
        keys, weights = tuple(each.key for each in hosts), tuple(each.weight for each in hosts)
        self.hashes, order = _placed(keys, weights, minimum_size, maximum_size)
        self._hosts = [hosts[index].host for index in order]

    def pick(self, hashed: int, attempt: int = 0) -> Host:
        return self._hosts[(bisect_left(self.hashes, hashed) + attempt) % len(self._hosts)]


# A millisecond for each thousand of places, and an operator may want a hundred thousand: not for what was known before.
@lru_cache(maxsize=8)
def _placed(
    keys: Sequence[bytes], weights: Sequence[float], minimum_size: int, maximum_size: int
) -> tuple[list[int], array[int]]:
    """The places in order, and for each of them the index of its host."""
    from xxhash import xxh64_intdigest  # only for those who hash

    lightest = min(weights)
    scale = min(ceil(lightest * minimum_size) / lightest, float(maximum_size))
    places: list[tuple[int, int]] = []
    current = target = 0.0
    for index, (key, weight) in enumerate(zip(keys, weights, strict=True)):
        target += scale * weight
        number = 0
        while current < target:  # the sums run over all hosts, so that fractions of a place are not lost
            places.append((xxh64_intdigest(b"%b_%d" % (key, number)), index))
            number += 1
            current += 1.0
    places.sort()
    return [place[0] for place in places], array("I", [place[1] for place in places])
