"""The demo, whole: as a terminal's user, as a script, over Consul, interrupted and killed."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib_control.demo.story import STORY
from tests.support import tools

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 200.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def demo(*arguments: str, **streams: Any) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MESHLIB_", "MESHCTL_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "meshlib_control", "demo", *arguments],
        cwd=ROOT,
        env={**environment, "TERM": "xterm"},
        text=True,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams},
    )


def relatives(folder: str) -> Iterator[int]:
    """Processes whose current folder is, or was, the demo's own."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink().as_posix().startswith(folder):
                    yield int(entry.name)
            except OSError:
                continue


def folder_of(text: str) -> str:
    """The temporary folder, from the printed command of the control service."""
    found = re.search(r"--data (\S+)/control", text)
    assert found, text
    return found[1]


def wait_gone(folder: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while list(relatives(folder)) or Path(folder).exists():
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in relatives(folder)]
        time.sleep(0.1)


def check_report(path: Path) -> None:
    steps = json.loads(path.read_text())["steps"]
    assert [step["name"] for step in steps] == [step.name for step in STORY]
    for step in steps:
        assert step["errors"] == 0, step
        assert step["requests"] > 20
        assert step["command"]
        assert sum(step["split"].values()) == pytest.approx(1.0, abs=0.001)
    by_name = {step["name"]: step for step in steps}
    assert by_name["canary-0-100"]["split"]["v3"] > 0.97
    assert by_name["canary-90-10"]["split"]["v1"] > by_name["canary-50-50"]["split"]["v1"] > 0.3
    assert re.fullmatch(r"kill -9 \d+", by_name["kill-instance"]["command"])
    assert "meshctl" in by_name["rollback"]["command"]
    check_security({name: step["facts"] for name, step in by_name.items()})


def check_security(facts: dict[str, Any]) -> None:
    """Denied, allowed without a restart, not served in plaintext, and every certificate another one."""
    details = "spiffe://cluster.local/ns/default/sa/details"
    assert (facts["denied"]["answer"], facts["denied"]["authz_check"]) == ("403 RBAC: access denied", "denied")
    assert f"from {details}: 403 rbac_access_denied" in facts["denied"]["log"]
    assert facts["allowed"]["answer"].startswith('200 {"id": "7"')
    assert (facts["allowed"]["authz_check"], facts["allowed"]["restarted"]) == ("allowed", False)
    assert facts["plaintext"]["answer"].startswith("no answer: ")
    assert facts["plaintext"]["identity"] == details
    old, new = facts["rotate"]["roots"]
    assert old != new
    serials = facts["rotate"]["serials"]
    assert len(serials) == 7
    assert all(before != after for before, after in serials.values())


def test_a_script_runs_it_and_checks_its_report(tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    with demo("--for", "25", "--json", str(report)) as process:
        said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    check_report(report)
    assert "meshctl apply -f meshlib_control/demo/bookinfo/reviews-90-10.yaml" in said
    assert re.findall(r"meshctl ca (\w+)\n", said) == ["prepare", "activate", "taint", "revoke"]
    assert re.search(r"\d+ requests in \d+ s, 0 failed, \d+ retries\.", said)
    wait_gone(folder_of(said))


@pytest.mark.consul
@pytest.mark.soak
def test_over_a_real_consul(tmp_path: Path) -> None:
    tools.consul()
    report = tmp_path / "demo.json"
    with demo("--for", "25", "--consul", "--json", str(report)) as process:
        said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    check_report(report)
    assert "--store consul://127.0.0.1:" in said


def read_until(descriptor: int, pattern: str) -> str:
    text = ""
    deadline = time.monotonic() + DEADLINE
    while not re.search(pattern, text):
        assert time.monotonic() < deadline, text
        try:
            text += os.read(descriptor, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            assert re.search(pattern, text), text
    return text


def test_on_a_terminal_it_shows_a_table_until_ctrl_c() -> None:
    """In a pseudo-terminal, Ctrl-C typed into it; one step has been seen, so there is a summary."""
    ours, theirs = pty.openpty()
    with demo(stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        said = read_until(ours, r"requests/s.*\n.*v1")
        assert "█" in said
        process.send_signal(signal.SIGINT)
        said += read_until(ours, r"\d+ requests in \d+ s, 0 failed")
        # Nobody reads any more, and it ends all the same.
        assert process.wait(DEADLINE) == 0
    os.close(ours)
    wait_gone(folder_of(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_nothing_is_left_running(number: signal.Signals) -> None:
    with demo() as process:
        assert process.stdout is not None
        said = ""
        while "to repeat what you see" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        folder = folder_of(said)
        assert list(relatives(folder))
        process.send_signal(number)
        process.communicate(timeout=DEADLINE)
    wait_gone(folder)
