"""What a check found at a place within one document, before it is known where in which file that is.

Checks are generators of problems with paths relative to what they were given; `under` puts a parent in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshlib_control.config.findings import Severity

Path = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


class Problem(NamedTuple):
    """`severity`: None for the usual one of the code."""

    path: Path
    code: str
    message: str
    severity: Severity | None = None


def under(prefix: Path, problems: Iterable[Problem]) -> Iterator[Problem]:
    """The same problems, seen from the parent that `prefix` starts at."""
    for problem in problems:
        yield problem._replace(path=prefix + problem.path)


def render(path: Path) -> str:
    """``spec.http[0].match[1].headers["x.y"]``."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.match(step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f'["{step}"]')
    return "".join(parts)
