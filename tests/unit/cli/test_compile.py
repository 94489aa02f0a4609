"""meshctl compile: what a node gets, from files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meshlib_control.cli.main import cli
from tests.unit.compile.authz import GRPC_PROVIDER, HTTP_PROVIDER
from tests.unit.compile.test_authz_corpus import CASES, expected, inputs

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: httpbin, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin, version: v1}}
  rules: [{from: [{source: {principals: [cluster.local/ns/foo/sa/web]}}], to: [{operation: {methods: [GET]}}]}]
"""
NODE = {
    "service": "httpbin",
    "namespace": "foo",
    "service_account": "httpbin",
    "labels": {"app": "httpbin", "version": "v1"},
    "locality": "",
}


def run(folder: Path, **node: object) -> Result:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "node.json").write_text(json.dumps(NODE | node))
    files = ("-f", str(folder / "policy.yaml"), "--node", str(folder / "node.json"))
    return CliRunner().invoke(cli, ["compile", *files])


@pytest.mark.parametrize("flavour", ["meshlib", "envoy", "grpc"])
def test_policies_are_seen_without_knowing_the_nodes_ports(flavour: str, tmp_path: Path) -> None:
    result = run(tmp_path, flavour=flavour)
    assert result.exit_code == 0, result.output
    inbound = [item for item in json.loads(result.stdout) if item.get("traffic_direction") == "INBOUND"]
    assert "ns[foo]-policy[httpbin]-rule[0]" in json.dumps(inbound)
    assert "names no ports; inbound listeners are shown for 80" in result.stderr
    assert '"ports": [9080]' in result.stderr


@pytest.mark.parametrize(("labels", "holds"), [({"version": "v1"}, True), ({"app": "web", "version": "v1"}, False)])
def test_a_process_of_meshlib_has_its_services_name_as_label(labels: dict[str, str], holds: bool, tmp_path: Path) -> None:
    assert ("policy[httpbin]" in run(tmp_path, flavour="meshlib", labels=labels).stdout) == holds
    assert "policy[httpbin]" not in run(tmp_path, flavour="envoy", labels=labels).stdout


def test_ports_that_the_node_names_need_no_remark(tmp_path: Path) -> None:
    result = run(tmp_path, flavour="meshlib", ports=[9080])
    assert "inbound/0.0.0.0:9080" in result.stdout
    assert "names no ports" not in result.stderr


AUTHORIZER = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: authorizer, namespace: foo}
spec:
  hosts: [my-custom-ext-authz.foo.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 9000, name: grpc, protocol: GRPC}]
  endpoints: [{address: 10.0.0.9}]
"""
MESHES = {
    "custom-both-http-tcp": f"{GRPC_PROVIDER}---{AUTHORIZER}",
    "custom-bad-multiple-providers": f"{HTTP_PROVIDER}---{AUTHORIZER}",
    "simple-policy-td-aliases": """
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec: {trustDomain: td1, trustDomainAliases: [cluster.local]}
""",
}


def filters_in(document: list[dict[str, Any]], kind: str) -> list[Any]:
    """Those of policies, in the first chain of each inbound listener that is for requests, or for connections."""
    found: list[Any] = []
    for listener in document:
        if listener.get("traffic_direction") == "INBOUND":
            (*before, last) = listener["filter_chains"][0]["filters"]
            of_requests = "http_filters" in last["typed_config"]
            if of_requests == (kind == "http"):
                found += last["typed_config"]["http_filters"][:-1] if of_requests else before
    return [{"name": item["name"], "typed_config": item["typed_config"]} for item in found]


@pytest.mark.parametrize(("kind", "flavour"), [("http", "meshlib"), ("http", "envoy"), ("tcp", "envoy")])
def test_istios_own_cases_come_out_of_the_command(kind: str, flavour: str, tmp_path: Path) -> None:
    """As somebody would see them who knows nothing but the policies and the workload's name and labels."""
    if not CASES.exists():
        pytest.skip("Istio's cases are not here")
    seen = 0
    (tmp_path / "node.json").write_text(json.dumps(NODE | {"flavour": flavour}))
    for source in inputs(kind):
        mesh = MESHES.get(source.name.removesuffix("-in.yaml"), "")
        (tmp_path / "in.yaml").write_text(f"{source.read_text()}\n---\n{mesh}")
        wanted = expected(source)
        if not wanted:
            continue
        result = CliRunner().invoke(cli, ["compile", "-f", str(tmp_path / "in.yaml"), "--node", str(tmp_path / "node.json")])
        assert result.exit_code == 0, result.stderr
        assert filters_in(json.loads(result.stdout), kind) == wanted, source.name
        seen += 1
    assert seen >= 3
