"""meshctl without a control service, as a process: analyze, compile, help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.control import meshctl
from tests.unit.admin.support import MESH, SUBSETS, virtual_service

NODE = {
    "flavour": "meshlib",
    "service": "web",
    "namespace": "default",
    "service_account": "web",
    "labels": {"app": "web"},
    "locality": "eu/1/a",
}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    path = tmp_path / "node.json"
    path.write_text(json.dumps(NODE))
    return path


def write(folder: Path, **texts: str) -> list[str]:
    arguments = []
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.write_text(text)
        arguments += ["-f", str(path)]
    return arguments


def test_clean_files_have_no_findings(tmp_path: Path) -> None:
    result = meshctl("analyze", *write(tmp_path, mesh=MESH), "-o", "json")
    assert (result.returncode, json.loads(result.stdout)) == (0, [])


def test_findings_have_exactly_the_seven_fields_and_exit_with_1(tmp_path: Path) -> None:
    bad = SUBSETS.replace("v2, labels", "v1, labels")
    result = meshctl("analyze", *write(tmp_path, good=virtual_service(), bad=bad), "-o", "json")
    assert result.returncode == 1
    found = json.loads(result.stdout)
    fields = ["code", "severity", "resource", "field", "file", "line", "message"]
    assert [list(finding) for finding in found] == [fields] * len(found)
    assert {Path(finding["file"]).name for finding in found} >= {"bad.yaml"}
    assert all(isinstance(finding["line"], int) and finding["line"] > 0 for finding in found)


def test_every_bad_file_is_reported_in_one_run(tmp_path: Path) -> None:
    texts = {
        "syntax": "a: [",
        "field": SUBSETS.replace("subsets", "subset"),
        "type": SUBSETS.replace("host: reviews", "host: 7"),
    }
    result = meshctl("analyze", *write(tmp_path, **texts))
    assert result.returncode == 1
    for name in texts:
        assert f"{name}.yaml:" in result.stdout


@pytest.mark.parametrize("flavour", ["meshlib", "envoy", "grpc"])
def test_compile_prints_one_list_with_envoys_type_names(tmp_path: Path, node: Path, flavour: str) -> None:
    node.write_text(json.dumps({**NODE, "flavour": flavour}))
    result = meshctl("compile", *write(tmp_path, mesh=MESH), "--node", str(node))
    assert result.returncode == 0, result.stderr
    resources: list[dict[str, Any]] = json.loads(result.stdout)
    kinds = {resource["@type"].rpartition(".")[2] for resource in resources}
    assert {"Listener", "RouteConfiguration", "Cluster", "ClusterLoadAssignment"} <= kinds
    assert all(resource["@type"].startswith("type.googleapis.com/envoy.config.") for resource in resources)
    assert "10.0.0.2" in result.stdout


@pytest.mark.parametrize(("flavour", "port"), [("meshlib", 9080), ("grpc", 9080), ("envoy", "9080:8080")])
def test_compile_prints_what_the_node_serves(tmp_path: Path, node: Path, flavour: str, port: int | str) -> None:
    """With mTLS, as nobody has said that there is none."""
    strict = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: x}, spec: {mtls: {mode: STRICT}}}"
    node.write_text(json.dumps({**NODE, "flavour": flavour, "ports": [port]}))
    result = meshctl("compile", *write(tmp_path, mesh=MESH, strict=strict), "--node", str(node))
    assert result.returncode == 0, result.stderr
    served = [resource for resource in json.loads(result.stdout) if resource.get("traffic_direction") == "INBOUND"]
    assert [resource["address"]["socket_address"]["port_value"] for resource in served] == [9080]
    (chain,) = served[0]["filter_chains"]
    assert chain["transport_socket"]["typed_config"]["@type"].endswith(".DownstreamTlsContext")


def test_compile_with_errors_prints_nothing_but_findings_on_stderr(tmp_path: Path, node: Path) -> None:
    result = meshctl("compile", *write(tmp_path, bad=virtual_service()), "--node", str(node))
    assert (result.returncode, result.stdout) == (1, "")
    assert "MSH0202" in result.stderr


def test_what_apply_would_store_is_compiled_findings_or_not(tmp_path: Path, node: Path) -> None:
    """Two VirtualServices for a host are an error to correct, and defined all the same: one of them holds."""
    rival = virtual_service("a-rival")
    result = meshctl("compile", *write(tmp_path, mesh=MESH, rival=rival), "--node", str(node))
    assert result.returncode == 0
    assert "MSH0204" in result.stderr
    assert "virtual-service/a-rival" in result.stdout


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"flavour": "nginx"}', '{"flavor": "envoy"}', '{"labels": {"a": 1}}', '{"ports": [65536]}']
)
def test_a_bad_node_is_a_usage_error(tmp_path: Path, node: Path, text: str) -> None:
    node.write_text(text)
    result = meshctl("compile", *write(tmp_path, mesh=MESH), "--node", str(node))
    assert (result.returncode, result.stdout) == (2, "")


def test_codes_explain_themselves() -> None:
    one = meshctl("codes", "msh0202")
    assert "unknown subset" in one.stdout
    assert meshctl("codes", "MSH9999").returncode == 1
    every = json.loads(meshctl("codes", "-o", "json").stdout)
    assert {"code", "severity", "title", "meaning", "action", "refuses"} == every[0].keys()


def test_help_needs_none_of_the_heavy_packages() -> None:
    """The time budget of 300 ms, as what it comes from: nothing is imported before it is needed."""
    script = (
        "import sys, runpy; sys.argv = ['meshctl', '--help']\n"
        "try: runpy.run_module('meshlib_control', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'grpc', 'httpx', 'rich', 'msgspec', 'yaml', 'starlette', 'uvicorn', 'consul', 'google.protobuf', 'asyncio'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr.strip() == "[]"
    assert "apply" in result.stdout


def test_without_its_packages_meshctl_says_how_to_get_them(tmp_path: Path) -> None:
    hidden = (
        "import importlib.util as util, runpy, sys\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name in ('click', 'rich') else real(name, package)\n"
        "runpy.run_module('meshlib_control', run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "click, rich" in result.stderr
    assert "pip install '.[control]'" in result.stderr


def test_no_control_service_is_exit_code_3(tmp_path: Path) -> None:
    result = meshctl("status", "--server", "http://127.0.0.1:9")
    assert (result.returncode, result.stdout) == (3, "")
    assert "meshctl serve" in result.stderr


def test_a_reader_that_leaves_early_is_no_disaster() -> None:
    """``meshctl codes | head``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "meshlib_control", "codes", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "Traceback" not in errors
