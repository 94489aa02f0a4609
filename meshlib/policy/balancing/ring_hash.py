"""Ring hash (ketama): each host has places on a ring in proportion to its weight; a hash leads to the next place.

Place for place Envoy's ring: the same hash function, the same keys, the same running sums.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil

from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.placing import Placed


class Ring:
    """A `Table`."""

    __slots__ = ("_hosts", "hashes")

    def __init__(self, hosts: Sequence[Placed], minimum_size: int, maximum_size: int) -> None:
        """At least one host."""
        places = sorted(_places(hosts, minimum_size, maximum_size), key=lambda place: place[0])
        self.hashes = [place[0] for place in places]
        self._hosts = [place[1] for place in places]

    def pick(self, hashed: int, attempt: int = 0) -> Host:
        return self._hosts[(bisect_left(self.hashes, hashed) + attempt) % len(self._hosts)]


def _places(hosts: Sequence[Placed], minimum_size: int, maximum_size: int) -> list[tuple[int, Host]]:
    from xxhash import xxh64_intdigest  # only for those who hash

    lightest = min(each.weight for each in hosts)
    scale = min(ceil(lightest * minimum_size) / lightest, float(maximum_size))
    places: list[tuple[int, Host]] = []
    current = target = 0.0
    for key, weight, host in hosts:
        target += scale * weight
        number = 0
        while current < target:  # the sums run over all hosts, so that fractions of a place are not lost
            places.append((xxh64_intdigest(b"%b_%d" % (key, number)), host))
            number += 1
            current += 1.0
    return places
