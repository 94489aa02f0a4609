"""Requests of the REST API as values: bodies and query parameters, or the problem with them."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from meshlib_control.admin import views
from meshlib_control.admin.guard import YAML
from meshlib_control.admin.problems import NO_STORE, Problem

T = TypeVar("T")

MAX_BODY = 8 << 20  # bytes; far beyond any configuration that people write


async def body(request: Request, wanted: type[T]) -> T:
    """The JSON body.  Raises `Problem`."""
    return _decoded(await _read(request), wanted)


async def files(request: Request) -> views.Files:
    """Configuration in any of three forms: `Files` as JSON, one YAML text, or resources as plain JSON.  Raises `Problem`."""
    raw = await _read(request)
    is_yaml = request.headers["content-type"].partition(";")[0].strip().lower() in YAML
    if not is_yaml and _is_envelope(raw):
        return _decoded(raw, views.Files)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(f"not UTF-8 text (byte {error.start})") from error
    # JSON is YAML: one reader for both.
    return views.Files(
        files=[views.File(name="<request>", text=text)],
        namespace=request.query_params.get("namespace", "default"),
        message=request.query_params.get("message", ""),
    )


def flag(request: Request, name: str) -> bool:
    """``?dry_run=true``; absent is false.  Raises `Problem`."""
    text = request.query_params.get(name, "false").lower()
    if text in ("true", "1", ""):
        return True
    if text in ("false", "0"):
        return False
    raise _bad_parameter(name, text, "true or false")


def number(request: Request, name: str, *, default: int | None = None) -> int | None:
    """``?expect=7``.  Raises `Problem`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise _bad_parameter(name, text, "a number from 0")
    return int(text)


def answer(document: object, *, status: int = 200) -> Response:
    """`document` as JSON."""
    return Response(msgspec.json.encode(document), status_code=status, media_type="application/json", headers=NO_STORE)


async def _read(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise Problem(
                413,
                "the body is too large",
                where="the request body",
                why=f"more than {MAX_BODY >> 20} MiB",
                next_step="Apply fewer files at a time.",
            )
        parts.append(part)
    return b"".join(parts)


def _decoded(raw: bytes, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(str(error)) from error


def _is_envelope(raw: bytes) -> bool:
    """Does this have `files`, rather than `kind` or `items`, at its top?"""
    try:
        top = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return "files" in top and "kind" not in top


def _unreadable(why: str) -> Problem:
    return Problem(
        400, "the body cannot be read", where="the request body", why=why, next_step="Compare with docs/configuration.md."
    )


def _bad_parameter(name: str, text: str, expected: str) -> Problem:
    return Problem(
        400, f"{name}={text!r} cannot be read", where="the query string", why=f"expected {expected}", next_step="Correct it."
    )
