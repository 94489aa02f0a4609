"""Two VirtualServices made one, by Istio's rules."""

from __future__ import annotations

import pytest
import yaml

from meshlib_control.config.delegation import expanded, in_conflict, merged_conditions, merged_route
from meshlib_control.config.kinds import HTTPMatchRequest, HTTPRoute, VirtualService
from meshlib_control.config.model import ConfigResource, Key
from meshlib_control.config.schema import Reading, read

ROUTE = "route: [{destination: {host: reviews}}]"


def rule(text: str) -> HTTPRoute:
    return read(HTTPRoute, yaml.safe_load(text), Reading())


def condition(text: str) -> HTTPMatchRequest:
    return read(HTTPMatchRequest, yaml.safe_load(text), Reading())


@pytest.mark.parametrize(
    ("root", "leaf", "conflict"),
    [
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a}}", False),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", False),
        ("{uri: {prefix: /a}}", "{uri: {exact: /a/b}}", False),
        ("{uri: {prefix: /a/b}}", "{uri: {prefix: /a}}", True),
        ("{uri: {prefix: /a/b}}", "{uri: {exact: /a}}", True),
        ("{uri: {exact: /a}}", "{uri: {exact: /a}}", False),
        ("{uri: {exact: /a}}", "{uri: {exact: /b}}", True),
        ("{uri: {exact: /a}}", "{uri: {prefix: /a}}", True),
        ("{uri: {regex: /a.*}}", "{uri: {regex: /a.*}}", True),  # expressions are not compared
        ("{uri: {regex: /a.*}}", "{uri: {exact: /a}}", True),
        ("{uri: {prefix: /a}}", "{uri: {regex: /a.*}}", True),
        ("{uri: {regex: /a.*}}", "{method: {exact: GET}}", False),
        ("{}", "{uri: {regex: /a.*}}", False),
        ("{method: {exact: GET}}", "{method: {exact: POST}}", True),
        ("{scheme: {exact: http}}", "{scheme: {exact: http}}", False),
        ("{authority: {prefix: a.}}", "{authority: {exact: b.test}}", True),
        ("{headers: {x: {exact: a}}}", "{headers: {x: {exact: a}, y: {exact: b}}}", False),
        ("{headers: {x: {exact: a}}}", "{headers: {x: {exact: b}}}", True),
        ("{headers: {x: {exact: a}}}", "{headers: {y: {exact: b}}}", False),
        ("{headers: {x: {}}}", "{headers: {x: {exact: b}}}", True),  # nor is presence
        ("{withoutHeaders: {x: {prefix: a}}}", "{withoutHeaders: {x: {prefix: ab}}}", False),
        ("{withoutHeaders: {x: {prefix: ab}}}", "{withoutHeaders: {x: {prefix: a}}}", True),
        ("{queryParams: {q: {exact: a}}}", "{queryParams: {q: {exact: b}}}", True),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", "{uri: {prefix: /a}}", True),
        ("{port: 80}", "{port: 81}", True),
        ("{port: 80}", "{}", False),
        ("{}", "{port: 81}", False),
        ("{sourceLabels: {app: a}}", "{sourceLabels: {app: b}}", True),
        ("{sourceLabels: {app: a}}", "{sourceLabels: {version: b}}", False),
        ("{sourceNamespace: a}", "{sourceNamespace: b}", True),
        ("{sourceNamespace: a}", "{}", False),
        ("{gateways: [mesh, a]}", "{gateways: [mesh]}", False),
        ("{gateways: [mesh]}", "{gateways: [mesh, a]}", True),
        ("{}", "{gateways: [mesh]}", False),
    ],
)
def test_a_delegates_condition_must_be_within_the_roots(root: str, leaf: str, conflict: bool) -> None:
    assert in_conflict(condition(root), condition(leaf)) is conflict


