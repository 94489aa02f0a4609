"""The ext_authz filter, and the messages of its gRPC service."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from meshlib.model.authorization import (
    AuthorizerAnswer,
    BodyStart,
    ExternalAuthorization,
    HeaderEdit,
    MetadataMatch,
    ValueMatch,
)
from meshlib.model.inbound import Connection
from meshlib.xds.check import check_request, read_check_response
from meshlib.xds.ext_authz import decode_ext_authz
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import ext_authz_pb2
from tests.support.rbac import ALICE, inspect, text

Json = dict[str, Any]

CLUSTER = "outbound|9000||Authz.foo.svc.cluster.local"
GRPC: Json = {"grpc_service": {"envoy_grpc": {"cluster_name": CLUSTER}}, "transport_api_version": "V3"}
HTTP: Json = {"http_service": {"server_uri": {"uri": "http://authz", "cluster": CLUSTER, "timeout": "2s"}}}


def decode(config: Json) -> tuple[ExternalAuthorization, list[str]]:
    problems = Problems()
    found = decode_ext_authz(ParseDict(config, ext_authz_pb2.ExtAuthz()), "ext", problems, field="f")
    return found, [str(problem) for problem in problems.found]


def test_over_grpc() -> None:
    found, problems = decode(
        {
            "grpc_service": {
                "envoy_grpc": {"cluster_name": CLUSTER, "authority": "authz"},
                "timeout": "0.5s",
                "initial_metadata": [{"key": "X-Key", "value": "v"}],
            },
            "transport_api_version": "V3",
            "failure_mode_allow": True,
            "status_on_error": {"code": "ServiceUnavailable"},
            "with_request_body": {"max_request_bytes": 4096, "allow_partial_message": True, "pack_as_bytes": True},
            "filter_enabled_metadata": {
                "filter": "envoy.filters.http.rbac",
                "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
                "value": {"string_match": {"prefix": "istio-ext-authz-default"}},
            },
            "stat_prefix": "x",
        }
    )
    assert problems == []
    key = ("istio_ext_authz_shadow_effective_policy_id",)
    condition = MetadataMatch("envoy.filters.http.rbac", key, ValueMatch(string=text("istio-ext-authz-default", "prefix")))
    assert found == ExternalAuthorization(
        "ext",
        CLUSTER,
        "authz.foo.svc.cluster.local:9000",
        grpc=True,
        timeout=0.5,
        fail_open=True,
        status_on_error=503,
        condition=condition,
        max_request_bytes=4096,
        allow_partial_message=True,
        pack_as_bytes=True,
        headers_to_add=(("x-key", "v"),),
    )
    assert decode(GRPC)[0].timeout == 0.2


def test_over_http() -> None:
    patterns = {"patterns": [{"exact": "X-A", "ignore_case": True}]}
    found, problems = decode(
        {
            "http_service": {
                "server_uri": {"uri": "http://authz", "cluster": CLUSTER, "timeout": "2s"},
                "path_prefix": "/check/",
                "authorization_request": {"allowed_headers": patterns, "headers_to_add": [{"key": "X-B", "value": "1"}]},
                "authorization_response": {
                    "allowed_upstream_headers": patterns,
                    "allowed_client_headers": {"patterns": [{"prefix": "X-"}]},
                    "allowed_client_headers_on_success": {"patterns": [{"suffix": "-A"}]},
                },
            },
            "allowed_headers": {"patterns": [{"exact": "x-c"}]},
        }
    )
    assert problems == []
    assert found == ExternalAuthorization(
        "ext",
        CLUSTER,
        "authz.foo.svc.cluster.local:9000",
        path_prefix="/check",
        timeout=2.0,
        allowed_headers=(text("x-c"), text("x-a")),
        headers_to_add=(("x-b", "1"),),
        upstream_headers=(text("x-a"),),
        client_headers=(text("x-", "prefix"),),
        client_headers_on_success=(text("-a", "suffix"),),
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"grpc_service": {"envoy_grpc": {"cluster_name": "authz"}}}, "f.grpc_service.envoy_grpc.cluster_name"),
        ({"grpc_service": {}}, "f.grpc_service.envoy_grpc.cluster_name"),
        ({"transport_api_version": "V2"}, "f.transport_api_version"),
        ({"status_on_error": {"code": "OK"}}, "f.status_on_error.code"),
        ({"with_request_body": {}}, "f.with_request_body.max_request_bytes"),
        ({"include_peer_certificate": True}, "f.include_peer_certificate"),
        ({"metadata_context_namespaces": ["x"]}, "f.metadata_context_namespaces"),
        ({"filter_enabled_metadata": {"filter": "x"}}, "f.filter_enabled_metadata.path"),
        ({"allowed_headers": {"patterns": [{}]}}, "f.allowed_headers.patterns[0]"),
    ],
)
def test_I17_what_is_not_understood_is_refused(change: Json, field: str) -> None:
    assert decode(GRPC)[1] == []
    assert any(problem.startswith(f"{field}:") for problem in decode({**GRPC, **change})[1])


@pytest.mark.parametrize(
    "change",
    [
        {"server_uri": {"uri": "https://authz", "cluster": CLUSTER, "timeout": "2s"}},
        {"server_uri": {"uri": "http://authz", "cluster": CLUSTER}},
        {"server_uri": {"uri": "http://authz", "cluster": "outbound|9000|v1|authz", "timeout": "2s"}},
        {"path_prefix": "check"},
        {"authorization_request": {"headers_to_add": [{"key": "x a", "value": "1"}]}},
        {"authorization_request": {"headers_to_add": [{"key": "x-a", "value": "1\r\n"}]}},
        {"authorization_response": {"dynamic_metadata_from_headers": {"patterns": [{"exact": "x"}]}}},
        {"authorization_response": {"allowed_upstream_headers_to_append": {"patterns": [{"exact": "x"}]}}},
    ],
    ids=str,
)
def test_I17_http_services_that_are_not_understood(change: Json) -> None:
    assert decode(HTTP)[1] == []
    assert len(decode({"http_service": {**HTTP["http_service"], **change}})[1]) == 1
    assert decode({})[1] == ["f: no service: expected grpc_service or http_service"]


# --- Check


def question(body: BodyStart, **more: Any) -> Json:
    asks = ExternalAuthorization("ext", CLUSTER, "authz:9000", grpc=True, **more)
    connection = Connection("10.0.0.1", "10.0.0.2", 8080, tls=True, peer=ALICE)
    seen = inspect("/a?x=1", ("x-request-id", "7"), ("content-length", "3"), method="POST", connection=connection)
    headers = [(b":path", b"/a?x=1"), (b"x-a", b"1"), (b"x-a", b"2"), (b"x-odd", b"a\xffb")]
    message = ext_authz_pb2.CheckRequest.FromString(check_request(asks, seen, headers, body, now=1.5))
    found: Json = MessageToDict(message)["attributes"]
    return found


def test_the_question_is_envoys() -> None:
    assert question(BodyStart()) == {
        "source": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 0}}, "principal": ALICE.uri},
        "destination": {"address": {"socketAddress": {"address": "10.0.0.2", "portValue": 8080}}},
        "request": {
            "time": "1970-01-01T00:00:01.500Z",
            "http": {
                "id": "7",
                "method": "POST",
                "path": "/a?x=1",
                "host": "a.test",
                "scheme": "https",
                "protocol": "HTTP/1.1",
                "size": "3",
                "headers": {":path": "/a?x=1", "x-a": "1,2", "x-odd": "a!b"},
            },
        },
    }


def test_the_body_goes_as_text_or_as_bytes() -> None:
    as_text = question(BodyStart(b"a\xff", complete=False), max_request_bytes=2)["request"]["http"]
    assert (as_text["body"], as_text["headers"]["x-envoy-auth-partial-body"]) == ("a!", "true")
    as_bytes = question(BodyStart(b"a\xff"), max_request_bytes=2, pack_as_bytes=True)["request"]["http"]
    assert (as_bytes["rawBody"], as_bytes["headers"]["x-envoy-auth-partial-body"]) == ("Yf8=", "false")


def answer(config: Json) -> AuthorizerAnswer:
    return read_check_response(ParseDict(config, ext_authz_pb2.CheckResponse()).SerializeToString())


def test_an_answer_allows_and_changes() -> None:
    ok = {
        "headers": [
            {"header": {"key": "X-Set", "value": "1"}},
            {"header": {"key": "x-app", "value": "2"}, "append": True},
            {"header": {"key": "x-new", "value": "3"}, "append_action": "ADD_IF_ABSENT"},
            {"header": {"key": "x-if", "value": "4"}, "append_action": "OVERWRITE_IF_EXISTS"},
        ],
        "headers_to_remove": ["x-gone"],
        "response_headers_to_add": [{"header": {"key": "X-R", "value": "ä"}}],
        "query_parameters_to_set": [{"key": "q", "value": "1"}],
        "query_parameters_to_remove": ["t"],
    }
    assert answer({"status": {}, "ok_response": ok, "dynamic_metadata": {"k": ["v"]}}) == AuthorizerAnswer(
        allowed=True,
        headers=(
            HeaderEdit("x-set", b"1"),
            HeaderEdit("x-app", b"2", "append"),
            HeaderEdit("x-new", b"3", "add_if_absent"),
            HeaderEdit("x-if", b"4", "set_if_present"),
        ),
        headers_to_remove=("x-gone",),
        response_headers=((b"x-r", "ä".encode()),),
        query_to_set=(("q", "1"),),
        query_to_remove=("t",),
        metadata={"k": ["v"]},
    )
    assert answer({}) == AuthorizerAnswer(allowed=True)


@pytest.mark.parametrize(
    ("config", "status"),
    [
        ({"status": {"code": 7}}, 403),
        ({"status": {"code": 16}}, 403),
        ({"status": {"code": 16}, "denied_response": {"status": {"code": "Unauthorized"}, "body": "no"}}, 401),
    ],
)
def test_an_answer_denies(config: Json, status: int) -> None:
    found = answer(config)
    assert (found.allowed, found.status, found.error) == (False, status, "")
    assert found.body == (b"no" if "denied_response" in config else b"")


def test_an_answer_that_is_not_understood_allows_nothing() -> None:
    unknown = ext_authz_pb2.CheckResponse().SerializeToString() + b"\x2a\x02\x08\x01"  # error_response
    for data in (b"\xff\xff", unknown):
        found = read_check_response(data)
        assert not found.allowed
        assert found.error
    assert answer({"status": {}, "denied_response": {"body": "no"}}).error
