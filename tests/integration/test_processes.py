"""The demo's processes end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from meshlib_control.demo.processes import Command, DemoFailed, ProcessGroup, free_ports, installed, python, relative

SLEEPER = Command([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], {}, "sleeper")
# Ignores SIGTERM, and has a child that its own death does not reach.
STUBBORN = Command(
    [
        sys.executable,
        "-c",
        """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
""",
    ],
    {},
    "stubborn",
)
ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0


def is_alive(pid: int) -> bool:
    """Runs, or nobody has waited for it yet and it is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def all_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + DEADLINE
    while any(map(is_alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_nothing_runs_and_nothing_lies_about_after_the_block() -> None:
    with ProcessGroup() as group:
        pids = [group.start(name, SLEEPER).pid for name in ("a", "b")]
        assert all(map(is_alive, pids))
    assert all_gone(pids)
    assert not group.folder.exists()


@pytest.mark.slow
def test_a_process_that_ignores_sigterm_is_killed_and_its_children_with_it() -> None:
    with ProcessGroup() as group:
        stubborn = group.start("stubborn", STUBBORN)
        child = int(stubborn.first_line(DEADLINE))
        assert is_alive(child)
    assert all_gone([stubborn.pid, child])


def test_when_the_owner_is_killed_all_its_processes_and_its_folder_go() -> None:
    """SIGKILL leaves no time for cleaning up: the keeper does it."""
    script = textwrap.dedent("""
        import sys, time
        from meshlib_control.demo.processes import ProcessGroup
        from tests.integration.test_processes import SLEEPER, STUBBORN
        group = ProcessGroup()
        stubborn = group.start("stubborn", STUBBORN)
        pids = [group.start("a", SLEEPER).pid, stubborn.pid, int(stubborn.first_line(60))]
        print(*pids, group.folder, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None
        *words, folder = owner.stdout.readline().split()
        pids = [int(word) for word in words]
        assert all(map(is_alive, pids))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert all_gone(pids)
    deadline = time.monotonic() + DEADLINE
    while Path(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_process_can_be_stopped_alone() -> None:
    with ProcessGroup() as group:
        first, second = group.start("a", SLEEPER), group.start("b", SLEEPER)
        group.stop(first)
        assert not is_alive(first.pid)
        assert is_alive(second.pid)
        group.check()


def test_a_process_that_ends_by_itself_is_reported_with_its_last_words() -> None:
    dying = Command([sys.executable, "-c", "import sys; sys.exit('no such luck')"], {}, "dying")
    with ProcessGroup() as group:
        running = group.start("dying", dying)
        running.process.wait(DEADLINE)
        with pytest.raises(DemoFailed, match=r"dying ended with 1:\nno such luck"):
            group.check()
        with pytest.raises(DemoFailed, match="no such luck"):
            running.first_line(DEADLINE)


def test_processes_do_not_inherit_another_meshs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_CONTROL", "192.0.2.1:1")
    printing = Command([sys.executable, "-c", "import os; print(sorted(k for k in os.environ if 'MESHLIB' in k))"], {}, "")
    with ProcessGroup() as group:
        running = group.start("printing", printing, environment={"MESHLIB_SERVICE": "reviews"})
        assert running.first_line(DEADLINE) == "['MESHLIB_SERVICE']"


def test_a_command_is_shown_as_people_type_it() -> None:
    command = python("uvicorn", "app:app", "--port", "1", MESHLIB_LABELS="a=b c")
    assert command.shown == f"MESHLIB_LABELS='a=b c' {installed('python')} -m uvicorn app:app --port 1"
    assert command.arguments[0] == sys.executable


def test_a_program_is_called_by_name_only_where_path_leads_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(beside))
    assert installed("python") == "python"
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(beside.parent)
    assert installed("python") == f"{beside.name}/python"
    assert installed("no-such-program") == "no-such-program"


def test_a_path_is_shown_from_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative(str(tmp_path / "a" / "b.yaml")) == "a/b.yaml"
    assert relative("/elsewhere/b.yaml") == "/elsewhere/b.yaml"
    assert relative("--file") == "--file"


def test_free_ports_differ_and_lie_below_those_of_outgoing_connections() -> None:
    ports = free_ports(10)
    assert len(set(ports)) == 10
    lowest = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if lowest.exists() and os.name == "posix":
        assert max(ports) < int(lowest.read_text().split()[0])
