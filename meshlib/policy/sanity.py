"""The gate before everything else on the server's side: a request that two readers could read differently gets 400.

The Python servers differ in what they let through (repeated Host, absolute-form targets, `#`, encoded NUL ...), so the same
table of rules is applied behind each of them, before any policy looks at the request.  RFC 9110 and 9112; Envoy 1.40's
response codes and detail words where it has them.
"""

from __future__ import annotations

import re
from functools import lru_cache

from meshlib.model.call import Headers
from meshlib.model.inbound import Refusal, ServerRequest
from meshlib.policy.identity_headers import is_untrusted
from meshlib.policy.paths import has_dot_parameters

MAX_HEADERS = 100
MAX_HEADER_BYTES = 60 * 1024
"""Envoy's defaults (``max_headers_count``, ``max_request_headers_kb``)."""

_TOKEN = b"!#$%&'*+-.^`|~" + bytes(range(0x30, 0x3A)) + bytes(range(0x61, 0x7B))
"""Of a header's name: in lower case, as servers hand them on, and without ``_``, which is ``-`` for CGI, WSGI and Django."""

_GRPC_TOKEN = _TOKEN + b"_"
"""Of metadata's: nothing is CGI there."""

_VALUE = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_METHOD = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~-]{1,64}")  # a token; a lower-case method is one server's upper-case one
_HOST = re.compile(rb"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}|\[[0-9A-Fa-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?")
_TARGET_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f-\xff#]")
_ENCODED_CONTROL = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

_DIGITS = re.compile(rb"[0-9]{1,19}")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([/?].*)?", re.IGNORECASE)

_FRAMING = {
    b"host": "duplicate_host_header",
    b"content-length": "contradicting_content_length",
    b"transfer-encoding": "duplicate_transfer_encoding",
}
"""The headers that say where a request goes and ends, and what it is called when they are there twice."""


def check_headers(request: ServerRequest) -> Refusal | tuple[bool, bytes]:
    """A refusal; or whether all names are ones that clients may send (`identity_headers`), and all values in lines."""
    headers, fields = request.headers, request.fields
    if request.method not in _METHODS and _METHOD.fullmatch(request.method) is None:
        return _bad("invalid_method")
    if len(headers) > MAX_HEADERS:
        return Refusal(431, "too_many_headers", b"Request Header Fields Too Large")
    if not headers:
        return (True, b"") if request.grpc else _bad("missing_host_header")
    repeated = len(fields) < len(headers)
    names = b"\n".join([name for name, _ in headers] if repeated else fields)
    values = b"\n".join([value for _, value in headers])
    breaks = len(headers) - 1
    if len(names) + len(values) - 2 * breaks > MAX_HEADER_BYTES:
        return Refusal(431, "headers_too_large", b"Request Header Fields Too Large")
    look = _look_at_names if len(names) < _REMEMBERED else _look_at_names.__wrapped__
    reason, framed, hosted, innocent = look(names, breaks, request.grpc)
    if reason:
        return _bad(reason)
    # Deleting all that is allowed and looking for a rest is ten times faster than a regex over the same bytes.
    if len(values.translate(None, _VALUE)) > breaks:
        return _bad("invalid_characters")
    # What nearly no request has is looked for before it is looked at.
    if repeated and (reason := _repeated(headers)):
        return _bad(reason)
    if framed and (reason := _bad_framing(fields)):
        return _bad(reason)
    if not hosted and not request.grpc:
        return _bad("missing_host_header")
    return innocent, values


@lru_cache(maxsize=512)
def _look_at_names(names: bytes, breaks: int, grpc: bool) -> tuple[str, bool, bool, bool]:
    """What is wrong with the names, given in lines; are there some about framing; is there a host; are all of them innocent?"""
    found = names.split(b"\n")
    if len(found) != breaks + 1 or b"" in found or names.translate(None, (_GRPC_TOKEN if grpc else _TOKEN) + b"\n"):
        return "underscore_in_header_name" if b"_" in names else "invalid_header_name", False, False, False
    framed = b"content-length" in found or b"transfer-encoding" in found
    return "", framed, b"host" in found, not any(map(is_untrusted, found))


_REMEMBERED = 1024
"""Bytes of names that are worth remembering: a client sends the same ones with each of its requests."""


def trimmed(request: ServerRequest) -> tuple[ServerRequest, dict[bytes, bytes | None]]:
    """The request without white space around its values, where some servers leave it (RFC 9112 section 5.1), and what that
    changes for the application: one line for each name.
    """
    headers = [(name, value.strip(b" \t")) for name, value in request.headers]
    untrimmed = {name for (name, value), (_, kept) in zip(request.headers, headers, strict=True) if value != kept}
    changes: dict[bytes, bytes | None] = {}
    for name in untrimmed:
        separator = b"; " if name == b"cookie" else b", "  # RFC 9110 section 5.3, RFC 9113 section 8.2.3
        changes[name] = separator.join(value for other, value in headers if other == name)
    return request.with_headers(headers), changes


def _bad(reason: str) -> Refusal:
    return Refusal(400, reason, b"Bad Request")


def _repeated(headers: Headers) -> str:
    framing: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _FRAMING:
            if name in framing and (name != b"content-length" or framing[name] != value):
                return _FRAMING[name]
            framing[name] = value
    return ""


def _bad_framing(fields: dict[bytes, bytes]) -> str:
    length, encoding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if encoding is not None:
        if length is not None:
            return "content_length_and_chunked_not_allowed"
        if encoding.strip().lower() != b"chunked":
            return "invalid_transfer_encoding"
    elif length is not None and _DIGITS.fullmatch(length) is None:
        return "invalid_content_length"
    return ""


@lru_cache(maxsize=256)
def authorities(host: bytes) -> tuple[str, str] | None:
    """A Host header's canonical form, with and without its port: lower case, no trailing dot.  None: it is no host."""
    if _HOST.fullmatch(host) is None:
        return None
    text = host.decode("ascii").lower()
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, ""
    name = name.removesuffix(".")
    return (f"{name}:{port}" if port else name), name


def origin_form(request: ServerRequest) -> Refusal | bytes:
    """A refusal, or the target in origin form: an absolute one is reduced to it, if it names the same host as the header."""
    target = request.target
    if target.startswith(b"/"):
        return target
    if target == b"*" and request.method == "OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return _bad("connect_not_supported" if request.method == "CONNECT" else "path_normalization_failed")
    if authorities(match[1]) != authorities(request.fields[b"host"]):
        return _bad("authority_mismatch")
    rest = match[2] or b"/"
    return rest if rest.startswith(b"/") else b"/" + rest


def check_target(target: bytes) -> Refusal | None:
    """What is refused whatever the mode of normalization.  `target` in origin form."""
    if _TARGET_FORBIDDEN.search(target) is not None:
        return _bad("path_normalization_failed")
    path = target.partition(b"?")[0]
    if b"%" in path:
        if _ENCODED_CONTROL.search(path) is not None:
            return _bad("path_normalization_failed")
        if _BROKEN_ESCAPE.search(path) is not None:
            return _bad("invalid_percent_encoding")
    if (b";" in path or b"%3" in path) and has_dot_parameters(path):
        return _bad("ambiguous_dot_segment")
    return None
