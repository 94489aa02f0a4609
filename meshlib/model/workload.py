"""Who this process is in the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshlib.model.endpoint import Locality


@dataclass(frozen=True, slots=True)
class Workload:
    """One process.  `service` may be empty: a process that only calls.

    So may namespace and service account: its certificate says them, and without one they are "default".
    """

    service: str = ""
    namespace: str = ""
    service_account: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: Locality = Locality()
    instance: str = ""  # unique per process, e.g. "reviews-7f3a"; the xDS node id
    group: str = ""  # the WorkloadGroup that it joins; empty: none
