"""Configuration from files beside the store (``--config``): read at the start and again whenever a file changes.

A change with errors is not taken: what was read last stays, and the status says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from meshlib_control.config import REFUSES, ConfigResource, Finding, Severity, load
from meshlib_control.errors import ControlServiceError
from meshlib_control.files import FileError, expand, read_files

Signature = tuple[tuple[str, int, int, int], ...]


class StaticError(ControlServiceError):
    """Files cannot be used as configuration.  `findings`: every error, if it is about their content."""

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__("\n".join([message, *map(str, findings)]))
        self.findings = tuple(findings)


class StaticConfig:
    """`problem`: why the files as they are now are not in use; empty when they are."""

    def __init__(self, paths: Sequence[Path], *, interval: float) -> None:
        self._paths = tuple(paths)
        self._interval = interval
        self._signature: Signature = ()
        self.problem = ""
        self.resources: tuple[ConfigResource, ...] = ()

    def read(self) -> None:
        """Take the files as they are.  Raises `StaticError`, and keeps what was there."""
        signature = _signature(self._paths)
        try:
            texts = read_files(self._paths, recursive=True)
        except FileError as error:
            raise StaticError(str(error)) from error
        resources, findings = load(texts)
        errors = [finding for finding in findings if finding.severity is Severity.ERROR and finding.code in REFUSES]
        self._signature = signature
        if errors:
            raise StaticError(f"{len(errors)} error(s) in the files of --config", errors)
        self.resources = tuple(resources)
        self.problem = ""

    async def watch(self) -> AsyncIterator[tuple[ConfigResource, ...]]:
        """The resources after each change of the files.  Never ends, unless there is nothing to watch."""
        while self._paths:
            await asyncio.sleep(self._interval)
            if await asyncio.to_thread(_signature, self._paths) == self._signature:
                continue
            try:
                await asyncio.to_thread(self.read)
            except StaticError as error:
                self.problem = str(error)
                continue
            yield self.resources


def _signature(paths: Sequence[Path]) -> Signature:
    """Changes when a file is written, replaced, added or removed."""
    found = []
    for path in expand(paths, recursive=True):
        try:
            stat = path.stat()
        except OSError:
            found.append((str(path), 0, 0, 0))
            continue
        found.append((str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)
