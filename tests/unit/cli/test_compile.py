"""meshctl compile: what a node gets, from files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshlib_control.cli.main import cli

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
