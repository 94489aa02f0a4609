"""Istio's tasks: each is executed, or refused by name with what to do instead."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from meshlib.xds.decode import decode
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import Flavour, Node, compile_document, generate, scope_of
from meshlib_control.config import Severity, load
from tests.support.configuring import registered, world
from tests.support.tasks import TASKS, Task

HTTPBIN = registered(
    "httpbin", Instance("httpbin-1", "127.0.0.1", 8000, labels={"version": "v1"}), ports=(Port(80, "http"), Port(81, "http"))
)
CALLER = Node(service="httpbin", labels={"app": "sleep"}, locality="region1/zone1/a")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_verdict(task: Task) -> None:
    resources, findings = load([(task.name, task.text)])
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    assert tuple((finding.code, finding.field) for finding in errors) == task.refused
    assert bool(resources) is not bool(errors)
    assert all("refused rather than ignored" in finding.message for finding in errors)


@pytest.mark.parametrize("task", [task for task in TASKS if not task.refused], ids=lambda task: task.name)
def test_compiled_for_every_kind_of_client(task: Task) -> None:
    built = world(task.text, services=[HTTPBIN])
    for flavour in get_args(Flavour):
        assert compile_document(built, replace(CALLER, flavour=flavour))
    scope = scope_of(built, CALLER)
    for type_url in (LISTENER, ROUTE, CLUSTER, ENDPOINTS):
        for name, message in generate(built, scope, type_url).items():
            assert decode(type_url, message.SerializeToString())[0] == name
