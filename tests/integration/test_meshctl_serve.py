"""An operator's day with a real control service over the embedded store."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.control import Control, as_json, eventually, meshctl
from tests.unit.admin.support import MESH, SERVICE, SUBSETS, virtual_service


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """Shared; a test that needs a store of its own starts its own."""
    with Control(tmp_path_factory.mktemp("control")) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Control]:
    with Control(tmp_path) as running:
        yield running


def served_revision(control: Control) -> int:
    return int(control.get("/v1/status")["control"]["revision"])


def percents(control: Control) -> list[float]:
    return [cluster["percent"] for cluster in control.explain("http://reviews/")["clusters"]]


def test_apply_look_change_roll_back(control: Control) -> None:
    """The whole circle, through the command line only."""
    applied: Any = as_json(control.meshctl("apply", "-f", "-", "-o", "json", "-m", "start", text=MESH))
    first = applied["revision"]
    eventually(lambda: served_revision(control) >= first, what="the revision is served")
    shown = control.meshctl("get", "vs", "reviews", "-o", "yaml").stdout
    assert yaml.safe_load(shown)["spec"]["hosts"] == ["reviews"]

    changed = virtual_service(weight=50)
    difference = control.meshctl("diff", "-f", "-", text=changed)
    assert (difference.returncode, "-      weight: 90" in difference.stdout) == (1, True)
    dry: Any = as_json(control.meshctl("apply", "-f", "-", "--dry-run", "-o", "json", text=changed))
    assert (dry["revision"], [change["action"] for change in dry["changes"]]) == (first, ["configured"])
    assert control.meshctl("apply", "-f", "-", "--expect", str(first), text=changed).returncode == 0
    conflict = control.meshctl("apply", "-f", "-", "--expect", str(first), text=changed)
    assert (conflict.returncode, "next:" in conflict.stderr) == (4, True)

    assert control.meshctl("rollback", str(first)).returncode == 0
    history: Any = as_json(control.meshctl("history", "-o", "json"))
    assert [line["revision"] for line in history["items"][:3]] == [first + 2, first + 1, first]
    assert control.meshctl("diff", "--since", str(first)).returncode == 0


def test_get_prints_what_apply_takes(control: Control) -> None:
    control.apply(MESH)
    everything = control.meshctl("get", "-o", "yaml").stdout
    again: Any = as_json(control.meshctl("apply", "-f", "-", "-o", "json", text=everything))
    assert {change["action"] for change in again["changes"]} == {"unchanged"}


def test_explain_follows_the_configuration(control: Control) -> None:
    control.apply(MESH)
    eventually(lambda: percents(control) == [90.0, 10.0], what="90/10")
    control.apply(virtual_service(weight=25))
    eventually(lambda: percents(control) == [25.0, 75.0], what="25/75")
    readable = control.meshctl("explain", "GET", "http://reviews/").stdout
    assert "25 % to outbound|80|v1|reviews.default.svc.cluster.local" in readable
    assert "10.0.0.1:9080 healthy version=v1" in readable
    routes: Any = as_json(control.meshctl("routes", "reviews", "-o", "json"))
    assert len(routes["routes"]) == 1
    endpoints = control.meshctl("endpoints", "reviews", "-o", "name").stdout.splitlines()
    assert endpoints == ["10.0.0.1:9080", "10.0.0.2:9080"]


def test_nothing_invalid_is_ever_stored(control: Control) -> None:
    control.apply(MESH)
    before = control.get("/v1/config")
    bad = f"{SUBSETS.replace('host:', 'hots:')}---\n{virtual_service().replace('weight: 100', 'weight: -1')}---\na: ["
    refused = control.meshctl("apply", "-f", "-", text=bad)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("<stdin>:") >= 3
    assert control.get("/v1/config") == before
    live = control.meshctl("analyze", "-f", "-", "--live", "-o", "json", text=bad)
    assert (live.returncode, len(json.loads(live.stdout)) >= 3) == (1, True)


def test_http_probes_and_metrics(control: Control) -> None:
    with control.http() as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert "meshlib_control_config_revision" in client.get("/metrics").text
        assert client.get("/v1/status", headers={"host": "evil.example"}).status_code == 403


def test_completion_knows_live_names(control: Control) -> None:
    control.apply(MESH)
    environment = {"MESHCTL_SERVER": control.admin, "_MESHCTL_COMPLETE": "bash_complete"}
    asked = {"COMP_WORDS": "meshctl get vs rev", "COMP_CWORD": "3"}
    assert "reviews" in meshctl(env={**environment, **asked}).stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly_and_the_next_start_knows_everything(own: Control, number: int) -> None:
    own.apply(MESH)
    before = own.get("/v1/config")
    assert own.stop(number) == 0
    assert "Traceback" not in own.log
    own.start()
    assert own.get("/v1/config") == before
    assert served_revision(own) == before["revision"]


def test_a_line_on_stderr_says_that_nothing_is_encrypted(own: Control) -> None:
    assert "NOTHING IS ENCRYPTED" in own.log


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--insecure-dev", "--listen", "0.0.0.0:0"), "insecure-dev"),
        (("--admin", "0.0.0.0:0"), "not encrypted"),
        (("--listen", "nonsense"), "not an address"),
        (("--config", "/does/not/exist"), "does not exist"),
        (("--debounce", "-1"), "--debounce"),
    ],
)
def test_wrong_settings_are_refused_before_anything_opens(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    result = meshctl("serve", "--data", str(tmp_path / "data"), *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert says in result.stderr
    assert not (tmp_path / "data").exists()


def test_what_keeps_it_from_starting_is_said_without_a_traceback(own: Control, tmp_path: Path) -> None:
    port = own.admin.rpartition(":")[2]
    taken = ("--listen", "127.0.0.1:0", "--admin", f"127.0.0.1:{port}")
    for arguments in (taken, ("--store", "redis://x"), ("--listen", own.xds, "--admin", "127.0.0.1:0")):
        result = meshctl("serve", "--data", str(tmp_path / "other"), *arguments)
        assert (result.returncode, result.stdout) == (1, ""), result.stderr
        assert "cannot start" in result.stderr
        assert "Traceback" not in result.stderr


def test_files_are_served_beside_the_store_and_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "mesh.yaml").write_text(f"{SERVICE}---{SUBSETS}")
    with Control(tmp_path, "--config", str(folder)) as control:
        refused = control.meshctl("apply", "-f", "-", text=SUBSETS)
        assert (refused.returncode, "mesh.yaml" in refused.stderr) == (4, True)
        control.apply(virtual_service(weight=30))
        sources = {item["resource"]: item["source"] for item in control.get("/v1/config")["items"]}
        assert sources["DestinationRule/default/reviews"] == "file"
        assert sources["VirtualService/default/reviews"] == "store"

        def addresses() -> list[str]:
            return [endpoint["address"] for endpoint in control.get("/v1/endpoints", service="reviews")["endpoints"]]

        (folder / "mesh.yaml").write_text(f"{SERVICE.replace('10.0.0.2', '10.0.0.9')}---{SUBSETS}")
        eventually(lambda: addresses() == ["10.0.0.1", "10.0.0.9"], what="the new address")
        (folder / "mesh.yaml").write_text("a: [")
        eventually(lambda: control.get("/v1/status")["problems"], what="the broken file is noticed")
        assert addresses() == ["10.0.0.1", "10.0.0.9"]


def test_a_broken_store_keeps_what_was_served_and_shows(own: Control) -> None:
    own.apply(MESH)
    eventually(lambda: percents(own) == [90.0, 10.0], what="the revision is served")
    assert own.get("/v1/status")["problems"] == []
    with closing(sqlite3.connect(own.directory / "control.db")) as database, database:
        database.execute("UPDATE entries SET value = x'00', revision = revision + 1000 WHERE key = 'config/head'")
    eventually(lambda: own.get("/v1/status")["problems"], what="the damage is noticed")
    assert own.meshctl("status", "--check").returncode == 1
    assert own.meshctl("get").returncode == 3
    assert percents(own) == [90.0, 10.0]
