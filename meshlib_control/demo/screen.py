"""What people see: lines that stay, and on a terminal a live table below them."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from meshlib_control.demo.tally import Figures

VERSIONS = ("v1", "v2", "v3")
PLAIN_INTERVAL = 2.0  # seconds between lines of figures where there is no table


@dataclass(frozen=True, slots=True)
class Frame:
    """The figures of the moment: over the last `seconds`, by version, and since the start."""

    step: str
    seconds: float
    now: Figures
    versions: Mapping[str, Figures]
    requests: int
    failed: int
    retries: int


@dataclass(frozen=True, slots=True)
class Result:
    """A step that is over.  `found`: all of its requests; `settled`: those after every client had the change."""

    name: str
    title: str
    command: str
    found: Figures
    settled: Figures
    expected: Mapping[str, float] = field(default_factory=dict)
    off: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return not self.off and not self.found.failed


class Screen:
    """Use as a context manager: a live table is taken away again at the end."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, emoji=False, markup=False)
        if not self._console.is_terminal:
            self._console.width = 200  # nobody's terminal is to be fitted
        self._live: Live | None = None
        self._frame: Frame | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=5, transient=True)
            self._live.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        for each in text.split("\n"):
            self._lines(wrapped(each, self._width), style)

    def step(self, number: int, title: str) -> None:
        self.say(f"\n{number}. {title}", "bold")

    def command(self, shown: str) -> None:
        self._lines(folded(shown, self._width), "cyan")

    def tell(self, text: str) -> None:
        self._lines(wrapped(text, self._width, indent=3))

    def quote(self, text: str) -> None:
        """What a program said, or a file says."""
        for each in text.rstrip().splitlines():
            self._lines(wrapped(each, self._width, indent=5, hanging=2), "dim")

    @property
    def _width(self) -> int:
        """Columns; 0 where there is no terminal, and lines may be searched for words."""
        return self._console.width if self._console.is_terminal else 0

    def _lines(self, lines: list[str], style: str = "") -> None:
        for each in lines:
            self._console.print(Text(each, style=style), soft_wrap=True)

    def result(self, result: Result) -> None:
        lines = wrapped(f"=> {outcome(result)}", self._width, indent=3, hanging=3)
        self._lines(lines, "green" if result.is_good else "bold red")

    def show(self, frame: Frame) -> None:
        """The newest figures: into the table, or where there is none as a line now and then."""
        self._frame = frame
        if self._live is None and time.monotonic() - self._last_line >= PLAIN_INTERVAL:
            self._last_line = time.monotonic()
            self.tell(f"   {line(frame)}")

    def summary(self, results: list[Result], *, steps: int, seconds: float) -> None:
        """The last `steps` results and all bad ones, and the sums."""
        table = Table(box=None, header_style="bold")
        columns = [column for column in COLUMNS if self._console.width >= column.width]
        for column in columns:
            table.add_column(column.title, no_wrap=True)
        table.add_column("")
        for result in [r for r in results[:-steps] if not r.is_good] + results[-steps:]:
            verdict = Text("ok", "green") if result.is_good else Text(result.off or "requests failed", "bold red")
            table.add_row(*[column.cell(result) for column in columns], verdict)
        self._console.print("", table)
        for result in results:
            for error, count in result.found.errors.items():
                self.say(f"{count} x in {result.name}: {error}", "red")
        total, failed = sum(r.found.requests for r in results), sum(r.found.failed for r in results)
        retries = sum(r.found.retries for r in results)
        self.say(f"\n{total} requests in {seconds:.0f} s, {failed} failed, {retries} retries.")

    def _table(self) -> RenderableType:
        frame = self._frame
        if frame is None:
            return Text("")
        table = Table("reviews", box=None, header_style="bold", padding=(0, 3, 0, 0))
        table.add_column("requests/s", justify="right")
        table.add_column("share", min_width=26)
        for column in ("p50", "p99", "retries/s"):
            table.add_column(column, justify="right")
        for version in VERSIONS:
            found = frame.versions.get(version, Figures())
            table.add_row(version, *_cells(found, frame.now.split.get(version, 0.0), frame.seconds))
        table.add_row("all", *_cells(frame.now, 1.0, frame.seconds), style="bold")
        failed = Text(f"{frame.failed} failed", style="bold red" if frame.failed else "green")
        totals = Text.assemble(f"{frame.requests} requests, ", failed, f", {frame.retries} retries; Ctrl-C ends")
        return Group("", Text(f"now: {frame.step}", style="bold"), table, totals)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the summary, shown from a `width` of the terminal on."""

    title: str
    width: int
    cell: Callable[[Result], str]


COLUMNS = (
    _Column("step", 0, lambda result: result.name),
    _Column("requests", 0, lambda result: str(result.found.requests)),
    _Column("failed", 0, lambda result: str(result.found.failed)),
    _Column("retries", 100, lambda result: str(result.found.retries)),
    _Column("p50", 100, lambda result: milliseconds(result.found.p50)),
    _Column("p99", 90, lambda result: milliseconds(result.found.p99)),
    _Column("split", 72, lambda result: shares(result.settled.split)),
)


def wrapped(text: str, width: int, *, indent: int = 0, hanging: int = 0) -> list[str]:
    """Lines of at most `width`, if the words allow it; the later ones indented by `hanging` more.  Without a width one line."""
    margin = " " * indent
    if not width:
        return [margin + text]
    leading = text[: len(text) - len(text.lstrip(" "))]
    return textwrap.wrap(
        text,
        width,
        initial_indent=margin,
        subsequent_indent=margin + leading + " " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    ) or [""]


def folded(command: str, width: int) -> list[str]:
    """A command over as many lines as it needs, still to be pasted into a shell."""
    lines = [""]
    # An option stays together with what follows it.
    for word in re.findall(r"(?:--?[a-z-]+ (?!-))?(?:'[^']*'|\S)+", command):
        if width and lines[-1] and len(lines[-1]) + len(word) + len("   $  \\") > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    prompts = ["   $ "] + ["       "] * (len(lines) - 1)
    ends = [" \\"] * (len(lines) - 1) + [""]
    return [prompt + line + end for prompt, line, end in zip(prompts, lines, ends, strict=True)]


def _cells(found: Figures, share: float, seconds: float) -> list[str]:
    bar = "█" * round(20 * share)
    rate, retries = found.requests / seconds, found.retries / seconds
    return [f"{rate:.0f}", f"{share:4.0%} {bar}", milliseconds(found.p50), milliseconds(found.p99), f"{retries:.1f}"]


def line(frame: Frame) -> str:
    """The table's figures in one line."""
    now = frame.now
    rate = f"{now.requests / frame.seconds:.0f} requests/s"
    return f"{rate}, {shares(now.split)}, p50 {milliseconds(now.p50)}, p99 {milliseconds(now.p99)}, {frame.failed} failed"


def outcome(result: Result) -> str:
    """A result in one line."""
    found = result.found
    parts = [f"{found.requests} requests, {found.failed} failed, {found.retries} retries", shares(result.settled.split)]
    parts.append(f"p50 {milliseconds(found.p50)}, p99 {milliseconds(found.p99)}")
    return "; ".join(parts) + (f"; NOT AS EXPECTED: {result.off}" if result.off else "")


def shares(split: Mapping[str, float]) -> str:
    return ", ".join(f"{version} {share:.1%}" for version, share in split.items())


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds else "-"
