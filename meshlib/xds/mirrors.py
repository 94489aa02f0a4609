"""``RouteAction.request_mirror_policies`` → model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshlib.model.route import Mirror
from meshlib.xds.fields import allow_only
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_fraction
from meshlib.xds.proto import route_pb2

MAX_MIRRORS: Final = 16
"""Of one route: every request is sent so many times more."""

_FIELDS = frozenset(
    {
        "cluster",
        "runtime_fraction",
        "disable_shadow_host_suffix_append",
        # Not acted on: whether the copy's trace is sampled is what its traceparent header says.
        "trace_sampled",
    }
)


def decode_mirrors(
    policies: Iterable[route_pb2.RouteAction.RequestMirrorPolicy], problems: Problems, *, field: str
) -> tuple[Mirror, ...]:
    """Those that copy anything at all."""
    found = [_mirror(policy, problems, field=f"{field}[{index}]") for index, policy in enumerate(policies)]
    if len(found) > MAX_MIRRORS:
        problems.describe(field, f"{len(found)} policies", f"at most {MAX_MIRRORS}")
    return tuple(mirror for mirror in found if mirror.fraction > 0.0)


def _mirror(policy: route_pb2.RouteAction.RequestMirrorPolicy, problems: Problems, *, field: str) -> Mirror:
    allow_only(policy, _FIELDS, field=field, problems=problems)
    if not policy.cluster:
        problems.add(f"{field}.cluster", "", "a cluster name")
    fraction = 1.0
    if policy.HasField("runtime_fraction"):
        where = f"{field}.runtime_fraction.default_value"
        fraction = decode_fraction(policy.runtime_fraction.default_value, problems, field=where)
    return Mirror(policy.cluster, fraction, policy.disable_shadow_host_suffix_append)
