"""What `-f` names, read."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from meshlib_control.cli.failures import USAGE, Failure
from meshlib_control.files import FileError, read_files

STDIN = Path("-")


def read_inputs(paths: Iterable[Path], *, recursive: bool = False) -> list[tuple[str, str]]:
    """(name, text) of each file, in order; ``-`` is standard input.  Raises `Failure`."""
    texts: list[tuple[str, str]] = []
    for path in paths:
        if path == STDIN:
            texts.append(("<stdin>", _standard_input()))
            continue
        try:
            found = read_files([path], recursive=recursive)
        except FileError as error:
            raise Failure("cannot read the configuration", why=str(error), exit_code=USAGE) from error
        if not found:
            raise Failure(f"no YAML or JSON files in {path}", next_step="-R reads folders below it too", exit_code=USAGE)
        texts.extend(found)
    return texts


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise Failure(
            "cannot read the configuration", why=f"standard input is not UTF-8 text ({error})", exit_code=USAGE
        ) from error
