"""Replacements of RE2 expressions, such as /items/ and a group's number."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)


def parse_replacement(replacement: str, groups: int) -> tuple[bytes | int, ...]:
    r"""Literal text and numbers of groups (``\0`` all of the match, ``\\`` a backslash).

    Raises ValueError for another escape, and for a group that the expression does not have.
    """
    pieces: list[bytes | int] = []
    done = 0
    for escape in _ESCAPE.finditer(replacement):
        pieces.append(replacement[done : escape.start()].encode("utf-8"))
        name = escape[1]
        if name == "\\":
            pieces.append(b"\\")
        elif not (name.isascii() and name.isdigit()):
            raise ValueError(f"{replacement!r}: after a backslash comes the number of a group, or another backslash")
        elif int(name) > groups:
            raise ValueError(f"{replacement!r}: there is no group {name}, the expression has {groups}")
        else:
            pieces.append(int(name))
        done = escape.end()
    pieces.append(replacement[done:].encode("utf-8"))
    return tuple(piece for piece in pieces if piece != b"")
