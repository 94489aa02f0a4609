"""Keeps web pages out: a browser on this machine can reach loopback too, and whatever it runs must not reconfigure the mesh.

Until there is authentication, these three rules are the whole protection:

* ``Host`` must be an IP literal, ``localhost`` or a name that was allowed: a page at evil.example that rebinds its own name to
  127.0.0.1 still sends ``Host: evil.example``.
* A request with ``Origin`` (or ``Sec-Fetch-Site``) of another site is refused: forms and ``fetch(mode="no-cors")`` carry it.
* A body must have a content type that no HTML form can send, so that browsers ask first (preflight), and we never answer that.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from meshlib_control.admin.problems import Problem

JSON = "application/json"
YAML = ("application/yaml", "application/x-yaml")
SAFE_METHODS = frozenset({"GET", "HEAD"})


class BrowserGuard:
    """Pure ASGI middleware.  `allowed_hosts`: names, lower case, that people reach the service by."""

    def __init__(self, app: ASGIApp, allowed_hosts: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.allowed_hosts = allowed_hosts | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := refusal(scope, self.allowed_hosts)) is not None:
            await problem.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)


def refusal(scope: Scope, allowed_hosts: frozenset[str]) -> Problem | None:
    """Why this request may not go on, if so."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    host = headers.get("host", "")
    if not _host_allowed(host, allowed_hosts):
        return Problem(
            403,
            f"Host {host!r} is not served here",
            where="the Host header",
            why="a name that is not ours points to this address, as in DNS rebinding",
            next_step="Use the IP address or localhost in the URL.",
        )
    if _cross_site(headers, host):
        return Problem(
            403,
            "a page of another site may not use this API",
            where="the Origin or Sec-Fetch-Site header",
            why="requests that a browser makes on behalf of another site are refused",
            next_step="Use meshctl, curl, or a page served from here.",
        )
    return None if scope["method"] in SAFE_METHODS else _body_refusal(headers)


def _body_refusal(headers: dict[str, str]) -> Problem | None:
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in (JSON, *YAML) or (not has_body and not content_type):
        return None
    return Problem(
        415,
        f"content type {content_type!r} is not read here",
        where="the Content-Type header",
        why="only types that no HTML form can send are accepted",
        next_step="Send application/json or application/yaml.",
    )


def _host_allowed(host: str, allowed_hosts: frozenset[str]) -> bool:
    name = _name_of(host)
    if name in allowed_hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str:
    """``[::1]:15014`` -> ``::1``; ``LocalHost:1`` -> ``localhost``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _cross_site(headers: dict[str, str], host: str) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()
