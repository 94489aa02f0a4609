"""Asking an external authorizer (Envoy's ext_authz): what is sent over HTTP, and what an answer does to a request.

The gRPC form of the question and of its answer is in `meshlib.xds.ext_authz`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote

from meshlib.model.authorization import AuthorizerAnswer, BodyStart, ExternalAuthorization, HeaderEdit
from meshlib.model.call import Headers
from meshlib.model.inbound import Inspection, Refusal, ServerRequest
from meshlib.model.request import Request, Timeouts
from meshlib.model.route import StringMatch
from meshlib.policy.authorization_text import BYTES, compile_texts
from meshlib.policy.matching import header_values

METADATA = "envoy.filters.http.ext_authz"
PARTIAL_BODY = b"x-envoy-auth-partial-body"

_HOP_BY_HOP = frozenset(
    {
        b"connection", b"content-length", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    }
)  # fmt: skip
_FIXED = _HOP_BY_HOP | {b"host", b"expect"}
"""Where a request goes and where it ends is settled by now: an authorizer that would change it cannot be obeyed."""

_ALWAYS_TO_CLIENT = frozenset({b"www-authenticate", b"location", b"content-type"})
_NAME = re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_QUERY_SAFE = "!$&'()*+,;=:@/?-._~%"


def wanted_body(filter: ExternalAuthorization, request: ServerRequest) -> int:  # noqa: A002  # Envoy's word
    """How many bytes of the body to have before asking; 0: none, as there is no body or the authorizer does not want it."""
    if not filter.max_request_bytes:
        return 0
    fields = request.fields
    if b"transfer-encoding" in fields:
        return filter.max_request_bytes
    length = fields.get(b"content-length")
    if length is not None:
        return filter.max_request_bytes if length.strip(b"0") else 0
    return 0 if request.http_version.startswith("1") else filter.max_request_bytes


def too_large(filter: ExternalAuthorization, body: BodyStart) -> Refusal | None:  # noqa: A002
    """A body that would have to be cut is refused, unless it may be; the authorizer is not asked then."""
    if filter.allow_partial_message or not filter.max_request_bytes:
        return None
    if body.complete and len(body.data) <= filter.max_request_bytes:
        return None
    return Refusal(413, "request_payload_too_large", b"Payload Too Large")


def cut(filter: ExternalAuthorization, body: BodyStart) -> BodyStart:  # noqa: A002
    """What the authorizer gets to see of the body."""
    data = body.data[: filter.max_request_bytes]
    return BodyStart(data, body.complete and len(data) == len(body.data))


@dataclass(frozen=True, slots=True, eq=False)
class Dialogue:
    """How one authorizer is spoken to, compiled.  `visible` are the headers that it may see over gRPC, pseudo headers too."""

    compose: Callable[[Inspection, BodyStart], Request]
    read: Callable[[int, Headers, bytes], AuthorizerAnswer]
    visible: Callable[[Inspection], Headers]


def compile_dialogue(filter: ExternalAuthorization) -> Dialogue:  # noqa: A002
    """Raises ValueError for what is no RE2 expression."""
    return Dialogue(compile_question(filter), compile_reading(filter), _compile_visible(filter))


def _compile_visible(filter: ExternalAuthorization) -> Callable[[Inspection], Headers]:  # noqa: A002
    """Without `allowed_headers`: all."""
    selected = header_names(filter.allowed_headers) if filter.allowed_headers else lambda name: True

    def visible(inspection: Inspection) -> Headers:
        request = inspection.request
        scheme = b"https" if request.connection.tls else b"http"
        pairs = [
            (b":authority", inspection.host.encode("ascii")),
            (b":method", request.method.encode("ascii")),
            (b":path", inspection.target),
            (b":scheme", scheme),
            *(pair for pair in current_headers(inspection) if pair[0] != b"host"),
        ]
        return [pair for pair in pairs if selected(pair[0])]

    return visible


# --- the question, over HTTP


def compile_question(filter: ExternalAuthorization) -> Callable[[Inspection, BodyStart], Request]:  # noqa: A002
    """The request to the authorizer: same method, path behind the prefix, and host; of the headers those that it may see."""
    selected = header_names(filter.allowed_headers)
    added = [(name.encode("ascii"), value.encode("latin-1")) for name, value in filter.headers_to_add]
    replaced = frozenset(name for name, _ in added)
    timeouts = Timeouts(total=filter.timeout or None)

    def question(inspection: Inspection, body: BodyStart) -> Request:
        headers = [
            (name, value)
            for name, value in current_headers(inspection)
            if (name == b"authorization" or selected(name)) and name not in replaced and name not in _FIXED
        ]
        headers += added
        if filter.max_request_bytes:
            headers.append((PARTIAL_BODY, b"false" if body.complete else b"true"))
        return Request(
            inspection.request.method,
            "http",
            filter.authority,
            filter.path_prefix + inspection.target.decode("ascii"),
            headers,
            body.data,
            host_header=inspection.host,
            timeouts=timeouts,
        )

    return question


def header_names(patterns: Iterable[StringMatch]) -> Callable[[bytes], bool]:
    """Any of `patterns`, all of them in lower case, on a lower-case header name."""
    found = list(patterns)
    return compile_texts(found, BYTES, restricts=False) if found else lambda name: False


def current_headers(inspection: Inspection) -> list[tuple[bytes, bytes]]:
    """The request's headers with what filters have changed by now."""
    changes = inspection.header_changes
    if not changes:
        return list(inspection.request.headers)
    kept = [pair for pair in inspection.request.headers if pair[0] not in changes]
    return kept + [(name, value) for name, value in changes.items() if value is not None]


