"""The one canonical form of a path, in the four modes of Istio's ``MeshConfig.pathNormalization``, as Envoy 1.40 makes it.

In the order of Envoy's connection manager: the fragment goes (Istio's proxies strip it), encoded slashes and backslashes are
decoded (``path_with_escaped_slashes_action``), the parameters of dot segments (``..;x``) go, the path is canonicalized
(``normalize_path``, whose rules are those of Chromium's URL library), runs of slashes become one (``merge_slashes``).  The
query is never touched.  Nothing is decoded twice: what a percent-escape hides stays hidden, unless it hides a letter, a digit
or one of ``-._~``, which mean the same with and without it (RFC 3986 section 6.2.2.2).
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from meshlib.model.inbound import Readings
from meshlib.model.listener import PathNormalization

_NONE, _MERGE = PathNormalization.NONE, PathNormalization.MERGE_SLASHES
_DECODE = PathNormalization.DECODE_AND_MERGE_SLASHES

PLAIN = bytes(set(range(0x21, 0x7F)) - set(b'#%\\"<>^`{|}'))
"""A target of these alone, with neither ``//`` nor ``/.`` in it, is canonical in every mode and has one reading."""

SEGMENTS = re.compile(rb"/[/.]")  # faster than `in`, which tries what it looks for as a number first
_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f-\xff]")
_SLASH = re.compile(rb"%2[Ff]")
_BACKSLASH = re.compile(rb"%5[Cc]")
_DOT_PARAMETERS = re.compile(rb"(/\.\.?);[^/]*")
_RUN = re.compile(rb"//+")
_ODD = re.compile(
    rb"""[\\"<>^`{|}] | /\. |
    %(?: 2[DdEe] | 3[0-9] | [46][1-9A-Fa-f] | [57][0-9Aa] | 5[Ff] | 7[Ee] | 00 | (?![0-9A-Fa-f]{2}) )""",
    re.VERBOSE,
)
"""What canonicalization would change or refuse: without any of it, a path is returned as it is."""

