"""The gate before everything else on the server's side: a request that two readers could read differently gets 400.

The Python servers differ in what they let through (repeated Host, absolute-form targets, `#`, encoded NUL ...), so the same
table of rules is applied behind each of them, before any policy looks at the request.  RFC 9110 and 9112; Envoy 1.40's
response codes and detail words where it has them.
"""

from __future__ import annotations

import re

from meshlib.model.call import Headers
from meshlib.model.inbound import Refusal, ServerRequest

MAX_HEADERS = 100
MAX_HEADER_BYTES = 60 * 1024
"""Envoy's defaults (``max_headers_count``, ``max_request_headers_kb``)."""

_TOKEN = b"!#$%&'*+-.^_`|~" + bytes(range(0x30, 0x3A)) + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B))
_VALUE = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_METHOD = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~-]{1,64}")  # a token; a lower-case method is one server's upper-case one
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_TARGET_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f-\xff#]")
_ENCODED_CONTROL = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")
_PLAIN_TARGET = bytes(set(range(0x21, 0x7F)) - set(b"#%"))
"""With these alone there is nothing to look for in an origin-form target."""

_DIGITS = re.compile(rb"[0-9]{1,19}")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([/?].*)?", re.IGNORECASE)

_FRAMING = {
    b"host": "duplicate_host_header",
    b"content-length": "contradicting_content_length",
    b"transfer-encoding": "duplicate_transfer_encoding",
}
"""The headers that say where a request goes and ends, and what it is called when they are there twice."""


def check_request(request: ServerRequest) -> Refusal | bytes:
    """A refusal, or the request target in origin form (absolute-form ones are reduced to it)."""
    headers, fields = request.headers, request.fields
    if _METHOD.fullmatch(request.method) is None:
        return _bad("invalid_method")
    if len(headers) > MAX_HEADERS:
        return Refusal(431, "too_many_headers", b"Request Header Fields Too Large")
    if not headers:
        return _bad("missing_host_header")
    names, values = zip(*headers, strict=True)
    joined_names, joined_values = b"".join(names), b"".join(values)
    if len(joined_names) + len(joined_values) > MAX_HEADER_BYTES:
        return Refusal(431, "headers_too_large", b"Request Header Fields Too Large")
    # Deleting all that is allowed and looking for a rest is ten times faster than a regex over the same bytes.
    if joined_names.translate(None, _TOKEN) or b"" in fields:
        return _bad("invalid_header_name")
    if joined_values.translate(None, _VALUE):
        return _bad("invalid_characters")
    # What nearly no request has is looked for before it is looked at.
    if len(fields) < len(names) and (reason := _repeated(headers)):
        return _bad(reason)
    if b"_" in joined_names and _is_ambiguous(fields):
        return _bad("ambiguous_header_name")
    if b"content-length" in fields or b"transfer-encoding" in fields:
        reason = _bad_framing(fields)
        if reason:
            return _bad(reason)
    host = fields.get(b"host")
    if host is None:
        return _bad("missing_host_header")
    if _HOST.fullmatch(host) is None:
        return _bad("invalid_authority")
    target = request.target
    if target[:1] == b"/" and not target.translate(None, _PLAIN_TARGET):
        return target
    return _check_target(request, host)


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


def _is_ambiguous(fields: dict[bytes, bytes]) -> bool:
    # CGI and WSGI turn `-` into `_`: with both spellings present one would shadow the other.
    return any(b"_" in name and name.replace(b"_", b"-") in fields for name in fields)


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


def _check_target(request: ServerRequest, host: bytes) -> Refusal | bytes:
    target = request.target
    if not target.startswith(b"/"):
        if target == b"*" and request.method == "OPTIONS":
            return target
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            return _bad("path_normalization_failed")
        if match[1].lower() != host.lower():
            return _bad("authority_mismatch")
        rest = match[2] or b"/"
        target = rest if rest.startswith(b"/") else b"/" + rest
    if _TARGET_FORBIDDEN.search(target) is not None:
        return _bad("path_normalization_failed")
    if b"%" in target and _ENCODED_CONTROL.search(target.partition(b"?")[0]) is not None:
        return _bad("path_normalization_failed")
    return target
