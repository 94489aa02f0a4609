"""What a step of the story works on, and how it says what happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshlib_control.demo.control import ControlService
from meshlib_control.demo.fleet import Fleet

FILES = Path(__file__).parent / "bookinfo"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scene:
    """`seconds`: that the step lasts; `tell`: says what happened; `quote`: shows what a program has said, line by line.

    `facts` go into the report; `wrong`: in words, what is not as it should be.
    """

    control: ControlService
    fleet: Fleet
    seconds: float
    tell: Tell
    quote: Tell
    facts: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def change(self, *words: str) -> None:
        """Run a meshctl command that changes the configuration, and say what it changed."""
        applied = self.control.change(*words)
        changes = ", ".join(f"{change.resource} {change.action}" for change in applied.changes)
        self.tell(f"{changes}: every client has revision {applied.revision}")

    def apply(self, file: str) -> None:
        self.change("apply", "-f", str(FILES / file), "-m", file.removesuffix(".yaml"))

    def read(self, file: str) -> None:
        """Show a file of the application."""
        self.quote((FILES / file).read_text())

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)


@dataclass(frozen=True, slots=True)
class Step:
    """`expected`: the share of each version once every client has what `act` did; empty: any."""

    name: str
    title: str
    act: Callable[[Scene], None]
    expected: Mapping[str, float] = field(default_factory=dict)
