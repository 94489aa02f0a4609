"""Request targets and redirections of a route, as Envoy writes them: text in the place of text, nothing is made canonical."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.route import Forward, PathMatch, Redirect, Substitution
from meshlib.model.substitution import parse_replacement

TargetEdit = Callable[[str], str]
"""A new target, path and query, from the one that the route has matched."""

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def compile_rewrite(match: PathMatch, action: Forward) -> TargetEdit | None:
    """None: the target stays.  Raises ValueError for an expression or a replacement that RE2 does not take."""
    if action.prefix_rewrite:
        return compile_prefix_rewrite(match, action.prefix_rewrite)
    if action.regex_rewrite is not None:
        return compile_substitution(action.regex_rewrite)
    return None


def compile_prefix_rewrite(match: PathMatch, replacement: str) -> TargetEdit:
    """What the condition has matched is replaced: a prefix by its length, everything else is the path as a whole."""
    if match.kind in ("prefix", "separated"):
        length = len(match.value)
        return lambda target: replacement + target[length:]

    def whole(target: str) -> str:
        _, mark, query = target.partition("?")
        return replacement + mark + query

    return whole


def compile_substitution(substitution: Substitution) -> TargetEdit:
    """RE2's GlobalReplace on the path; the query stays.  Raises ValueError as `compile_rewrite`."""
    replace = compile_replacement(substitution)

    def edit(target: str) -> str:
        path, mark, query = target.partition("?")
        return replace(path.encode("latin-1", "replace")).decode("latin-1") + mark + query

    return edit


def compile_replacement(substitution: Substitution) -> Callable[[bytes], bytes]:
    """RE2's GlobalReplace on a text.  Raises ValueError as `compile_rewrite`."""
    import re2  # costs 10 ms: only for those who have a regex

    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    try:
        compiled = re2.compile(substitution.pattern.encode("utf-8"), options)
    except re2.error as error:
        raise ValueError(f"{substitution.pattern!r} is no RE2 expression: {error}") from None
    pieces = parse_replacement(substitution.replacement, compiled.groups)

    def replace(text: bytes) -> bytes:
        made: list[bytes] = []
        done, last = 0, -1
        for found in compiled.finditer(text):
            start, end = found.span()
            if start == end == last:
                continue  # an empty match right behind the one before is none
            made.append(text[done:start])
            made.extend(piece if isinstance(piece, bytes) else found.group(piece) or b"" for piece in pieces)
            done = last = end
        made.append(text[done:])
        return b"".join(made)

    return replace


def compile_location(match: PathMatch, redirect: Redirect) -> Callable[[str, str, str], str]:
    """(scheme, Host header, target) of a request → the URL that it is sent to."""
    edit = compile_prefix_rewrite(match, redirect.prefix_rewrite) if redirect.prefix_rewrite else None
    port = f":{redirect.port}" if redirect.port else ""

    def location(scheme: str, host: str, target: str) -> str:
        wanted = redirect.scheme or scheme
        if edit is not None:
            target = edit(target)
        elif redirect.path:
            # A query of its own takes the place of the request's.
            target = redirect.path if "?" in redirect.path else redirect.path + "".join(target.partition("?")[1:])
        name = redirect.host or _kept_host(host, scheme, wanted, port)
        return f"{wanted}://{name}{port}{target}"

    return location


def _kept_host(host: str, scheme: str, wanted: str, port: str) -> str:
    """Without its port if there is another one, or if it is the default of a scheme that is left."""
    colon = host.rfind(":")
    if colon <= host.rfind("]"):
        return host
    if port or (wanted != scheme and host[colon:] == _DEFAULT_PORTS.get(scheme)):
        return host[:colon]
    return host
