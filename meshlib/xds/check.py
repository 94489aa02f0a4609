"""The gRPC service of external authorizers: ``envoy.service.auth.v3.Authorization/Check``, bytes in and out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from google.protobuf.json_format import MessageToDict

from meshlib.model.authorization import AuthorizerAnswer, BodyStart, ExternalAuthorization, HeaderEdit
from meshlib.model.inbound import Inspection
from meshlib.xds.fields import parse
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import core_pb2, ext_authz_pb2

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"


def check_request(
    filter: ExternalAuthorization,  # noqa: A002  # Envoy's word
    inspection: Inspection,
    headers: Iterable[tuple[bytes, bytes]],
    body: BodyStart,
    *,
    now: float,
) -> bytes:
    """The question as Envoy puts it.  `headers`: those of the request that the authorizer may see; `now`: Unix seconds."""
    request, connection = inspection.request, inspection.request.connection
    attributes = ext_authz_pb2.AttributeContext()
    attributes.source.address.socket_address.address = connection.remote_address
    attributes.source.address.socket_address.port_value = 0
    if connection.peer is not None:
        attributes.source.principal = connection.peer.uri
    attributes.destination.address.socket_address.address = connection.local_address
    attributes.destination.address.socket_address.port_value = connection.local_port
    attributes.request.time.FromNanoseconds(int(now * 1e9))
    http = attributes.request.http
    http.id = _text(request.fields.get(b"x-request-id", b""))
    http.method = request.method
    http.path = inspection.target.decode("ascii")
    http.host = inspection.host
    http.scheme = "https" if connection.tls else "http"
    http.protocol = f"HTTP/{request.http_version}"
    length = request.fields.get(b"content-length", b"")
    http.size = int(length) if length.isdigit() else -1
    http.headers.update(_joined(headers))
    if filter.max_request_bytes:
        http.headers["x-envoy-auth-partial-body"] = "false" if body.complete else "true"
        if filter.pack_as_bytes:
            http.raw_body = body.data
        else:
            http.body = _text(body.data)
    return ext_authz_pb2.CheckRequest(attributes=attributes).SerializeToString()


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Repeated headers in one line, with commas."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(_text(name), []).append(_text(value))
    return {name: ",".join(values) for name, values in found.items()}


def _text(value: bytes) -> str:
    """Strings of protobuf are UTF-8; Envoy writes ``!`` for each byte that is none."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(character if character < "\udc80" else "!" for character in value.decode("utf-8", "surrogateescape"))


def read_check_response(data: bytes) -> AuthorizerAnswer:
    """Never raises: what cannot be understood in full is no answer."""
    problems = Problems()
    message = parse(ext_authz_pb2.CheckResponse, data, field="response", problems=problems)
    if message is None or (problems and message.status.code == 0):
        return AuthorizerAnswer(error=f"an answer that is not understood: {problems.found[0]}")
    metadata = MessageToDict(message.dynamic_metadata) if message.HasField("dynamic_metadata") else None
    if message.status.code != 0:
        denied = message.denied_response
        return AuthorizerAnswer(
            status=denied.status.code or 403,
            body=denied.body.encode("utf-8"),
            headers=tuple(map(_edit, denied.headers)),
            metadata=metadata,
        )
    if message.WhichOneof("http_response") == "denied_response":
        return AuthorizerAnswer(error="it allows and denies in one answer")
    ok = message.ok_response
    return AuthorizerAnswer(
        allowed=True,
        headers=tuple(map(_edit, ok.headers)),
        headers_to_remove=tuple(ok.headers_to_remove),
        response_headers=tuple(
            (option.header.key.lower().encode("utf-8"), option.header.value.encode("utf-8"))
            for option in ok.response_headers_to_add
        ),
        query_to_set=tuple((parameter.key, parameter.value) for parameter in ok.query_parameters_to_set),
        query_to_remove=tuple(ok.query_parameters_to_remove),
        metadata=metadata,
    )


_APPEND_ACTIONS: Final[dict[int, Literal["set", "add_if_absent", "set_if_present"]]] = {
    core_pb2.HeaderValueOption.ADD_IF_ABSENT: "add_if_absent",
    core_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS: "set_if_present",
}


def _edit(option: core_pb2.HeaderValueOption) -> HeaderEdit:
    """`append` decides; unset, it is false, and then the action does, whose own default Envoy takes for "set" here."""
    name, value = option.header.key.lower(), option.header.value.encode("utf-8")
    if option.append.value:
        return HeaderEdit(name, value, "append")
    return HeaderEdit(name, value, _APPEND_ACTIONS.get(option.append_action, "set"))
