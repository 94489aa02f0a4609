"""meshctl authz check: what it asks, prints and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshlib_control.cli.main import cli
from tests.unit.cli.support import ScriptedService

WEB = "spiffe://cluster.local/ns/shop/sa/web"
POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}], to: [{operation: {methods: [GET]}}]}]
"""
ANSWER = {"service": "reviews.shop.svc.cluster.local", "outcome": "allowed", "workloads": []}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["authz", "check", *arguments])


def test_what_is_asked_of_the_control_service() -> None:
    service = ScriptedService({"POST /v1/authorize": ANSWER})
    result = service.run(
        *("authz", "check", "get", "/a?b=1", "--to", "reviews:9080", "--from", WEB.removeprefix("spiffe://")),
        *("-H", "X-Role: admin", "--jwt", "a.b.c", "--claims", '{"sub": "me"}', "--from-ip", "10.0.0.7", "--sni", "r"),
        *("--label", "app=reviews"),
    )
    assert result.exit_code == 0, result.output
    assert service.body() == {
        "service": "reviews",
        "port": 9080,
        "namespace": "shop",
        "method": "GET",
        "path": "/a?b=1",
        "headers": [["X-Role", "admin"], ["authorization", "Bearer a.b.c"]],
        "source": WEB,
        "source_address": "10.0.0.7",
        "server_name": "r",
        "claims": {"sub": "me"},
        "labels": {"app": "reviews"},
    }


@pytest.mark.parametrize(("outcome", "code"), [("allowed", 0), ("denied", 1), ("asked", 1)])
def test_exit_codes(outcome: str, code: int) -> None:
    service = ScriptedService({"POST /v1/authorize": ANSWER | {"outcome": outcome}})
    result = service.run("authz", "check", "GET", "/", "--to", "reviews", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["outcome"]) == (code, outcome)


def test_files_are_judged_without_a_control_service(file: str) -> None:
    question = ("-f", file, "--to", "reviews", "--from", WEB, "--label", "app=reviews")
    allowed = run(*question, "GET", "/")
    assert allowed.exit_code == 0
    assert "ALLOWED by AuthorizationPolicy/shop/reviews rule 0" in allowed.stdout
    denied = run(*question, "DELETE", "/")
    assert denied.exit_code == 1
    assert "DENIED: there are ALLOW policies, and none of them matched" in denied.stdout
    assert "shop/reviews rule 0: asks for method GET; method is DELETE" in denied.stdout


def test_policies_that_select_others_are_told(file: str) -> None:
    result = run("-f", file, "--to", "ratings.shop", "GET", "/")
    assert result.exit_code == 0
    assert "not for this workload: AuthorizationPolicy/shop/reviews selects app=reviews" in result.stdout


@pytest.mark.parametrize("name", ["reviews", "Reviews:9080", "reviews.shop", "reviews.shop.svc.cluster.local"])
@pytest.mark.parametrize("namespace", ["shop", "other"])
def test_a_service_that_no_file_declares_has_the_workloads_that_policies_select_by_its_name(
    file: str, name: str, namespace: str
) -> None:
    """Wherever its caller is; the alternative would be "allowed, since no policy is about it"."""
    question = ("-f", file, "--to", name, "GET", "/", "--from")
    denied = run(*question, f"spiffe://cluster.local/ns/{namespace}/sa/intruder")
    assert (denied.exit_code, "GET / to reviews.shop.svc.cluster.local" in denied.stdout) == (1, True)
    assert "workload   app=reviews" in denied.stdout
    assert run(*question, WEB).exit_code == 0


def test_what_is_said_counts_more_than_what_is_assumed(file: str) -> None:
    question = ("-f", file, "--to", "reviews", "DELETE", "/")
    assert run(*question).exit_code == 1
    assert "no policy is about it" in run(*question, "-n", "other").stdout
    assert "no policy is about it" in run(*question, "-n", "shop", "--label", "app=ratings").stdout


def test_a_name_in_several_namespaces_is_asked_back(file: str, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(POLICIES.replace("shop}", "store}"))
    question = ("-f", file, "-f", str(more), "--to", "reviews", "DELETE", "/")
    result = run(*question)
    assert result.exit_code == 2
    assert "which reviews?" in result.stderr
    assert "shop, store" in result.stderr
    assert run(*question, "-n", "store").exit_code == 1
    assert run(*question, "--from", WEB).exit_code == 1  # of the caller's own namespace


def test_a_declared_service_is_found_from_elsewhere(file: str, tmp_path: Path) -> None:
    declared = tmp_path / "service.yaml"
    declared.write_text("""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, labels: {app: reviews}}]
""")
    question = ("-f", file, "-f", str(declared), "--to", "reviews", "GET", "/", "--from")
    denied = run(*question, "spiffe://cluster.local/ns/other/sa/web")
    assert (denied.exit_code, "10.0.0.1:9080 with app=reviews" in denied.stdout) == (1, True)
    assert run(*question, WEB).exit_code == 0


def test_yaml(file: str) -> None:
    result = run("-f", file, "--to", "reviews", "-n", "shop", "--label", "app=reviews", "GET", "/", "-o", "yaml")
    assert "outcome: denied" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "reviews:x"), "'reviews:x' is not a service"),
        (("--to", "a", "-H", "x"), "'x' is not a header"),
        (("--to", "a", "--claims", "[]"), "--claims is not a JSON object"),
        (("--to", "a", "--from-ip", "x"), "--from-ip 'x' is not an IP address"),
        (("--to", "a", "--label", "x"), "'x' is not a label"),
        (("--to", "a", "--from", "spiffe://"), "--from is not a SPIFFE ID"),
        ((), "Missing option '--to'"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(file: str, arguments: tuple[str, ...], message: str) -> None:
    result = run("-f", file, *arguments, "GET", "/")
    assert result.exit_code == 2
    assert message in result.stderr


def test_files_with_errors_are_no_question(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(POLICIES.replace("methods", "method"))
    result = run("-f", str(path), "--to", "a", "GET", "/")
    assert result.exit_code == 2
    assert "MSH0101" in result.stderr