def test_every_pair_that_fits_is_a_condition_and_one_that_fits_nowhere_takes_the_rule_with_it() -> None:
    root = (condition("{name: v, uri: {prefix: /a}}"), condition("{uri: {prefix: /b}, headers: {x: {exact: '1'}}}"))
    leaves = (condition("{name: w, method: {exact: GET}}"), condition("{uri: {prefix: /b/c}, headers: {y: {exact: '2'}}}"))
    merged = merged_conditions(root, leaves)
    assert merged == (
        condition("{name: v-w, uri: {prefix: /a}, method: {exact: GET}}"),
        condition("{name: w, uri: {prefix: /b}, headers: {x: {exact: '1'}}, method: {exact: GET}}"),
        condition("{uri: {prefix: /b/c}, headers: {x: {exact: '1'}, y: {exact: '2'}}}"),
    )
    assert merged_conditions(root, (*leaves, condition("{uri: {prefix: /c}}"))) is None
    assert merged_conditions((), leaves) == leaves
    assert merged_conditions(root, ()) == root


def test_what_a_delegate_does_not_say_the_root_says() -> None:
    said = "timeout: 1s, retries: {attempts: 1}, headers: {request: {set: {x: root}}}, corsPolicy: {allowOrigin: [a]}"
    root = rule(f"{{name: root, delegate: {{name: d}}, {said}, mirror: {{host: m}}, mirrorPercentage: {{value: 5}}}}")
    plain = merged_route(root, rule(f"{{{ROUTE}}}"))
    assert plain is not None
    assert plain.delegate is None
    assert (plain.name, plain.timeout, plain.retries, plain.headers) == ("root", 1.0, root.retries, root.headers)
    assert (plain.cors_policy, plain.mirror, plain.mirror_percentage) == (root.cors_policy, root.mirror, root.mirror_percentage)
    own = rule(f"{{name: own, {ROUTE}, timeout: 2s, headers: {{}}, fault: {{delay: {{fixedDelay: 1s}}}}}}")
    merged = merged_route(root, own)
    assert merged is not None
    assert (merged.name, merged.timeout, merged.headers, merged.fault) == ("root-own", 2.0, own.headers, own.fault)


def resource(name: str, spec: str, namespace: str = "default") -> ConfigResource:
    value = read(VirtualService, yaml.safe_load(spec), Reading())
    return ConfigResource(Key("VirtualService", namespace, name), "networking.istio.io/v1", value, {})


def test_delegates_stand_in_the_places_of_the_rules_that_lead_to_them() -> None:
    """Names that are short in the delegate's namespace mean services there."""
    rules = f"[{{name: first, {ROUTE}}}, {{delegate: {{name: d, namespace: other}}}}, {{name: last, {ROUTE}}}]"
    root = resource("root", f"{{hosts: [a], http: {rules}}}")
    one = "{name: one, route: [{destination: {host: b}}], mirror: {host: c}}"
    delegate = resource("d", f"{{http: [{one}, {{name: two, route: [{{destination: {{host: d.e}}}}]}}]}}", "other")
    found = expanded(
        root,
        {delegate.key: delegate},
        is_seen=lambda one: True,
        resolve=lambda host, namespace: host if "." in host else f"{host}.{namespace}",
    )
    assert [one.name for one in found] == ["first", "one", "two", "last"]
    assert [one.route[0].destination.host for one in found] == ["reviews", "b.other", "d.e", "reviews"]
    assert found[1].mirror is not None
    assert found[1].mirror.host == "c.other"


@pytest.mark.parametrize("missing", ["hidden", "absent"])
def test_a_delegate_that_is_not_seen_takes_only_its_rule_with_it(missing: str) -> None:
    root = resource("root", f"{{hosts: [a], http: [{{delegate: {{name: d}}}}, {{name: last, {ROUTE}}}]}}")
    delegate = resource("d", f"{{http: [{{{ROUTE}}}]}}")
    known = {delegate.key: delegate} if missing == "hidden" else {}
    found = expanded(root, known, is_seen=lambda one: missing != "hidden", resolve=lambda host, namespace: host)
    assert [one.name for one in found] == ["last"]
