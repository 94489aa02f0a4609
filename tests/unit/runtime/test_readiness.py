"""When a process takes itself for ready."""

from __future__ import annotations

import pytest

from meshlib.model.cluster import HealthCheck, TcpHealthCheck
from meshlib.runtime.readiness import Streak, readiness_check
from meshlib.xds.proto import registry_pb2


@pytest.mark.parametrize(
    ("results", "changes"),
    [
        ("+", ""),
        ("++", " R"),
        ("+-++", "   R"),
        ("-----", "     "),
        ("++--", " R  "),
        ("++---", " R  U"),
        ("++--+---", " R     U"),
        ("++---++", " R  U R"),
    ],
)
def test_two_successes_make_it_ready_and_three_failures_unready(results: str, changes: str) -> None:
    """In the beginning it is not: nobody calls what was never seen to work."""
    streak = Streak(HealthCheck(TcpHealthCheck(), timeout=1, interval=1, unhealthy_threshold=3, healthy_threshold=2))
    for result, change in zip(results, changes, strict=False):
        changed = streak.take(passed=result == "+")
        assert (("R" if streak.ready else "U") if changed else " ") == change


def test_a_probe_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="readiness probe"):
        readiness_check(registry_pb2.Probe())
