"""What a process enforces on one of its ports: an `InboundListener`, compiled to the steps of the server's flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshlib.model.authorization import ExternalAuthorization
from meshlib.model.inbound import Inspection, Refusal
from meshlib.model.listener import MtlsMode, PathNormalization

Step = Callable[[Inspection], "Refusal | None"]
"""A filter that decides by itself: it looks, it may note things in the inspection, and refuses or not."""


@dataclass(frozen=True, slots=True, eq=False)
class InboundPlan:
    """`steps` in the order of the listener's filters; what has to ask somebody else is left as it is."""

    mtls: MtlsMode = MtlsMode.PERMISSIVE
    normalization: PathNormalization = PathNormalization.BASE
    steps: tuple[Step | ExternalAuthorization, ...] = ()
    minimum_version: str = ""  # of TLS, for new connections: "TLSv1_2", "TLSv1_3"; empty: the runtime's default


NO_POLICY = InboundPlan()
"""Of a process without a control service (`meshlib.testing`) or in a mesh without identities."""
