"""Leaving: deregister, let callers learn of it, and only then let the server stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

from meshlib import Mesh
from meshlib.lowlevel import ServerRequest
from meshlib.testing import StaticControl
from tests.support.servers import ROOT

DEADLINE = 60.0


class Listening(StaticControl):
    """Tells `heard` of a withdrawal, and waits for it to answer."""

    def __init__(self, heard: Callable[[], object]) -> None:
        super().__init__()
        self._heard = heard
        self.withdrawals = 0

    def withdraw(self) -> None:
        self.withdrawals += 1
        super().withdraw()
        self._heard()


def served_mesh(heard: Callable[[], object] = lambda: None) -> tuple[Mesh, Listening]:
    control = Listening(heard)
    mesh = Mesh(control=control, service="reviews", port=8080, drain_seconds=0.0)
    mesh.serve_started()
    return mesh, control


def request() -> ServerRequest:
    return ServerRequest("GET", b"/", [(b"host", b"reviews")])


def test_requests_in_flight_are_waited_for_after_the_withdrawal() -> None:
    withdrawn, drained = threading.Event(), threading.Event()
    mesh, control = served_mesh(withdrawn.set)
    serving = mesh.serve(request())
    assert not serving.close
    with serving:

        def drain() -> None:
            mesh.drain(DEADLINE)
            drained.set()

        leaving = threading.Thread(target=drain)
        leaving.start()
        assert withdrawn.wait(DEADLINE)
        assert control.announced == []
        assert mesh.draining
        assert mesh.serve(request()).close  # late ones are served, and told to go elsewhere
        assert not drained.is_set()
    assert drained.wait(DEADLINE)
    leaving.join(DEADLINE)
    mesh.close()


def test_a_request_that_does_not_end_is_waited_for_only_so_long() -> None:
    mesh, control = served_mesh()
    with mesh.serve(request()):
        mesh.drain(0.05)
    assert control.withdrawals == 1
    mesh.close()


async def test_draining_is_done_once_and_a_second_caller_waits_for_the_first() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def heard() -> None:
        begun.set()
        assert go_on.wait(DEADLINE)

    mesh, control = served_mesh(heard)
    first = threading.Thread(target=mesh.drain)
    first.start()
    assert begun.wait(DEADLINE)
    second = threading.Thread(target=mesh.drain)
    second.start()
    assert second.is_alive()
    go_on.set()
    first.join(DEADLINE)
    second.join(DEADLINE)
    await mesh.adrain()
    assert control.withdrawals == 1
    mesh.close()


def test_a_process_that_only_calls_has_nothing_to_leave() -> None:
    control = Listening(lambda: None)
    with Mesh(control=control, drain_seconds=3600.0) as mesh:
        mesh.serve_started(8080)
        mesh.drain()
        assert (control.announced, control.withdrawals) == ([], 0)


def test_a_mesh_that_was_never_started_drains_at_once() -> None:
    mesh = Mesh(control=Listening(lambda: None), service="reviews", drain_seconds=3600.0)
    mesh.drain()
    assert mesh.draining


def test_only_the_main_thread_can_be_told_by_signals() -> None:
    mesh = Mesh(control=StaticControl())
    installed: list[bool] = []
    thread = threading.Thread(target=lambda: installed.append(mesh.install_drain_on_sigterm()))
    thread.start()
    thread.join(DEADLINE)
    assert installed == [False]


SCRIPT = """
    import os, signal, sys, threading, time
    from meshlib import Mesh
    from meshlib.testing import StaticControl

    class Control(StaticControl):
        def withdraw(self):
            print("withdrawn", flush=True)
            {withdraw}

    mesh = Mesh(control=Control(), service="reviews", port=8080, drain_seconds=0.2)
    mesh.serve_started()
    {before}
    assert mesh.install_drain_on_sigterm()
    assert mesh.install_drain_on_sigterm()  # twice is once
    print("ready", flush=True)
    began = None
    while True:
        time.sleep(0.01)
        if mesh.draining and began is None:
            began = time.monotonic()
            print("still serving", flush=True)
"""
HANDLER = """
    def stop(number, frame):
        print(f"stopped by {number} after the pause: {time.monotonic() - began >= 0.15}", flush=True)
        os._exit(7)
    signal.signal(signal.SIGTERM, stop)
"""


def told_to_stop(*, before: str = "", withdraw: str = "pass") -> tuple[list[str], int]:
    """What the process said from SIGTERM on, and its exit code."""
    script = textwrap.dedent(SCRIPT).format(before=textwrap.dedent(before).strip(), withdraw=withdraw)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    return said.splitlines(), process.returncode


def test_on_sigterm_the_withdrawal_comes_first_and_the_servers_own_handler_last() -> None:
    said, code = told_to_stop(before=HANDLER)
    assert sorted(said[:2]) == ["still serving", "withdrawn"]  # in either order: the main thread goes on meanwhile
    assert said[2:] == [f"stopped by {signal.SIGTERM:d} after the pause: True"]
    assert code == 7


def test_without_a_handler_the_signal_does_what_it_always_does() -> None:
    said, code = told_to_stop()
    assert "withdrawn" in said
    assert code == -signal.SIGTERM


AT_ONCE = HANDLER.replace("time.monotonic() - began >= 0.15", "None")


def test_the_signal_is_handed_on_even_if_leaving_fails() -> None:
    said, code = told_to_stop(before=AT_ONCE, withdraw="raise RuntimeError('no')")
    assert said[-1].startswith(f"stopped by {signal.SIGTERM:d}")
    assert code == 7


def test_a_second_sigterm_does_not_wait() -> None:
    """Whoever insists gets the server's own handler at once."""
    said, code = told_to_stop(before=AT_ONCE, withdraw="os.kill(os.getpid(), signal.SIGTERM); time.sleep(600)")
    assert "withdrawn" in said
    assert code == 7


def test_a_process_that_ignores_sigterm_goes_on_ignoring_it() -> None:
    alive = "threading.Timer(1.0, os._exit, (3,)).start()"
    said, code = told_to_stop(before=f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {alive}")
    assert "withdrawn" in said
    assert code == 3
