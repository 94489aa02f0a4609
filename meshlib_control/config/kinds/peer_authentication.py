"""PeerAuthentication: whether a workload is called over mTLS only."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from meshlib_control.config.kinds.common import Element
from meshlib_control.config.kinds.destination_rule import WorkloadSelector


class MutualTLS(Element, frozen=True):
    """mTLS on connections that a workload accepts."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"
    """`STRICT`: mTLS only; `PERMISSIVE`: plaintext too, on the same port; `DISABLE`: plaintext only; `UNSET`: as the
    namespace, then the mesh, has it, and `PERMISSIVE` if nobody says anything."""


class PeerAuthentication(Element, frozen=True):
    """Whether workloads are called over mTLS only.

    Without selector it holds for its namespace, in the root namespace for the mesh. The narrowest one with a mode holds;
    of several alike, the oldest.
    """

    selector: WorkloadSelector | None = None
    """The workloads of the namespace that it is for; all of them unless given."""
    mtls: MutualTLS | None = None
    """mTLS on all ports."""
    port_level_mtls: Annotated[dict[str, MutualTLS], Meta(max_length=1024)] | None = None
    """mTLS on single ports, by the number that the workload listens on. Needs a selector."""
