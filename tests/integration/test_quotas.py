"""Limits that hold for several processes together: real processes, a real control service, real replicas over Consul."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.consul import ConsulAgent
from tests.support.control import Control, eventually
from tests.support.limited import Caller, answering, entry

pytestmark = pytest.mark.timeout(240)

POLICY = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: shop, namespace: default}
spec:
  host: shop
  limits:
  - name: deny
    match: [{uri: {prefix: /deny}}]
    tokens: 60
    burst: 30
    scope: GLOBAL
    fallback: {after: 2s, action: DENY}
  - name: allow
    match: [{uri: {prefix: /allow}}]
    tokens: 60
    burst: 30
    scope: GLOBAL
    fallback: {after: 2s, action: ALLOW}
  - {name: month, match: [{uri: {prefix: /month}}], quota: {requests: 300, period: MONTH}, fallback: {after: 60s, action: DENY}}
"""
PASSED = 60
"""Requests a second, of all processes together, of the first two limits."""

BURST = 30
"""What a stalled process may catch up with."""


def most(seconds: int) -> float:
    """What may pass in so many lines of several processes, which do not begin at the same moment."""
    return PASSED * seconds * 1.05 + BURST


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with answering() as port, Control(tmp_path) as control:
        control.apply(entry(port) + POLICY)
        yield control


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, control: Control, number: int, rate: int, *paths: str) -> list[Caller]:
    callers = []
    for _ in range(number):
        callers.append(caller := Caller(control.xds, rate, *paths))
        stack.callback(caller.close)
    return callers


def passed(callers: list[Caller], seconds: int) -> list[int]:
    """Of all callers, by path."""
    lines = [caller.second() for _ in range(seconds) for caller in callers]
    return [sum(column) for column in zip(*lines, strict=True)]


def settled(callers: list[Caller], what: str) -> None:
    """Wait until each has a share and all together have the whole."""

    def fair() -> bool:
        lines = [caller.second()[0] for caller in callers]
        return min(lines) > 0 and 0.85 * PASSED <= sum(lines) <= 1.15 * PASSED

    eventually(fair, what=what)


def held(callers: list[Caller], seconds: int, *, least: float) -> None:
    """Never more than the limit, and not much less."""
    (count,) = passed(callers, seconds)
    assert least * PASSED * seconds <= count <= most(seconds)


def test_two_processes_share_one_limit_and_keep_it_without_the_control_service(stack: ExitStack, control: Control) -> None:
    callers = started(stack, control, 2, 60, "/deny", "/allow")
    settled(callers, "each one's share")
    limits = {(item["policy"], item["limit"]): item["processes"] for item in control.get("/v1/status")["shared_limits"]}
    assert limits == {("default/shop", "deny"): 2, ("default/shop", "allow"): 2}
    control.kill()
    for count in passed(callers, 2):
        assert 0.8 * PASSED * 2 <= count <= most(2)


@pytest.mark.soak  # tests/unit/policy/test_quota.py has the same with a clock of its own
def test_without_the_control_service_nothing_passes_at_last_or_everything(stack: ExitStack, control: Control) -> None:
    callers = started(stack, control, 3, 50, "/deny", "/allow")
    settled(callers, "each one's share")
    control.kill()
    eventually(lambda: passed(callers, 1)[0] == 0, what="shares to run out")
    eventually(lambda: passed(callers, 1)[1] > 1.5 * PASSED, what="everything to pass where that is chosen")


@pytest.mark.soak
def test_three_processes_stay_within_five_percent(stack: ExitStack, control: Control) -> None:
    callers = started(stack, control, 3, 100, "/deny")
    settled(callers, "each one's share")
    held(callers, 10, least=0.95)


@pytest.mark.soak
def test_shares_follow_demand(stack: ExitStack, control: Control) -> None:
    """Two that want little leave the rest to the one that wants much."""
    calm = started(stack, control, 2, 5, "/deny")
    busy = started(stack, control, 1, 100, "/deny")
    eventually(lambda: passed(busy, 1)[0] >= 43, what="the busy one to have what the others leave")
    assert 6 <= passed(calm, 1)[0] <= 14


@pytest.mark.soak
def test_a_restart_of_the_control_service_changes_nothing(stack: ExitStack, control: Control) -> None:
    callers = started(stack, control, 2, 60, "/deny")
    settled(callers, "each one's share")
    control.stop()
    control.start()
    for caller in callers:
        caller.skip()
    held(callers, 6, least=0.8)


@pytest.mark.soak  # `test_quota_replicas` shows the same in one process
@pytest.mark.consul
def test_two_replicas_never_give_more_than_the_whole(tmp_path: Path, stack: ExitStack, consul_agent: ConsulAgent) -> None:
    port = stack.enter_context(answering())
    replicas = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        replicas.append(stack.enter_context(Control(tmp_path / name, "--store", consul_agent.url("quotas"))))
    replicas[0].apply(entry(port) + POLICY)
    callers = started(stack, replicas[0], 2, 60, "/deny")
    time.sleep(2)  # the first replica has claimed all by then
    callers += started(stack, replicas[1], 1, 60, "/deny")
    settled(callers, "each one's share, from two replicas")
    held(callers, 4, least=0.8)


@pytest.mark.soak  # likewise
def test_a_quota_of_a_month_survives_restarts_of_everybody(stack: ExitStack, control: Control) -> None:
    first = started(stack, control, 1, 60, "/month")
    eventually(lambda: sum(caller.second()[0] for caller in first) > 0, what="the first grants")
    used = sum(caller.close()[0] for caller in first)
    assert 0 < used < 300
    control.stop()
    control.start()
    second = started(stack, control, 1, 100, "/month")
    eventually(lambda: passed(second, 2)[0] == 0, what="the quota to be used up")
    used += sum(caller.close()[0] for caller in second)
    assert 280 <= used <= 300 + 4  # one request of each process before its first grant
