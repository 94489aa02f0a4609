"""Which endpoint a call goes to, as Envoy decides it; one mechanism a file.

    priority and panic (loads, priorities) → locality (locality, zone_aware) → host (within, slow_start)

Policies that hash go another way: priority (loads) → table (ring_hash, maglev) → bound (bounded_load).
"""

from __future__ import annotations

from meshlib.policy.balancing.ahead import fill_tables
from meshlib.policy.balancing.balancer import Balancer, PickContext
from meshlib.policy.balancing.build import HASHING, UNPLACED, Balanced, balance
from meshlib.policy.balancing.host import Host
from meshlib.policy.balancing.priorities import Priorities
from meshlib.policy.balancing.zone_aware import Place

__all__ = [
    "HASHING",
    "UNPLACED",
    "Balanced",
    "Balancer",
    "Host",
    "PickContext",
    "Place",
    "Priorities",
    "balance",
    "fill_tables",
]
