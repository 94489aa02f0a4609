"""Configuration files as texts with names: what `meshctl -f` and `meshctl serve --config` take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from meshlib_control.errors import ControlServiceError

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
MAX_BYTES = 4 << 20  # of one file


class FileError(ControlServiceError):
    """A file cannot be read; the message says which, and why."""


def read_files(paths: Iterable[Path], *, recursive: bool = False) -> list[tuple[str, str]]:
    """(name, text) of every file, folders replaced by the YAML and JSON files in them, in order of name."""
    return [(str(path), read_file(path)) for path in expand(paths, recursive=recursive)]


def expand(paths: Iterable[Path], *, recursive: bool = False) -> Iterator[Path]:
    """The files that `paths` stand for.  A file that is named itself may have any suffix.  Hidden files are passed over."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = path.rglob("*") if recursive else path.iterdir()
        for child in sorted(found):
            hidden = any(part.startswith(".") for part in child.relative_to(path).parts)
            if child.suffix in SUFFIXES and not hidden and child.is_file():
                yield child


def read_file(path: Path) -> str:
    """UTF-8 text.  Raises `FileError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise FileError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no configuration is")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 text (byte {error.start})") from error
