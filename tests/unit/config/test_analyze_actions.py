"""Findings about what rules do, and about rules that lead to other VirtualServices."""

from __future__ import annotations

import pytest

from meshlib_control.config import Severity, analyze
from tests.unit.config.support import loaded, virtual_service

ROUTE = "route: [{destination: {host: reviews}}]"
CLEAN = {"MSH0201"}
"""Whether the catalog has a host is looked at elsewhere."""

OUTSIDE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec: {hosts: [outside.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: NONE}
"""
CALLS = OUTSIDE.replace("outside", "calls").replace("HTTP}", "GRPC}").replace("NONE", "DNS")


def delegate(name: str, http: str, *, namespace: str = "default", more: str = "") -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{http: {http}{more}}}\n"
    )


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (f"{{{ROUTE}, fault: {{abort: {{httpStatus: 503}}, delay: {{fixedDelay: 1s}}}}}}",
         [("MSH0364", "fault.abort"), ("MSH0364", "fault.delay")]),
        (f"{{{ROUTE}, fault: {{abort: {{httpStatus: 503, percentage: {{value: 0}}}}}}}}", []),
        (f"{{{ROUTE}, fault: {{delay: {{fixedDelay: 1s, percent: 5}}}}}}", []),
        ("{route: [{destination: {host: outside.test}}], rewrite: {uri: /x}}", [("MSH0366", "route[0].destination.host")]),
        ("{route: [{destination: {host: outside.test}, headers: {request: {set: {a: b}}}}]}",
         [("MSH0366", "route[0].destination.host")]),
        ("{route: [{destination: {host: outside.test}}], timeout: 1s}", []),
        (f"{{{ROUTE}, mirrors: [{{destination: {{host: reviews}}}}, {{destination: {{host: outside.test}}}}]}}",
         [("MSH0366", "mirrors[1].destination.host")]),
        ("{route: [{destination: {host: calls.test}}], mirror: {host: reviews}}", [("MSH0367", "route[0].destination.host")]),
        (f"{{{ROUTE}, retries: {{attempts: 1, retryOn: '5xx,retriable-headers'}}}}", [("MSH0365", "retries.retryOn")]),
        (f"{{match: [{{scheme: {{exact: https}}}}, {{scheme: {{prefix: http}}}}], {ROUTE}}}", [("MSH0328", "match[0].scheme")]),
        (f"{{{ROUTE}, corsPolicy: {{allowOrigins: [{{exact: a}}, {{regex: 'https://.*'}}], allowCredentials: true}}}}",
         [("MSH0368", "corsPolicy.allowOrigins[1]")]),
        (f"{{{ROUTE}, corsPolicy: {{allowOrigin: ['*'], allowCredentials: true}}}}",
         [("MSH0368", "corsPolicy.allowOrigin[0]")]),
        (f"{{{ROUTE}, corsPolicy: {{allowOrigins: [{{exact: '*'}}]}}}}", []),
        (f"{{{ROUTE}, corsPolicy: {{allowMethods: [GET]}}}}", [("MSH0369", "corsPolicy")]),
    ],
)  # fmt: skip
def test_actions_that_come_to_something_else(rule: str, expected: list[tuple[str, str]]) -> None:
    found = analyze(loaded(virtual_service(f"  - {rule}\n"), OUTSIDE, CALLS))
    codes = [(one.code, one.field.removeprefix("spec.http[0].")) for one in found if one.code not in CLEAN]
    assert sorted(codes) == expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (delegate("d", f"[{{match: [{{uri: {{prefix: /a/b}}}}], {ROUTE}}}]"), []),
        (delegate("e", f"[{{{ROUTE}}}]"), [("MSH0361", "spec.http[0].delegate.name"), ("MSH0363", "spec")]),
        (delegate("d", f"[{{{ROUTE}}}]", namespace="other"), [("MSH0361", "spec.http[0].delegate.name"), ("MSH0363", "spec")]),
        (delegate("d", f"[{{{ROUTE}}}]", more=", exportTo: [other]"), [("MSH0206", "spec.http[0].delegate.name")]),
        (delegate("d", f"[{{{ROUTE}}}]", more=", hosts: [b]"), [("MSH0361", "spec.http[0].delegate.name")]),
        (
            delegate("d", f"[{{match: [{{uri: {{prefix: /b}}}}], {ROUTE}}}, {{{ROUTE}}}]"),
            [("MSH0362", "spec.http[0].delegate")],
        ),
    ],
)
def test_delegates_that_are_not_used(other: str, expected: list[tuple[str, str]]) -> None:
    root = virtual_service("  - {match: [{uri: {prefix: /a}}], delegate: {name: d}}\n")
    found = [one for one in analyze(loaded(root, other)) if one.code not in CLEAN]
    assert sorted((one.code, one.field) for one in found) == expected
    assert all(one.severity is not Severity.ERROR for one in found)


def test_a_mirror_that_does_not_exist_is_an_unknown_host() -> None:
    found = analyze(loaded(virtual_service(f"  - {{{ROUTE}, mirror: {{host: nowhere}}}}\n")), services=[])
    assert ("MSH0201", "spec.http[0].mirror.host") in [(one.code, one.field) for one in found]