_PIECE = re.compile(rb"[^%.\\\"<>^`{|}]+|.", re.DOTALL)
_ESCAPED = {byte: b"%%%02X" % byte for byte in b'"<>^`{|}'}
_UNRESERVED = frozenset(b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_HEX = frozenset(b"0123456789ABCDEFabcdef")
_SLASHES = frozenset(b"/\\")
_LEFT, _PERCENT, _DOT = ord("/"), ord("%"), ord(".")


def is_plain(target: bytes) -> bool:
    """Whether a target in origin form is its own canonical form, whatever the mode."""
    return target[:1] == b"/" and not target.translate(None, PLAIN) and SEGMENTS.search(target) is None


def canonical_target(target: bytes, mode: PathNormalization) -> bytes | None:
    """Path and query of a request in origin form, the path canonical; None for what Envoy answers with 400.

    Never raises, whatever the bytes.
    """
    if is_plain(target):
        return target
    if target[:1] != b"/" or _FORBIDDEN.search(target) is not None:
        return None
    target = target.partition(b"#")[0]
    if mode is _NONE:
        return target
    path, mark, query = target.partition(b"?")
    canonical = _normalized(path, mode)
    return None if canonical is None else canonical + mark + query


def canonical_text(target: str, mode: PathNormalization) -> str | None:
    """The same for a target that is text, on the client's side.  What has no path (``*``) is left alone."""
    raw = target.encode("utf-8", "replace")
    if raw[:1] != b"/" or (not raw.translate(None, PLAIN) and SEGMENTS.search(raw) is None):  # `is_plain`, for every call
        return target
    canonical = canonical_target(raw, mode)
    return None if canonical is None else canonical.decode("ascii")


def _normalized(path: bytes, mode: PathNormalization) -> bytes | None:
    if mode is _DECODE and b"%" in path:
        path = _BACKSLASH.sub(rb"\\", _SLASH.sub(b"/", path))
    if b";" in path:
        path = _DOT_PARAMETERS.sub(rb"\1", path)
    if _ODD.search(path) is not None:
        canonical = _Canonicalizer(path).run()
        if canonical is None:
            return None
        path = canonical
    if (mode is _MERGE or mode is _DECODE) and b"//" in path:
        path = _merged(path)
    return path


def _merged(path: bytes) -> bytes:
    merged = _RUN.sub(b"/", path)
    return merged if merged != b"/" else b"//"  # Envoy joins no segments at all between its first and its last slash


class _Canonicalizer:
    """Chromium's ``CanonicalizePath``: one pass over the path, piece by piece."""

    __slots__ = ("_broken", "_out", "_path")

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._out = bytearray()
        self._broken = -(1 << 30)  # where in the output the last "%" stands that begins no escape

    def run(self) -> bytes | None:
        """None: there is an encoded NUL in it."""
        path, out, at = self._path, self._out, 0
        while at < len(path):
            byte = path[at]
            if byte == _PERCENT and not self._escape_at(at):
                self._broken = len(out)
                out.append(byte)
                at += 1
            elif length := self._dot(at):
                at += self._after_dot(at, length)
            elif byte == _PERCENT:
                value = int(path[at + 1 : at + 3], 16)
                if value == 0:
                    return None
                at += 3
                if value not in _UNRESERVED:
                    out += path[at - 3 : at]
                    continue
                out.append(value)
                if (
                    self._broken >= len(out) - 3 and out[self._broken : self._broken + 1] == b"%"
                ):  # steps up may have cut it off
                    self._mend(at)
            else:
                piece = _PIECE.match(path, at)
                assert piece is not None
                out += b"/" if byte == 0x5C else _ESCAPED.get(byte, piece[0])
                at = piece.end()
        return bytes(out)

    def _escape_at(self, at: int) -> bool:
        digits = self._path[at + 1 : at + 3]
        return len(digits) == 2 and _HEX.issuperset(digits)

    def _dot(self, at: int) -> int:
        """Length of the dot that stands here, as itself or encoded; 0 if there is none."""
        if self._path[at : at + 1] == b".":
            return 1
        return 3 if self._path[at : at + 3] in (b"%2e", b"%2E") else 0

    def _after_dot(self, at: int, length: int) -> int:
        """Resolve or copy the dot at `at`; how much of the path that has dealt with."""
        path, out = self._path, self._out
        if out[-1:] == b"/":
            end = at + length
            if end == len(path) or path[end] in _SLASHES:
                return length + 1
            second = self._dot(end)
            after = end + second
            if second and (after == len(path) or path[after] in _SLASHES):
                if len(out) > 1:
                    del out[out.rfind(b"/", 0, len(out) - 1) + 1 :]
                return length + second + 1
        out.append(_DOT)
        return length

    def _mend(self, at: int) -> None:
        """What has just been decoded may complete a "%" that began no escape: it becomes ``%25``, so that it never does."""
        out, broken = self._out, self._broken
        last = out[-1]
        lookahead = broken == len(out) - 2
        if lookahead:
            if at >= len(self._path) or self._path[at] >= 0x80:
                return
            out.append(self._path[at])
        if _HEX.issuperset(out[broken + 1 : broken + 3]) and len(out) >= broken + 3:
            if not lookahead:
                out.append(out[broken + 1])
            out[broken + 1 : broken + 3] = b"25"
            out.append(last)
        elif lookahead:
            del out[-1]


# --- what a path leaves open

_LOOSE = re.compile(rb"[%\\]|//|/\.")
_SEPARATOR = rb"(?:[/\\]|%2[Ff]|%5[Cc])"
_DOTS = rb"(?:\.|%2[Ee]){1,2}"
_HIDDEN_DOTS = re.compile(_SEPARATOR + _DOTS + rb"(?:" + _SEPARATOR + rb"|\Z)")
_DOTS_WITH_PARAMETERS = re.compile(_SEPARATOR + _DOTS + rb"(?:;|%3[Bb])")


def has_dot_segment(path: bytes) -> bool:
    """Whether somebody who takes encoded slashes and backslashes for slashes sees a dot segment in it."""
    return _HIDDEN_DOTS.search(path) is not None


def has_dot_parameters(path: bytes) -> bool:
    """Whether there is a dot segment with parameters (``..;x``): a step up for some, a name for others (CVE-2026-73551)."""
    return _DOTS_WITH_PARAMETERS.search(path) is not None


def readings_of(path: bytes, origin: bytes) -> Readings | None:
    """How else a canonical path, which came as `origin`, can be read; None when there is no other way."""
    if _LOOSE.search(origin) is None:
        return None
    folded = _RUN.sub(b"/", _normalized(path, _DECODE) or path)
    others = {folded}
    if len(folded) > 1 and folded.endswith(b"/") and not origin.endswith(folded[-2:]):
        others.add(folded[:-1])  # "/admin//": of the slashes at the end, one at least is meant to be none
    others.discard(path)
    decoded = unquote_to_bytes(folded)
    if not others and decoded == path:
        return None
    return Readings(tuple(sorted(other.decode("latin-1") for other in others)), decoded.decode("latin-1"))
