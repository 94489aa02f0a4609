"""The director: starts the fleet, plays the story over it, counts what the load sees, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import FrameType
from typing import IO

from meshlib_control.demo.control import ControlService
from meshlib_control.demo.fleet import Fleet, service_of
from meshlib_control.demo.guarded import set_rules
from meshlib_control.demo.processes import DemoFailed, ProcessGroup
from meshlib_control.demo.scene import Scene, Step
from meshlib_control.demo.screen import VERSIONS, Frame, Result, Screen
from meshlib_control.demo.story import STORY
from meshlib_control.demo.tally import Sample, Tally, off_target

TICK = 0.1  # seconds between looks at what happens
WINDOW = 2.0  # seconds that the live figures cover
STEP_SECONDS = 6.0  # of a step, when the demo runs until Ctrl-C
SHORTEST = 1.0  # seconds of traffic that a step gets however short the demo is to be
CLOSING = 2.0  # seconds that ending takes


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds`: end by itself after about that long; None: go on until Ctrl-C.  `rate`: requests a second."""

    seconds: float | None = None
    report: Path | None = None
    consul: bool = False
    rate: float = 80.0


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or the terminal's end."""


def run(options: Options) -> int:
    """The whole demo; 0 if no request failed and every split was as configured.  Raises `DemoFailed`."""
    begun = time.monotonic()
    interrupted = False
    with ExitStack() as stack:
        stack.enter_context(_interruptible())
        group = stack.enter_context(ProcessGroup())
        screen = stack.enter_context(Screen())
        director = Director(group, screen, options)
        stack.callback(director.control.close)
        stack.callback(_ignore_signals)  # the end is not to be interrupted
        try:
            director.start()
            director.play(ends=begun + options.seconds - CLOSING if options.seconds else None)
        except Interrupted:
            interrupted = True
        finally:
            results = director.results()
            if options.report is not None:
                options.report.write_text(json.dumps(report(results), indent=2) + "\n")
    screen.summary(results, steps=len(STORY), seconds=time.monotonic() - begun)
    if interrupted and options.seconds:
        return 130
    return 0 if all(result.is_good for result in results) else 1


