"""What a process enforces on one of its ports: an `InboundListener`, compiled to the steps of the server's flow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from meshlib.flow.admission import Admission
from meshlib.flow.limiting import Limiting, compile_step
from meshlib.flow.shedding import Shedding
from meshlib.model.authentication import JwtAuthentication
from meshlib.model.authorization import ExternalAuthorization, RbacFilter
from meshlib.model.cors import Cors
from meshlib.model.inbound import Inspection, Refusal
from meshlib.model.inbound_limits import InboundLimits
from meshlib.model.listener import HttpFilter, InboundListener, MtlsMode, PathNormalization
from meshlib.model.rate_limit import RateLimits
from meshlib.model.resilience import ServerResilience
from meshlib.policy.authorization import compile_rbac
from meshlib.policy.authorization_metadata import compile_metadata
from meshlib.policy.cors import compile_cors
from meshlib.policy.external_authorization import Dialogue, compile_dialogue
from meshlib.policy.jwt import compile_jwt
from meshlib.policy.jwt_keys import KeySource

Step = Callable[[Inspection], "Refusal | None"]
"""A filter that decides by itself: it looks, it may note things in the inspection, and refuses or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """An external authorizer that is to be asked about the requests that `applies` to, and how it is spoken to."""

    filter: ExternalAuthorization
    applies: Callable[[Inspection], bool]
    dialogue: Dialogue


@dataclass(frozen=True, slots=True, eq=False)
class InboundPlan:
    """`steps` in the order of the listener's filters; what has to ask somebody else is left as it is."""

    mtls: MtlsMode = MtlsMode.PERMISSIVE
    normalization: PathNormalization = PathNormalization.BASE
    steps: tuple[Step | Question, ...] = ()
    minimum_version: str = ""  # of TLS, for new connections: "TLSv1_2", "TLSv1_3"; empty: the runtime's default
    trusted_hops: int = 0
    admission: Admission | None = None  # None: as much as comes
    shedding: Shedding | None = None


NO_POLICY = InboundPlan()
"""Of a process without a control service (`meshlib.testing`) or in a mesh without identities."""


def compile_listener(
    listener: InboundListener,
    *,
    now: Callable[[], float],
    keys: KeySource | None = None,
    limiting: Limiting | None = None,
    admission: Callable[[int, InboundLimits], Admission] | None = None,
    shedding: Callable[[int, ServerResilience], Shedding] | None = None,
) -> InboundPlan:
    """`now`: Unix seconds, for the times in tokens; `keys`: of providers whose keys are fetched; `limiting`: of rate limits;
    `admission`: who keeps the limits of a port, `shedding`: who refuses what is too much; None: nobody, and there are none.

    Raises ValueError for a regular expression that is none; decoding has refused those before.
    """
    steps = tuple(compile_filter(item, listener.port, now=now, keys=keys, limiting=limiting) for item in listener.filters)
    limited = admission(listener.port, listener.limits) if admission is not None and listener.limits is not None else None
    shed = shedding(listener.port, listener.resilience) if shedding is not None and listener.resilience is not None else None
    return InboundPlan(
        listener.mtls, listener.normalization, steps, listener.minimum_version, listener.trusted_hops, limited, shed
    )


def compile_filter(
    item: HttpFilter,
    port: int,
    *,
    now: Callable[[], float],
    keys: KeySource | None = None,
    limiting: Limiting | None = None,
) -> Step | Question:
    """One filter of a listener on `port`."""
    if isinstance(item, RbacFilter):
        return compile_rbac(item, port=port)
    if isinstance(item, JwtAuthentication):
        return compile_jwt(item, keys, now=now)
    if isinstance(item, RateLimits):
        return compile_step(item, limiting or Limiting(nullcontext(), now))
    if isinstance(item, Cors):
        return compile_cors(item)
    condition = item.condition
    applies = _always if condition is None else compile_metadata(condition, restricts=True)
    return Question(item, applies, compile_dialogue(item))


def _always(inspection: Inspection) -> bool:
    return True
