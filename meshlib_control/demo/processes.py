"""Processes that never outlive the one that started them: they share a process group, and a keeper that ends it."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from meshlib_control.demo import keeper

STOP_TIMEOUT = 8.0  # seconds that a process has to end after SIGTERM


class DemoFailed(Exception):
    """Something that the demo needs did not happen.  Says what, and shows the end of the log where there is one."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to start: `arguments` for the system, `shown` for people, who can run it as it stands in their shell."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    shown: str


@dataclass(slots=True)
class Running:
    """A started process; its output is in `out`, what it says of itself in `log`."""

    name: str
    command: Command
    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def first_line(self, timeout: float) -> str:
        """What it prints first, for instance its addresses.  Raises `DemoFailed` if it ends, or says nothing in time."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            line, newline, _ = self.out.read_text().partition("\n")
            if newline:
                return line
            if self.has_ended:
                raise DemoFailed(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            time.sleep(0.02)
        raise DemoFailed(f"{self.name} printed nothing in {timeout:g} s:\n{self.tail()}")


class ProcessGroup:
    """Processes with a temporary folder, which go together.  Use as a context manager.

    All are in the keeper's process group, so not in the terminal's foreground: Ctrl-C reaches their owner alone, who ends
    them in order.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshlib-"))
        self._running: list[Running] = []
        self._ending: set[int] = set()  # process ids that are awaited
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._keeper.stdout is not None
        self._keeper.stdout.readline()  # it ignores signals from here on

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self, name: str, command: Command, *, stdout: int | None = None, environment: Mapping[str, str] | None = None
    ) -> Running:
        """Start a process, with `environment` besides the command's own.  Output goes to a file unless `stdout` is given."""
        out, log = self.folder / f"{name}.out", self.folder / f"{name}.log"
        with ExitStack() as opened:
            process = subprocess.Popen(
                list(command.arguments),
                env={**_inherited(), **command.environment, **(environment or {})},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout if stdout is not None else opened.enter_context(out.open("wb")),
                stderr=opened.enter_context(log.open("ab")),
                process_group=self._keeper.pid,
            )
        running = Running(name=name, command=command, process=process, out=out, log=log)
        self._running.append(running)
        return running

    def stop(self, running: Running, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal and wait for the end; SIGKILL follows where that takes too long."""
        if not running.has_ended:
            running.process.send_signal(number)
        _wait(running.process, time.monotonic() + STOP_TIMEOUT)
        self._running.remove(running)

    def ended(self, running: Running, *, pause: Callable[[float], None] = time.sleep) -> int:
        """Wait for a process that is to end by itself; its exit code."""
        self._ending.add(running.pid)
        while not running.has_ended:
            pause(0.02)
        self._running.remove(running)
        return running.process.wait()

    def check(self) -> None:
        """Raises `DemoFailed` if a process has ended by itself."""
        for running in self._running:
            if running.has_ended and running.pid not in self._ending:
                raise DemoFailed(f"{running.name} ended with {running.process.returncode}:\n{running.tail()}")

    def close(self) -> None:
        """Stop everything, the newest first asked, and remove the folder.  Idempotent."""
        deadline = time.monotonic() + STOP_TIMEOUT
        for running in reversed(self._running):
            if not running.has_ended:
                running.process.terminate()
        for running in self._running:
            _wait(running.process, deadline)
            if running.process.stdout is not None:
                running.process.stdout.close()
        self._running.clear()
        if self._keeper.poll() is None:
            # The rest of the group, if there is any: workers whose master was killed.
            os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            assert pipe is not None
            pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _inherited() -> dict[str, str]:
    """The environment, less what would make a process part of another mesh."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MESHLIB_", "MESHCTL_"))}


def _wait(process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def python(module: str, *arguments: str, **environment: str) -> Command:
    """`python -m module`, with this interpreter."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return Command(
        arguments=[sys.executable, "-m", module, *arguments],
        environment=environment,
        shown=" ".join([*settings, shlex.join([installed("python"), "-m", module, *arguments])]),
    )


def installed(name: str) -> str:
    """A program of this interpreter's environment as people call it: by its name where PATH leads to it, else by its path."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return relative(str(beside)) if beside.exists() and (found is None or Path(found) != beside) else name


def relative(word: str) -> str:
    """A path below the current folder as it is called from there; anything else as it is."""
    path = Path(word)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else word


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on, below the range from which outgoing connections take theirs."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(range(20000, 32000), 2000):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise DemoFailed("no free ports on 127.0.0.1 between 20000 and 32000")


def program(name: str, unpacked: str) -> Path | None:
    """A program on PATH, or where `make tools` unpacks it in a checkout."""
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    candidate = Path(__file__).resolve().parents[2] / ".tools" / unpacked
    return candidate if candidate.exists() else None