class Director:
    """Plays steps, and keeps the figures of what the load reports meanwhile."""

    def __init__(self, group: ProcessGroup, screen: Screen, options: Options) -> None:
        self.control = ControlService(group, show=self._show, pause=self.pause)
        self._fleet = Fleet(group, self.control, show=self._show)
        self._group = group
        self._screen = screen
        self._options = options
        self._tally = Tally()
        self._lock = threading.Lock()  # over the tally: the load's lines come in on a thread
        self._results: list[Result] = []
        self._played: list[_Played] = []  # the last one or two, whose requests may still be answered

    def start(self) -> None:
        """Everything runs and the load has its first answers."""
        self._screen.say("Starting a control service, seven instances of four services and a load, all on 127.0.0.1 ...")
        if self._options.consul:
            self.control.start_consul()
        self.control.start()
        self.control.save_bundle()
        set_rules(self._scene(0.0, {}, []))
        self._fleet.start()
        self._screen.tell("and so on: each process has got a token of its own, good once, and a certificate for it")
        for name, pid in self._fleet.pids.items():
            self._screen.quote(f"{name:14} pid {pid:<6} spiffe://cluster.local/ns/default/sa/{service_of(name)}")
        threading.Thread(target=self._listen, args=(self._fleet.start_load(self._options.rate),), daemon=True).start()
        deadline = time.monotonic() + 30
        while not (found := self._tally.between(0.0, deadline)).versions:
            if time.monotonic() > deadline:
                raise DemoFailed(f"the load gets no answers: {dict(found.errors)}\n{self._fleet.load_log}")
            self.pause(TICK)
        self._screen.say("\nTo look at it from another terminal, or to repeat what you see:", "bold")
        for variables in (self.control.operator, self.control.workload):
            self._screen.command(f"export {' '.join(f'{name}={value}' for name, value in variables.items())}")

    def play(self, *, ends: float | None) -> None:
        """The story, once until `ends`, or again and again."""
        for number in count(1):
            step = STORY[(number - 1) % len(STORY)]
            left = len(STORY) - number + 1
            seconds = STEP_SECONDS if ends is None else max(SHORTEST, (ends - time.monotonic()) / left)
            self._play(number, step, seconds)
            if ends is not None and left == 1:
                return

    def _play(self, number: int, step: Step, seconds: float) -> None:
        current = _Played(step=step, started=time.monotonic())
        self._close_before(current)
        self._screen.step(number, step.title)
        step.act(self._scene(seconds, current.facts, current.wrong))
        current.settled = time.monotonic()
        self.pause(max(SHORTEST, current.started + seconds - current.settled))
        with self._lock:
            self._screen.result(current.result(self._tally, time.monotonic()))

    def _scene(self, seconds: float, facts: dict[str, object], wrong: list[str]) -> Scene:
        return Scene(
            control=self.control,
            fleet=self._fleet,
            seconds=seconds,
            tell=self._screen.tell,
            quote=self._screen.quote,
            facts=facts,
            wrong=wrong,
        )

    def _close_before(self, current: _Played) -> None:
        """Count the step before the last one: answers to its requests have long come in, so its samples can go."""
        if len(self._played) == 2:
            closed, last = self._played
            with self._lock:
                self._results.append(closed.result(self._tally, last.started))
                self._tally.forget(last.started)
            self._played = [last]
        self._played.append(current)

    def results(self) -> list[Result]:
        """Of every step played.  A step lasts until the next one starts, so each request belongs to one."""
        ends = [played.started for played in self._played[1:]] + [float("inf")]
        with self._lock:
            return self._results + [played.result(self._tally, end) for played, end in zip(self._played, ends, strict=False)]

    def _show(self, command: str) -> None:
        self._screen.command(command)
        if self._played:
            self._played[-1].commands.append(command)

    def pause(self, seconds: float) -> None:
        """Let time pass, and show what happens in it.  Raises `DemoFailed` if a process ends by itself."""
        until = time.monotonic() + seconds
        while True:
            self._group.check()
            if self._played:
                self._screen.show(self._frame())
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(TICK, left))

    def _frame(self) -> Frame:
        now = time.monotonic()
        with self._lock:
            window = now - WINDOW, now
            return Frame(
                step=self._played[-1].step.title,
                seconds=WINDOW,
                now=self._tally.between(*window),
                versions={version: self._tally.between(*window, version=version) for version in VERSIONS},
                requests=self._tally.requests,
                failed=self._tally.failed,
                retries=self._tally.retries,
            )

    def _listen(self, lines: IO[bytes]) -> None:
        for text in lines:
            samples = [Sample(*values) for values in json.loads(text)]
            with self._lock:
                self._tally.add(samples)


@dataclass(slots=True)
class _Played:
    """A step under way.  Times on the monotonic clock; `settled`: every client has the change."""

    step: Step
    started: float
    settled: float = float("inf")
    commands: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def result(self, tally: Tally, end: float) -> Result:
        settled = tally.between(self.settled, end)
        # A step that was interrupted has not come to what it leads to.
        off = off_target(settled, self.step.expected) if self.settled < end else ""
        return Result(
            name=self.step.name,
            title=self.step.title,
            command="; ".join(self.commands),
            found=tally.between(self.started, end),
            settled=settled,
            expected=self.step.expected,
            off="; ".join(filter(None, [*self.wrong, off])),
            facts=self.facts,
        )


def report(results: list[Result]) -> dict[str, object]:
    """What `--json` writes.  Shares are fractions of 1; latencies are seconds."""
    return {
        "steps": [
            {
                "name": result.name,
                "command": result.command,
                "requests": result.found.requests,
                "errors": result.found.failed,
                "split": {version: round(share, 4) for version, share in result.settled.split.items()},
                "expected": dict(result.expected),
                "retries": result.found.retries,
                "p50": round(result.found.p50, 6),
                "p99": round(result.found.p99, 6),
                "facts": dict(result.facts),
                "ok": result.is_good,
            }
            for result in results
        ]
    }


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turns the first signal that wants the end into `Interrupted`, and later ones into nothing."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        _ignore_signals()
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
