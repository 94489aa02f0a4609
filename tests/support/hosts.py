"""Hosts for tests of balancing: those of the reference vectors, and any others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from meshlib.model.endpoint import Endpoint, Health
from meshlib.policy.balancing import Host
from meshlib.policy.balancing.levels import NOWHERE, Level, Source
from meshlib.policy.balancing.placing import Placed, placed

WEIGHTS = (1, 2, 3, 5, 7)


def letters(weights: Sequence[int] = (1, 1, 1, 1, 1)) -> list[Host]:
    """A to E: 127.0.0.1:21001 to 21005."""
    return made(weights)


def made(weights: Sequence[int], *, first: int = 21001, **fields: Any) -> list[Host]:
    return [Host(Endpoint("127.0.0.1", first + index, weight=weight, **fields)) for index, weight in enumerate(weights)]


def level(priority: int, *, healthy: int = 0, degraded: int = 0, hosts: int = 0, **fields: Any) -> list[Host]:
    """A priority with so many `hosts`, some of them healthy or degraded."""
    health = [Health.HEALTHY] * healthy + [Health.DEGRADED] * degraded
    health += [Health.UNHEALTHY] * (hosts - len(health))
    return [
        Host(Endpoint(f"10.{priority}.{index // 250}.{index % 250}", 80, priority=priority, health=each, **fields))
        for index, each in enumerate(health)
    ]


def letter(host: Host) -> str:
    return "ABCDE"[host.endpoint.port - 21001]


def entries(hosts: Sequence[Host], **fields: Any) -> list[Placed]:
    return placed(Level(hosts), Source.HEALTHY, NOWHERE, **{"by_locality": False, "by_hostname": False, **fields})


def as_hash() -> Callable[[str], int]:
    """XXH64 of a text."""
    from xxhash import xxh64_intdigest

    return lambda text: xxh64_intdigest(text.encode())
