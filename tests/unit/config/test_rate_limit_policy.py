"""RateLimitPolicy: what is refused, and what is only pointed out."""

from __future__ import annotations

import pytest

from meshlib_control.catalog.model import Port, Service
from meshlib_control.config import analyze
from tests.unit.config.support import codes, findings, loaded

HEAD = "apiVersion: meshlib.io/v1\nkind: RateLimitPolicy\nmetadata: {name: p}\nspec:\n"
HOST, SELECTOR = "host: reviews", "selector: {matchLabels: {app: reviews}}"
CLEAN = "{name: all, tokens: 1}"


def policy(limit: str = CLEAN, side: str = SELECTOR, more: str = "") -> str:
    return f"{HEAD}  {side}\n  limits: [{limit}{', ' + more if more else ''}]\n"


@pytest.mark.parametrize(
    ("limit", "side"),
    [
        (CLEAN, HOST),
        (CLEAN, "host: '*.example.com'"),
        (CLEAN, SELECTOR),
        ("{name: a, tokens: 5, interval: 100ms, burst: 9, by: [{header: x-tenant}, {attribute: CALLER}]}", SELECTOR),
        ("{name: a, tokens: 5, scope: GLOBAL, fallback: {after: 0s, action: DENY}, by: [{attribute: ROUTE}]}", HOST),
        ("{name: a, quota: {requests: 5, period: DAY}, fallback: {after: 1h}}", HOST),
        ("{name: a, tokens: 5, match: [{uri: {prefix: /a}, port: 80, sourceLabels: {a: b}}]}", HOST),
    ],
)
def test_what_makes_sense_is_accepted(limit: str, side: str) -> None:
    loaded(policy(limit, side))


@pytest.mark.parametrize(
    ("limit", "side", "code", "field"),
    [
        (CLEAN, "exportTo: ['*']", "MSH0143", "spec.host"),
        (CLEAN, f"{HOST}\n  {SELECTOR}", "MSH0107", "spec.selector"),
        (CLEAN, "host: '*'", "MSH0121", "spec.host"),
        (CLEAN, f"{SELECTOR}\n  exportTo: ['*']", "MSH0137", "spec.exportTo"),
        ("{name: 'a b', tokens: 1}", HOST, "MSH0137", "spec.limits[0].name"),
        (f"{CLEAN}, {CLEAN}", HOST, "MSH0137", "spec.limits[1].name"),
        ("{name: a}", HOST, "MSH0143", "spec.limits[0].tokens"),
        ("{name: a, tokens: 0}", HOST, "MSH0105", "spec.limits[0].tokens"),
        ("{name: a, tokens: 1, quota: {requests: 1, period: DAY}}", HOST, "MSH0137", "spec.limits[0].tokens"),
        ("{name: a, quota: {requests: 1, period: YEAR}}", HOST, "MSH0104", "spec.limits[0].quota.period"),
        ("{name: a, tokens: 1, by: [{}]}", HOST, "MSH0143", "spec.limits[0].by[0]"),
        ("{name: a, tokens: 1, by: [{header: a, claim: b}]}", SELECTOR, "MSH0107", "spec.limits[0].by[0].claim"),
        ("{name: a, tokens: 1, by: [{header: 'a b'}]}", HOST, "MSH0126", "spec.limits[0].by[0].header"),
        ("{name: a, tokens: 1, by: [{claim: '[]'}]}", SELECTOR, "MSH0137", "spec.limits[0].by[0].claim"),
        ("{name: a, tokens: 1, by: [{attribute: CALLER}]}", HOST, "MSH0137", "spec.limits[0].by[0].attribute"),
        ("{name: a, tokens: 1, by: [{claim: sub}]}", HOST, "MSH0137", "spec.limits[0].by[0].claim"),
        ("{name: a, tokens: 1, by: [{attribute: SERVICE}]}", SELECTOR, "MSH0137", "spec.limits[0].by[0].attribute"),
        ("{name: a, tokens: 1, match: [{sourceLabels: {a: b}}]}", SELECTOR, "MSH0137", "spec.limits[0].match[0].sourceLabels"),
        ("{name: a, tokens: 1, match: [{uri: {regex: '('}}]}", HOST, "MSH0123", "spec.limits[0].match[0].uri.regex"),
    ],
)
def test_what_makes_none_is_refused(limit: str, side: str, code: str, field: str) -> None:
    assert (code, field) in [(finding.code, finding.field) for finding in findings(policy(limit, side))]


def test_an_unknown_host_is_pointed_out() -> None:
    resources = loaded(policy(CLEAN, HOST))
    assert codes(analyze(resources, services=[])) == ["MSH0201"]
    known = Service(host="reviews.default.svc.cluster.local", namespace="default", ports=(Port(80),))
    assert codes(analyze(resources, services=[known])) == []


AUTHENTICATION = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec: {jwtRules: [{issuer: me, jwksUri: 'https://me.example.com/keys'}]}
"""


def test_claims_have_to_be_verified_by_somebody() -> None:
    limited = policy("{name: a, tokens: 1, by: [{claim: sub}]}")
    assert codes(analyze(loaded(limited))) == ["MSH0344"]
    assert "MSH0344" not in codes(analyze(loaded(limited, AUTHENTICATION)))


def test_a_limit_by_what_its_sender_chooses_needs_another_beside_it() -> None:
    by_header = "{name: a, tokens: 1, by: [{header: x-tenant}]}"
    assert codes(analyze(loaded(policy(by_header)))) == ["MSH0345"]
    assert codes(analyze(loaded(policy(by_header, more="{name: b, tokens: 9, by: [{attribute: CALLER}]}")))) == []
    assert codes(analyze(loaded(policy(by_header, more="{name: b, tokens: 9, match: [{uri: {prefix: /a}}]}")))) == ["MSH0345"]
    assert codes(analyze(loaded(policy("{name: a, tokens: 1, by: [{header: x}, {attribute: CALLER}]}")))) == []
