"""Commands against a scripted control service: what they send, print and exit with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.unit.cli.support import ScriptedService, problem, unreachable

VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}}]}]
"""
APPLIED = {
    "revision": 8,
    "dry_run": False,
    "changes": [
        {"resource": "VirtualService/default/reviews", "action": "created"},
        {"resource": "DestinationRule/default/reviews", "action": "unchanged"},
    ],
    "findings": [],
}
FINDING = {
    "code": "MSH0132",
    "severity": "error",
    "resource": "VirtualService/default/reviews",
    "field": "spec.http[0]",
    "file": "reviews.yaml",
    "line": 7,
    "message": "weights add up to 0",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.yaml"
    path.write_text(VIRTUAL_SERVICE)
    return path


def test_apply_prints_what_happened_to_each_resource_and_the_revision(file: Path) -> None:
    service = ScriptedService({"POST /v1/config": APPLIED})
    result = service.run("apply", "-f", str(file), "-m", "why", "--expect", "7", "-n", "prod")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "VirtualService/default/reviews created",
        "DestinationRule/default/reviews unchanged",
        "revision 8",
    ]
    sent = service.body()
    assert sent["files"] == [{"name": str(file), "text": VIRTUAL_SERVICE}]
    assert (sent["message"], sent["namespace"]) == ("why", "prod")
    assert dict(service.requests[0].url.params) == {"expect": "7"}


def test_apply_reads_standard_input_and_can_only_check(file: Path) -> None:
    service = ScriptedService({"POST /v1/config": {**APPLIED, "dry_run": True}})
    result = service.run("apply", "-f", "-", "--dry-run", "-o", "json", text=VIRTUAL_SERVICE)
    assert json.loads(result.stdout)["dry_run"] is True
    assert service.body()["files"] == [{"name": "<stdin>", "text": VIRTUAL_SERVICE}]
    assert dict(service.requests[0].url.params) == {"dry_run": "true"}


def test_apply_takes_folders_and_passes_over_what_is_no_configuration(file: Path) -> None:
    (file.parent / "notes.txt").write_text("not configuration")
    (file.parent / ".hidden.yaml").write_text("not configuration")
    below = file.parent / "below"
    below.mkdir()
    (below / "more.yml").write_text(VIRTUAL_SERVICE)
    service = ScriptedService({"POST /v1/config": APPLIED})
    service.run("apply", "-f", str(file.parent))
    service.run("apply", "-R", "-f", str(file.parent))
    assert [len(service.body(index)["files"]) for index in (0, 1)] == [1, 2]


def test_a_refused_apply_shows_every_finding_on_stderr_and_nothing_on_stdout(file: Path) -> None:
    findings = [FINDING, {**FINDING, "line": 9}]
    service = ScriptedService({"POST /v1/config": lambda _: problem(422, "2 errors", next="correct them", findings=findings)})
    result = service.run("apply", "-f", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "reviews.yaml:7: error MSH0132" in result.stderr
    assert "reviews.yaml:9: error MSH0132" in result.stderr
    assert "next: correct them" in result.stderr


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda _: problem(409, "the configuration is at revision 9, not 7"), 4),
        (lambda _: problem(404, "gone"), 1),
        (lambda _: problem(503, "the store cannot be used now"), 3),
        (lambda _: httpx.Response(200, text="<html>not us</html>"), 3),
        (lambda _: httpx.Response(502, text="bad gateway"), 3),
        (unreachable, 3),
    ],
)
def test_exit_codes_of_failures(file: Path, answer: object, code: int) -> None:
    result = ScriptedService({"POST /v1/config": answer}).run("apply", "-f", str(file))
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")


def test_an_unreachable_service_is_named_with_what_to_do(file: Path) -> None:
    service = ScriptedService({"GET /v1/status": unreachable})
    result = service.run("status", env={"MESHCTL_SERVER": "http://127.0.0.1:1"})
    assert "cannot reach the control service at http://127.0.0.1:1" in result.stderr
    assert "meshctl serve" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--server", "not a url"),
        ("status", "--server", "ftp://host"),
        ("get", "pod"),
        ("delete",),
        ("delete", "vs"),
        ("diff",),
        ("explain", "GET", "reviews/"),
        ("explain", "GET", "http://reviews/", "-H", "no colon"),
        ("apply",),
        ("apply", "-f", "/does/not/exist.yaml"),
        ("analyze",),
        ("nonsense",),
        ("status", "-o", "xml"),
    ],
)
def test_wrong_usage_exits_with_2_and_asks_nobody(arguments: tuple[str, ...]) -> None:
    service = ScriptedService({})
    assert service.run(*arguments).exit_code == 2
    assert service.requests == []


ITEMS: dict[str, Any] = {
    "revision": 8,
    "items": [
        {
            "resource": "VirtualService/default/reviews",
            "document": {"kind": "VirtualService", "metadata": {"name": "reviews"}, "spec": {"hosts": ["reviews"]}},
        },
        {
            "resource": "DestinationRule/prod/x",
            "document": {"kind": "DestinationRule", "spec": {"host": "x"}},
            "source": "file",
        },
    ],
}


def test_get_lists_in_every_form() -> None:
    service = ScriptedService({"GET /v1/config": ITEMS})
    table = service.run("get").stdout.splitlines()
    assert table[0].split() == ["KIND", "NAMESPACE", "NAME", "HOSTS", "SOURCE"]
    assert table[1].split() == ["VirtualService", "default", "reviews", "reviews", "store"]
    assert service.run("get", "-o", "name").stdout == "VirtualService/default/reviews\nDestinationRule/prod/x\n"
    assert json.loads(service.run("get", "-o", "json").stdout)["revision"] == 8
    documents = list(yaml.safe_load_all(service.run("get", "-o", "yaml").stdout))
    assert documents == [item["document"] for item in ITEMS["items"]]


