"""F31: a process forks while its control stream is open; parent and child both go on, each with its own."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

from meshlib.model.workload import Workload
from meshlib.policy.backoff import Backoff
from meshlib.runtime import fork
from meshlib.runtime.ads import AdsStream
from meshlib.runtime.snapshots import Reach, SnapshotStore
from tests.support.control_plane import DEADLINE, ControlProcess, until

QUICK = Backoff(initial=0.05, cap=0.2)


@contextmanager
def client(address: str, *authorities: str) -> Iterator[AdsStream]:
    stream = AdsStream(address, Workload(service="caller", instance="c"), SnapshotStore(), rng=Random(1), backoff=QUICK)
    try:
        for authority in authorities:
            stream.request(authority)
        yield stream
    finally:
        stream.close()


def knows(stream: AdsStream, authority: str) -> bool:
    return stream.store.wait(lambda snapshot, _: authority in snapshot.targets, DEADLINE)


def in_child(work: Callable[[], object]) -> object:
    """What `work` returns in a forked child, or an AssertionError with what it raised there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result: tuple[bool, object] = (True, work())
        except BaseException as error:
            result = (False, repr(error))
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        ok, value = pickle.load(pipe)
    os.waitpid(pid, 0)
    assert ok, value
    return value


def test_a_child_forgets_the_stream_and_starts_its_own() -> None:
    with ControlProcess(reviews=[9001], ratings=[9002]) as control, client(control.address, "reviews") as stream:
        assert knows(stream, "reviews")

        def work() -> tuple[str, bool, bool, bool]:
            before = stream.store.control_state.reach.value
            had = "reviews" in stream.store.current.targets
            stream.request("ratings")
            found = knows(stream, "ratings")
            kept = knows(stream, "reviews")
            stream.close()
            return before, had, found, kept

        for _ in range(3):
            assert in_child(work) == ("idle", True, True, True)
        stream.request("ratings")
        assert knows(stream, "ratings")
        assert stream.store.control_state.reach is Reach.CONNECTED


def test_a_child_that_never_calls_starts_nothing() -> None:
    with ControlProcess(reviews=[9001]) as control, client(control.address, "reviews") as stream:
        assert knows(stream, "reviews")
        # Threads of gRPC's own, which its fork handlers may start again, are not Python's.
        assert in_child(threading.active_count) == 1


def test_the_parents_stream_outlives_its_children() -> None:
    with ControlProcess(reviews=[9001]) as control, client(control.address, "reviews") as stream:
        assert knows(stream, "reviews")
        for _ in range(3):
            in_child(lambda: None)
        connected_since = stream.store.control_state.since
        stream.request("reviews.default:80")
        assert knows(stream, "reviews.default:80")
        assert stream.store.control_state.since == connected_since


def test_a_child_has_an_instance_of_its_own() -> None:
    with ControlProcess(reviews=[9001]) as control, client(control.address, "reviews") as stream:
        assert knows(stream, "reviews")

        def work() -> str:
            stream.request("reviews")
            assert stream._driver is not None
            return str(stream._driver._session._node.id)

        assert str(in_child(work)).startswith("c-")
        assert stream._driver is not None
        assert stream._driver._session._node.id == "c"


def test_a_lock_that_another_thread_held_at_the_fork_is_free_in_the_child() -> None:
    store = SnapshotStore()
    with store._lock:
        assert in_child(lambda: store.wait(lambda *_: False, 0.0)) is False


def test_what_cannot_forget_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn:
        def forget(self) -> None:
            raise RuntimeError("never")

    stubborn, store = Stubborn(), SnapshotStore()
    lock = store._lock
    fork.forget_in_child(stubborn)
    fork._after_in_child()
    assert store._lock is not lock
    assert "cannot start anew" in caplog.text


APPLICATION = """
    import os
    from random import Random
    from meshlib.model.workload import Workload
    from meshlib.runtime.ads import AdsStream
    from meshlib.runtime.snapshots import SnapshotStore

    STREAM = AdsStream({address!r}, Workload(instance="web"), SnapshotStore(), rng=Random())
    if {eager}:  # with --preload, this is the master
        STREAM.request("reviews")
        assert STREAM.store.wait(lambda snapshot, _: "reviews" in snapshot.targets, 60)

    def app(environ, start_response):
        STREAM.request("ratings")
        found = STREAM.store.wait(lambda snapshot, _: "ratings" in snapshot.targets, 60)
        start_response("200 OK" if found else "503 Service Unavailable", [])
        return [str(os.getpid()).encode()]
"""


@pytest.mark.parametrize("preload", [False, True], ids=["prefork", "preload"])
@pytest.mark.parametrize("eager", [False, True], ids=["lazy", "eager"])
def test_gunicorn_workers_each_have_a_stream(tmp_path: Path, *, preload: bool, eager: bool) -> None:
    with ControlProcess(reviews=[9001], ratings=[9002]) as control:
        (tmp_path / "web.py").write_text(textwrap.dedent(APPLICATION.format(address=control.address, eager=eager)))
        address = tmp_path / "socket"
        command = [sys.executable, "-m", "gunicorn", "web:app", "--workers", "3", "--bind", f"unix:{address}"]
        command += ["--chdir", str(tmp_path), "--pythonpath", str(Path.cwd()), *(["--preload"] if preload else [])]
        log = tmp_path / "log"
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as server:
            try:
                until(lambda: address.exists() or server.poll() is not None, "gunicorn listens")
                assert workers_that_answer(address, 3), log.read_text()
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(DEADLINE)


def workers_that_answer(address: Path, workers: int) -> bool:
    """Every worker has answered from its own stream; fails on the first that cannot."""
    seen: set[str] = set()
    deadline = time.monotonic() + DEADLINE
    while len(seen) < workers and time.monotonic() < deadline:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(address)), timeout=DEADLINE) as http:
            response = http.get("http://web/")
            if response.status_code != 200:
                return False
            seen.add(response.text)
    return len(seen) == workers
