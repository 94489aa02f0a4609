"""Values of an AuthorizationPolicy that mean something else than they look like, or that nothing can ever be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from meshlib_control.config import attributes
from meshlib_control.config.problems import Path, Problem

_EXPRESSION = re.compile(r"\.[*+]|\\|\[[^\]]+\][*+?]|\[\w-\w|\^|\$\Z|\|")
_WRITTEN = frozenset({"envoy.filters.http.jwt_authn", "envoy.filters.http.rbac", "envoy.filters.http.ext_authz"})
"""Filters whose metadata exists here."""

_TEXTS = frozenset({"paths", "hosts", "methods", "source.principal", "source.namespace", "connection.sni"})
_ANYWHERE = frozenset({"source.namespace", "source.trustDomain"})  # an asterisk may stand anywhere


def check_values(
    asked: Iterable[tuple[Path, str, tuple[str, ...], bool]], action: str, *, normalized: bool = True
) -> Iterator[Problem]:
    """`asked`: path, attribute, values, and whether none of them may be there; `normalized`: whether paths are."""
    for path, key, values, negated in asked:
        for index, value in enumerate(values):
            where = (*path, index)
            if key in _TEXTS and (found := _EXPRESSION.search(value)):
                message = f"{found[0]} in {value!r} is compared as it is: there are no regular expressions here{_instead(key)}"
                yield Problem(where, "MSH0327", message)
            elif key not in _ANYWHERE and "*" in value[1:-1] and "{*" not in value:
                message = (
                    f"the asterisk within {value!r} is an ordinary character; only a first or last one is not{_instead(key)}"
                )
                yield Problem(where, "MSH0327", message)
            impossible = _IMPOSSIBLE.get(key, _possible)(value)
            if key == "paths" and normalized and not impossible:
                impossible = _dots(value)
            if impossible:
                yield Problem(where, "MSH0328", f"{value!r} never matches: {impossible}")
            if key == "hosts" and action == "ALLOW" and not negated and _lacks_port(value):
                message = f"callers of another port than 80 send {value}:PORT, which this does not allow; add {value}:*"
                yield Problem(where, "MSH0329", message)
        if key.startswith(attributes.METADATA) and attributes.metadata_key(key)[0] not in _WRITTEN:
            message = f"nothing here writes metadata of {attributes.metadata_key(key)[0]}: this never matches"
            yield Problem(path, "MSH0328", message)


def _instead(key: str) -> str:
    return "; {*} is one segment of a path, {**} any number" if key == "paths" else ""


def _possible(value: str) -> str:
    return ""


def _path(value: str) -> str:
    if not value.startswith(("/", "*")):
        return "paths start with a slash"
    if "?" in value or "#" in value:
        return "paths are compared without query and fragment"
    return ""


def _dots(value: str) -> str:
    segments = value.rstrip("*").split("/")
    if ".." in segments or "." in segments[:-1]:
        return "the path of a request has no dot segments any more when it is compared"
    return ""


def _method(value: str) -> str:
    return "methods are compared with their case; write it in upper case" if value != value.upper() else ""


def _principal(value: str) -> str:
    if value.startswith("spiffe://"):
        return "principals are written without spiffe://"
    if not value.startswith("*") and not value.endswith("*") and "/ns/" not in value:
        return "an identity is TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"
    return ""


def _request_principal(value: str) -> str:
    issuer, slash, subject = value.rpartition("/")
    if not value.startswith("*") and not value.endswith("*") and not slash:
        return "it is an issuer and a subject with a slash between them"
    if value.endswith("*") and issuer.rstrip("/") in ("http:", "https:"):
        return f"the issuer is what stands before the last slash: {issuer}"
    if value.startswith("*") and slash and "*" in subject:
        return "with an asterisk at the start, the subject is compared as it is"
    return ""


def _host(value: str) -> str:
    if "/" in value:
        return "a host has neither scheme nor path"
    return ""


_IMPOSSIBLE: dict[str, Callable[[str], str]] = {
    "paths": _path,
    "methods": _method,
    "hosts": _host,
    "source.principal": _principal,
    "request.auth.principal": _request_principal,
}


def _lacks_port(value: str) -> bool:
    return ":" not in value and not value.startswith("*") and not value.endswith("*")
