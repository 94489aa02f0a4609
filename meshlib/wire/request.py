"""Request heads and chunks, as bytes.

The one rule of this file: no byte of the caller's gets onto the wire before it was checked, so that nobody can end a line
or a head early (CR, LF, NUL), or make two parties see two different body lengths (RFC 9112 sections 5.1, 5.5, 6.3, 11.2).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from meshlib.errors import RequestError
from meshlib.model.call import Headers

CHUNKED: Final = b"transfer-encoding: chunked\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(r"[!\"$-~]+")  # visible ASCII without "#": a fragment never goes on the wire
_AUTHORITY: Final = re.compile(r"[!$&'()*+,;=:\[\]%._~0-9A-Za-z-]*")  # RFC 3986 host and port, without user info
_FORBIDDEN_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")

# Headers that take part in framing, and the only ones that may not be passed through as they come.
_PLAIN, _CONNECTION, _HOST, _LENGTH, _CODING, _EXPECT = range(6)
_FRAMING: Final = {
    b"connection": _CONNECTION,
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"expect": _EXPECT,
}
_BODY_EXPECTED: Final = frozenset({"POST", "PUT", "PATCH"})  # RFC 9110 section 8.6: these say so when they are empty

# Checked lines by (name, value): a process sends the same few over and over.  Only what takes no part in framing is kept, and
# neither long values, which rarely repeat, nor secrets, which shall not outlive their call here.
_KEPT: Final[dict[tuple[bytes, bytes], bytes]] = {}
_MOST_KEPT: Final = 1024
_LONGEST_KEPT: Final = 96
_SECRET: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})


def encode_head(method: str, target: str, headers: Headers, *, authority: str, body_length: int | None = 0) -> bytes:
    """The request line and all header lines, with the empty line at their end.

    `target` goes on the wire as it is.  `authority` becomes ``host`` unless the caller's headers have one.  `body_length`:
    bytes of the body; 0 for none; None if only its end will tell, which makes it chunked unless the caller's own
    ``content-length`` announces it.

    Raises RequestError: something here cannot be sent, or contradicts itself.
    """
    lines: list[bytes] = [*map(_KEPT.get, headers)]  # type: ignore[list-item]  # those that are None are filled in below
    host, length, coding = _encode_missing(headers, lines) if None in lines else _NOTHING_SAID
    before, after, after_with_host = _around_target(method, "" if host else authority)
    if not _TARGET.fullmatch(target):
        raise RequestError(f"request target {target!r} must be visible ASCII without '#'; percent-encode everything else")
    if coding:
        if body_length is not None or length is not None:
            raise RequestError("transfer-encoding contradicts a known body length; leave one of them out")
    elif length is not None:
        if body_length is not None and body_length != length:
            raise RequestError(f"content-length says {length} bytes, but the body has {body_length}")
    elif body_length is None:
        lines.append(CHUNKED)
    elif body_length or method in _BODY_EXPECTED:
        lines.append(b"content-length: %d\r\n" % body_length)
    lines.append(b"\r\n")
    return b"".join((before, target.encode(), after if host else after_with_host, *lines))


def encode_chunk(data: bytes | memoryview) -> bytes:
    """One chunk of a chunked body.  Empty data would be the end of the body, so it gives nothing."""
    size = len(data)
    return b"".join((b"%x\r\n" % size, data, b"\r\n")) if size else b""


def announced_length(head: bytes) -> int | None:
    """How many body bytes an encoded head announces; None: chunked."""
    found = re.search(rb"\r\ncontent-length: ([0-9]+)\r\n", head, re.IGNORECASE)
    if found:
        return int(found[1])
    return None if re.search(rb"\r\ntransfer-encoding: chunked\r\n", head, re.IGNORECASE) else 0


def expects_continue(head: bytes) -> bool:
    """Does an encoded head ask for a 100 before its body is sent?"""
    return b"100-continue" in head and re.search(rb"\r\nexpect: 100-continue\r\n", head, re.IGNORECASE) is not None


def asks_to_close(head: bytes) -> bool:
    """Does an encoded head end the connection after its response?"""
    # Almost no head has the word at all, and this runs for every request.
    return b"close" in head and re.search(rb"\r\nconnection:[^\r]*\bclose\b", head, re.IGNORECASE) is not None


@lru_cache(maxsize=512)
def _around_target(method: str, authority: str) -> tuple[bytes, bytes, bytes]:
    """What stands before the target, and after it: without and with a host line."""
    if not _METHOD.fullmatch(method):
        raise RequestError(f"method {method!r} is not a token (RFC 9110 section 9.1)")
    if method == "CONNECT":
        raise RequestError("method 'CONNECT' opens a tunnel, which this engine does not do")
    if not _AUTHORITY.fullmatch(authority):
        raise RequestError(f"authority {authority!r} is not a host and port")
    return f"{method} ".encode(), b" HTTP/1.1\r\n", f" HTTP/1.1\r\nhost: {authority}\r\n".encode()


_NOTHING_SAID: Final = (False, None, False)


def _encode_missing(headers: Headers, lines: list[bytes]) -> tuple[bool, int | None, bool]:
    """Fill the lines that are None; returns what they say of framing: a host?, the content-length, chunked?"""
    host = coding = False
    length: int | None = None
    for index, (name, value) in enumerate(headers):
        if lines[index] is not None:
            continue
        line, kind = _encode_line(name, value)
        lines[index] = line
        if kind <= _CONNECTION:
            if len(value) <= _LONGEST_KEPT and name.lower() not in _SECRET:
                if len(_KEPT) >= _MOST_KEPT:
                    _KEPT.clear()
                _KEPT[name, value] = line
        elif kind == _HOST:
            if host:
                raise RequestError("more than one host header")
            host = True
        elif kind == _LENGTH:
            if length is not None:
                raise RequestError("more than one content-length header")
            length = int(line[16:])
        elif kind == _CODING:
            if coding:
                raise RequestError("more than one transfer-encoding header")
            coding = True
    return host, length, coding


def _encode_line(name: bytes, value: bytes) -> tuple[bytes, int]:
    """A checked ``name: value`` line and what it means for framing."""
    if not _TOKEN.fullmatch(name):
        raise RequestError(f"header name {name!r} is not a token (RFC 9110 section 5.1)")
    value = value.strip(b" \t")
    if _FORBIDDEN_IN_VALUE.search(value):
        raise RequestError(
            f"value of header {name.decode('ascii')!r} has a control character; it would not arrive as one value"
        )
    kind = _FRAMING.get(name.lower(), _PLAIN)
    if kind == _LENGTH and not _DIGITS.fullmatch(value):
        raise RequestError(f"content-length {value!r} is not a number")
    if kind == _CODING and value.lower() != b"chunked":
        raise RequestError(f"transfer-encoding {value!r}: only chunked can be sent")
    if kind == _HOST and not _AUTHORITY.fullmatch(value.decode("latin-1")):
        raise RequestError(f"host {value!r} is not a host and port")
    if kind == _EXPECT and value.lower() != b"100-continue":
        raise RequestError(f"expect {value!r}: only 100-continue has a meaning (RFC 9110 section 10.1.1)")
    if kind in (_CONNECTION, _CODING, _EXPECT):
        value = value.lower()  # so that what is looked for in a head later need not care for case
    return b"%b: %b\r\n" % (name, value), kind
