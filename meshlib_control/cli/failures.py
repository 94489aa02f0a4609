"""How a command ends when it cannot do what was asked: an exit code, and what, where, why, next on stderr."""

from __future__ import annotations

from typing import IO, Any, Final

import click

from meshlib_control.cli.output import harmless

OK: Final = 0
FAILED: Final = 1  # findings, differences, not found, refused
USAGE: Final = 2
UNREACHABLE: Final = 3
CONFLICT: Final = 4
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count


class Failure(click.ClickException):
    """Shown as one paragraph; `next_step` is a command or an action."""

    exit_code = FAILED

    def __init__(self, what: str, *, why: str = "", next_step: str = "", exit_code: int = FAILED) -> None:
        super().__init__(what)
        self.why = why
        self.next_step = next_step
        self.exit_code = exit_code  # type: ignore[misc]  # click declares a class variable, and reads the instance

    def show(self, file: IO[Any] | None = None) -> None:
        said = harmless(f"error: {self.message}" + (f": {self.why}" if self.why else ""))
        click.echo(said, file=file, err=file is None)
        if self.next_step:
            click.echo(f"  next: {harmless(self.next_step)}", file=file, err=file is None)