# --- the answer, over HTTP


def compile_reading(filter: ExternalAuthorization) -> Callable[[int, Headers, bytes], AuthorizerAnswer]:  # noqa: A002
    """(status, headers, body) → what it means: 200 allows, 5xx is no answer, everything else denies with just that."""
    upstream = header_names(filter.upstream_headers)
    on_success = header_names(filter.client_headers_on_success)
    to_client = header_names(filter.client_headers)
    everything = not filter.client_headers

    def read(status: int, headers: Headers, body: bytes) -> AuthorizerAnswer:
        pairs = [(name.lower(), value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
        if status == 200:
            return AuthorizerAnswer(
                allowed=True,
                headers=tuple(HeaderEdit(name.decode("ascii"), value) for name, value in pairs if upstream(name)),
                response_headers=tuple(pair for pair in pairs if on_success(pair[0])),
            )
        if status >= 500:
            return AuthorizerAnswer(error=f"status {status}")
        told = (pair for pair in pairs if everything or pair[0] in _ALWAYS_TO_CLIENT or to_client(pair[0]))
        edits = tuple(HeaderEdit(name.decode("ascii"), value, "append") for name, value in told)
        return AuthorizerAnswer(status=status, body=body, headers=edits)

    return read


# --- what an answer does


def apply_answer(filter: ExternalAuthorization, answer: AuthorizerAnswer, inspection: Inspection) -> Refusal | None:  # noqa: A002
    """A refusal, or None after the request was changed as the authorizer says."""
    error = answer.error or _unusable(answer)
    if error:
        inspection.notes.append(f"external authorizer {filter.authority}: {error}")
        if filter.fail_open:
            return None
        return Refusal(filter.status_on_error, "ext_authz_error", close=False, flag="UAEX", policy=filter.name)
    if not answer.allowed:
        headers = tuple((edit.name.encode("ascii"), edit.value) for edit in answer.headers)
        return Refusal(
            answer.status, "ext_authz_denied", answer.body, close=False, headers=headers, flag="UAEX", policy=filter.name
        )
    for edit in answer.headers:
        _edit(edit, inspection)
    for name in answer.headers_to_remove:
        key = name.lower().encode("latin-1", "replace")
        if not key.startswith(b":") and key not in _FIXED:
            inspection.header_changes[key] = None
    if answer.query_to_set or answer.query_to_remove:
        _edit_query(answer, inspection)
    inspection.response_headers.extend(answer.response_headers)
    if answer.metadata is not None:
        inspection.metadata[METADATA] = dict(answer.metadata)
    return None


def _unusable(answer: AuthorizerAnswer) -> str:
    """Why an answer cannot be followed; leaving out a part of it could let through what it meant to change."""
    if not answer.allowed and not 200 <= answer.status <= 599:
        return f"it denies with the status {answer.status}"
    for name, value in [*((edit.name, edit.value) for edit in answer.headers), *_decoded(answer.response_headers)]:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            return f"it sets the header {name[:100]!r}, whose name or value is not one of HTTP"
        if answer.allowed and name.encode("ascii") in _FIXED:
            return f"it sets the header {name!r}, which cannot be changed any more"
    return ""


def _decoded(pairs: Headers) -> list[tuple[str, bytes]]:
    return [(name.decode("latin-1"), value) for name, value in pairs]


def _edit(edit: HeaderEdit, inspection: Inspection) -> None:
    name, changes = edit.name.encode("ascii"), inspection.header_changes
    if name in changes:
        changed = changes[name]
        values = [] if changed is None else [changed]
    else:
        values = header_values(inspection.request.headers, name)
    if edit.how == "append" and values:
        changes[name] = b",".join([*values, edit.value])
    elif (edit.how == "add_if_absent" and values) or (edit.how == "set_if_present" and not values):
        return
    else:
        changes[name] = edit.value


def _edit_query(answer: AuthorizerAnswer, inspection: Inspection) -> None:
    """Removed first, then set, as Envoy does; unlike there, what may not stand in a query is encoded."""
    gone = {*answer.query_to_remove, *(key for key, _ in answer.query_to_set)}
    kept = [pair for pair in inspection.query.split("&") if pair and pair.partition("=")[0] not in gone]
    kept += [f"{quote(key, safe=_QUERY_SAFE)}={quote(value, safe=_QUERY_SAFE)}" for key, value in answer.query_to_set]
    inspection.query = "&".join(kept)
    path = inspection.target.partition(b"?")[0]
    inspection.target = path + b"?" + inspection.query.encode("ascii") if kept else path