def test_get_passes_kind_and_namespace_on() -> None:
    service = ScriptedService({"GET /v1/config": ITEMS})
    service.run("get", "vs", "-n", "prod")
    assert dict(service.requests[0].url.params) == {"kind": "VirtualService", "namespace": "prod"}


def test_get_one_prints_the_document_alone() -> None:
    item = ITEMS["items"][0]
    service = ScriptedService({"GET /v1/config/VirtualService/default/reviews": item})
    assert json.loads(service.run("get", "vs", "reviews", "-o", "json").stdout) == item["document"]
    assert yaml.safe_load(service.run("get", "vs/reviews", "-o", "yaml").stdout) == item["document"]


def test_delete_by_name_and_by_file(file: Path) -> None:
    service = ScriptedService({"POST /v1/config/delete": {**APPLIED, "changes": []}})
    assert service.run("delete", "vs", "a", "b").exit_code == 0
    assert service.body()["resources"] == ["VirtualService/default/a", "VirtualService/default/b"]
    assert service.run("delete", "-f", str(file), "-n", "prod", "--force").exit_code == 0
    assert service.body()["resources"] == ["VirtualService/prod/reviews"]
    assert service.body()["force"] is True


def test_diff_prints_a_unified_diff_and_exits_with_1_if_there_is_one(file: Path) -> None:
    change = {"resource": "VirtualService/default/a", "action": "configured", "before": {"kind": "A"}, "after": {"kind": "B"}}
    service = ScriptedService({"POST /v1/diff": {"since": 3, "to": 0, "changes": [change]}})
    result = service.run("diff", "-f", str(file))
    assert result.exit_code == 1
    assert "-kind: A\n+kind: B" in result.stdout
    service.answers["POST /v1/diff"] = {"since": 3, "to": 0, "changes": []}
    same = service.run("diff", "-f", str(file))
    assert (same.exit_code, same.stdout, same.stderr) == (0, "", "No differences.\n")


def test_diff_of_revisions() -> None:
    service = ScriptedService({"GET /v1/diff": {"since": 3, "to": 5, "changes": []}})
    assert service.run("diff", "--since", "3", "--to", "5").exit_code == 0
    assert dict(service.requests[0].url.params) == {"since": "3", "to": "5"}


def test_history_is_newest_first_and_marks_the_head() -> None:
    line = {"time": "2026-11-23T12:00:00Z", "author": "ada", "resources": 2, "added": 1, "changed": 0, "removed": 0}
    items = [
        {**line, "revision": 3, "message": "", "rolled_back_to": 1},
        {**line, "revision": 2, "message": "canary"},
    ]
    rows = ScriptedService({"GET /v1/revisions": {"head": 3, "items": items}}).run("history").stdout.splitlines()
    assert rows[1].startswith("3 *")
    assert rows[1].endswith("rollback to 1")
    assert rows[2].endswith("canary")


def test_rollback_names_the_revision() -> None:
    service = ScriptedService({"POST /v1/rollback": APPLIED})
    assert service.run("rollback", "5").exit_code == 0
    assert service.body()["revision"] == 5


def test_status_check_fails_when_there_are_problems() -> None:
    control = {
        "version": "0",
        "started": "2026-11-23T12:00:00Z",
        "xds": "x",
        "admin": "a",
        "store": "s",
        "revision": 1,
        "mesh_domain": "d",
    }
    service = ScriptedService({"GET /v1/status": {"control": control, "clients": [], "problems": ["the store is gone"]}})
    assert service.run("status").exit_code == 0
    checked = service.run("status", "--check")
    assert checked.exit_code == 1
    assert "the store is gone" in checked.stdout


def test_explain_sends_the_request_and_who_makes_it() -> None:
    trace = {"authority": "reviews:80", "outcome": "no_route", "detail": "no route matches"}
    service = ScriptedService({"POST /v1/explain": trace})
    arguments = ("explain", "get", "http://reviews/", "-H", "end-user: jason", "--from", "web", "-n", "prod", "--label", "v=1")
    result = service.run(*arguments, "--locality", "r/z")
    assert "no route matches" in result.stdout
    sent = service.body()
    assert (sent["method"], sent["url"], sent["headers"]) == ("GET", "http://reviews/", [["end-user", "jason"]])
    assert sent["node"]["service"] == "web"
    assert sent["node"]["namespace"] == "prod"
    assert sent["node"]["labels"] == {"v": "1"}
    assert sent["node"]["locality"] == "r/z"


def test_analyze_live_prints_the_seven_fields_and_exits_with_1(file: Path) -> None:
    service = ScriptedService({"POST /v1/analyze": {"findings": [FINDING]}})
    result = service.run("analyze", "-f", str(file), "--live", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [FINDING]
    assert service.run("analyze", "-f", str(file), "--live", "-S", "MSH0132", "-o", "json").stdout == "[]\n"


def test_colour_is_only_for_terminals_or_on_demand(file: Path) -> None:
    service = ScriptedService({"POST /v1/config": APPLIED})
    assert "\x1b[" not in service.run("apply", "-f", str(file)).stdout
    assert "\x1b[" in service.run("apply", "-f", str(file), env={"FORCE_COLOR": "1", "TERM": "xterm"}).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    assert "_MESHCTL_COMPLETE" in ScriptedService({}).run("completion", shell).stdout
