"""What a hash table places: hosts by a key, with their share of it.  Common to ring hash and maglev."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from meshlib.model.endpoint import Locality
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.levels import Level, Source


class Placed(NamedTuple):
    """`weight`: the host's share of the table, 0..1."""

    key: bytes
    weight: float
    host: Host


class Table(Protocol):
    """Where each hash leads to."""

    def pick(self, hashed: int, attempt: int = 0) -> Host:
        """`attempt`: how many hosts have been refused for this hash; each leads elsewhere."""
        ...


def key_of(host: Host, *, by_hostname: bool) -> bytes:
    """By what it is placed: its own `hash_key`, its host name if that is asked for, else its address and port."""
    endpoint = host.endpoint
    return (endpoint.hash_key or (endpoint.hostname if by_hostname else "") or endpoint.key).encode("utf-8")


def placed(level: Level, source: Source, own: Locality, *, by_locality: bool, by_hostname: bool) -> list[Placed]:
    """The hosts of a table in the order in which they are placed.

    `by_locality`: shares are those of localities first; they are as configured, whatever part of one is available.
    """
    localities = [each for each in level.localities(own) if each.weight] if by_locality else []
    if not localities:
        return _shared(level.of(source), 1.0, by_hostname=by_hostname)
    total = sum(locality.weight for locality in localities)
    return [
        each
        for locality in localities
        for each in _shared(locality.of(source), locality.weight / total, by_hostname=by_hostname)
    ]


def _shared(hosts: Sequence[Host], share: float, *, by_hostname: bool) -> list[Placed]:
    total = sum(host.weight for host in hosts)
    return [Placed(key_of(host, by_hostname=by_hostname), host.weight * share / total, host) for host in hosts]
