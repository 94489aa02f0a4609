"""The gate before everything else on the server's side: a request that two readers could read differently gets 400.

The Python servers differ in what they let through (repeated Host, absolute-form targets, `#`, encoded NUL ...), so the same
table of rules is applied behind each of them, before any policy looks at the request.  RFC 9110 and 9112; Envoy 1.40's
response codes and detail words where it has them.
"""

from __future__ import annotations

import re

from meshlib.model.inbound import Refusal, ServerRequest

MAX_HEADERS = 100
MAX_HEADER_BYTES = 60 * 1024
"""Envoy's defaults (``max_headers_count``, ``max_request_headers_kb``)."""

_METHOD = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~-]{1,64}")  # a token; a lower-case method is one server's upper-case one
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_TARGET_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f-\xff#]")
_ENCODED_CONTROL = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")
_VALUE_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME_FORBIDDEN = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_DIGITS = re.compile(rb"[0-9]{1,19}")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([/?].*)?", re.IGNORECASE)


def check_request(request: ServerRequest) -> Refusal | bytes:
    """A refusal, or the request target in origin form (absolute-form ones are reduced to it)."""
    if _METHOD.fullmatch(request.method) is None:
        return _bad("invalid_method")
    headers = request.headers
    if len(headers) > MAX_HEADERS:
        return Refusal(431, "too_many_headers", b"Request Header Fields Too Large")
    host: bytes | None = None
    length: bytes | None = None
    encoding: bytes | None = None
    names = set()
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        names.add(name)
        if name == b"host":
            if host is not None:
                return _bad("duplicate_host_header")
            host = value
        elif name == b"content-length":
            if length is not None and length != value:
                return _bad("contradicting_content_length")
            length = value
        elif name == b"transfer-encoding":
            if encoding is not None:
                return _bad("duplicate_transfer_encoding")
            encoding = value
    if size > MAX_HEADER_BYTES:
        return Refusal(431, "headers_too_large", b"Request Header Fields Too Large")
    reason = _bad_names(names) or _bad_framing(length, encoding)
    if reason:
        return _bad(reason)
    if _VALUE_FORBIDDEN.search(b"".join([value for _, value in headers])) is not None:
        return _bad("invalid_characters")
    if host is None:
        return _bad("missing_host_header")
    if _HOST.fullmatch(host) is None:
        return _bad("invalid_authority")
    return _check_target(request, host)


def _bad(reason: str) -> Refusal:
    return Refusal(400, reason, b"Bad Request")


def _bad_names(names: set[bytes]) -> str:
    joined = b"".join(names)
    if _NAME_FORBIDDEN.search(joined) is not None or b"" in names:
        return "invalid_header_name"
    # CGI and WSGI turn `-` into `_`: with both spellings present one would shadow the other.
    if b"_" in joined and any(b"_" in name and name.replace(b"_", b"-") in names for name in names):
        return "ambiguous_header_name"
    return ""


def _bad_framing(length: bytes | None, encoding: bytes | None) -> str:
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
