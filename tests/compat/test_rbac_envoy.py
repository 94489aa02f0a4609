"""Real Envoy and the compiled policies decide alike, on generated policies and requests.

For what needs no TLS.  Repeated headers under ALLOW and values that are not ASCII may be judged more strictly here, never more
leniently.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from meshlib.model.authorization import RbacFilter
from meshlib.model.inbound import Connection, Inspection, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.policy.authorization import compile_rbac
from meshlib.policy.canonical import canonicalize
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import rbac_pb2
from meshlib.xds.rbac import decode_rbac
from meshlib.xds.types import pack
from tests.support import envoy

pytestmark = pytest.mark.envoy

SEED = 20
FILTERS = 60  # one Envoy listener each
REQUESTS = 15  # of each listener
Json = dict[str, Any]

PATHS = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/A/b", "/b", "/a/*/c", "/a/x.html", "/a/b/"]
VALUES = ["a", "b", "ab", "A", "a,b", "ba", "7", "aéb"]
HOSTS = ["a.test", "b.test"]
PATTERNS = [".*", ".+", "a.*", ".*a", "a.b", "(a|b)", "[ab]+", "/a/.*", ".*/b", "/[^/]*/b", "(?i)a"]
TEMPLATES = ["/a/*", "/*/b", "/*/b/**", "/**", "/a/**/c", "/a"]
METADATA = {"sub": "a", "aud": ["a", "b"], "n": {"m": "ab"}, "t": True, "d": 1.5}


class Generator:
    """Random policies, in the form that both take."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def filter(self) -> Json:
        names = self.rng.sample(["a", "aa", "b", "B", "ns[foo]-policy[x]-rule[0]", "z z"], self.rng.randint(1, 4))
        return {
            "rules": {
                "action": self.rng.choice(["ALLOW", "DENY"]),
                "policies": {
                    name: {"permissions": self.nodes("rules", 2), "principals": self.nodes("ids", 2)} for name in names
                },
            }
        }

    def nodes(self, sets: str, depth: int) -> list[Json]:
        return [self.node(sets, depth) for _ in range(self.rng.randint(1, 2))]

    def node(self, sets: str, depth: int) -> Json:
        kind = self.rng.choice(["and", "or", "not", *["leaf"] * 4]) if depth else "leaf"
        rules = sets == "rules"
        if kind == "leaf":
            return self.leaf(rules=rules)
        if kind == "not":
            return {"not_rule" if rules else "not_id": self.node(sets, depth - 1)}
        return {f"{kind}_{sets}": {sets: self.nodes(sets, depth - 1)}}

    def leaf(self, *, rules: bool) -> Json:
        pick = self.rng.choice
        choices: list[Callable[[], Json]] = [
            lambda: {"any": True},
            lambda: {"header": self.header()},
            lambda: {"url_path": {"path": self.string(PATHS)}},
            lambda: {"metadata": self.metadata()},
        ]
        if rules:
            choices.append(lambda: {"uri_template": _template(pick(TEMPLATES))})
            choices.append(lambda: {"destination_ip": _block(pick(["127.0.0.0", "10.0.0.0"]))})
            choices.append(lambda: {"requested_server_name": self.string(VALUES)})
        else:
            choices.append(lambda: {"direct_remote_ip": _block(pick(["127.0.0.0", "10.0.0.0"]))})
        return pick(choices)()

    def string(self, values: list[str]) -> Json:
        kind = self.rng.choice(["exact", "prefix", "suffix", "contains", "safe_regex"])
        if kind == "safe_regex":
            return {"safe_regex": {"regex": self.rng.choice(PATTERNS)}}
        found: Json = {kind: self.rng.choice(values)}
        return found | ({"ignore_case": True} if self.rng.random() < 0.3 else {})

    def header(self) -> Json:
        name = self.rng.choice(["x-a", "X-B", ":method", ":authority"])
        if name == ":method":
            return {"name": name, "string_match": {"exact": self.rng.choice(["GET", "POST"])}}
        if name == ":authority":
            return {"name": name, "string_match": {"exact": self.rng.choice(HOSTS), "ignore_case": True}}
        found: Json = {"name": name}
        kind = self.rng.choice(["string", "string", "string", "present", "range"])
        if kind == "string":
            found["string_match"] = self.string(VALUES)
        elif kind == "present":
            found["present_match"] = self.rng.random() < 0.8
        else:
            found["range_match"] = {"start": 5, "end": self.rng.choice([7, 8])}
        if self.rng.random() < 0.2:
            found["invert_match"] = True
        if self.rng.random() < 0.2:
            found["treat_missing_header_as_empty"] = True
        return found

    def metadata(self) -> Json:
        path = self.rng.choice([["sub"], ["aud"], ["n", "m"], ["t"], ["d"], ["missing"], ["sub", "x"]])
        found: Json = {"filter": "test", "path": [{"key": key} for key in path], "value": self.value(2)}
        return found | ({"invert": True} if self.rng.random() < 0.2 else {})

    def value(self, depth: int) -> Json:
        kind = self.rng.choice(["string", "string", "list", "or", "bool", "present", "null", "double"])
        if kind == "list" and depth:
            return {"list_match": {"one_of": self.value(depth - 1)}}
        if kind == "or" and depth:
            return {"or_match": {"value_matchers": [self.value(depth - 1), self.value(depth - 1)]}}
        simple: dict[str, Json] = {
            "bool": {"bool_match": True},
            "present": {"present_match": self.rng.random() < 0.7},
            "null": {"null_match": {}},
            "double": {"double_match": {"exact": 1.5}},
        }
        return simple.get(kind) or {"string_match": self.string(VALUES)}

    def request(self) -> Request:
        repeated = self.rng.random() < 0.3
        headers = [(name, self.rng.choice(VALUES)) for name in ("x-a", "x-b") if self.rng.random() < 0.7]
        if repeated:
            headers += [(name, self.rng.choice(VALUES)) for name in ("x-a", "x-b")]
        target = self.rng.choice(PATHS) + self.rng.choice(["", "?a=/b"])
        return Request(self.rng.choice(["GET", "POST"]), target, self.rng.choice([*HOSTS, "A.test"]), headers)


def _template(text: str) -> Json:
    kind = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
    return {"name": "uri_template", "typed_config": {"@type": kind, "path_template": text}}


def _block(address: str) -> Json:
    return {"address_prefix": address, "prefix_len": 8}


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    host: str
    headers: list[tuple[str, str]]

    def is_judged_alike(self, action: str) -> bool:
        repeats = len({name for name, _ in self.headers}) < len(self.headers)
        return all(value.isascii() for _, value in self.headers) and not (repeats and action == "ALLOW")

    def encode(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"host: {self.host}", "content-length: 0"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def ours(config: Json, request: Request) -> str:
    """What Envoy's details would say; empty: let in."""
    problems = Problems()
    filter: RbacFilter = decode_rbac(_ours(config), "rbac", problems, field="f")  # noqa: A001
    assert not problems, [str(found) for found in problems.found]
    headers = [(b"host", request.host.encode()), *((name.encode(), value.encode()) for name, value in request.headers)]
    connection = Connection(local_port=1, remote_address="127.0.0.1", local_address="127.0.0.1")
    raw = ServerRequest(request.method, request.target.encode(), headers, connection=connection)
    inspection = canonicalize(raw, PathNormalization.BASE)
    assert isinstance(inspection, Inspection), inspection
    inspection.metadata["test"] = dict(METADATA)
    refusal = compile_rbac(filter)(inspection)
    return refusal.reason if refusal is not None else ""


def _ours(config: Json) -> rbac_pb2.HttpRBAC:
    """json_format does not know Envoy's names: templates are put in by hand."""
    templates: list[str] = []

    def without(node: Any) -> Any:
        if isinstance(node, list):
            return [without(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "uri_template" in node:
            templates.append(node["uri_template"]["typed_config"]["path_template"])
            return {"matcher": {"name": str(len(templates) - 1)}}
        return {key: without(item) for key, item in node.items()}

    message = ParseDict(without(config), rbac_pb2.HttpRBAC())

    def restore(rule: rbac_pb2.Permission) -> None:
        for inner in (*rule.and_rules.rules, *rule.or_rules.rules):
            restore(inner)
        if rule.HasField("not_rule"):
            restore(rule.not_rule)
        if rule.HasField("matcher"):
            found = rbac_pb2.UriTemplateMatchConfig(path_template=templates[int(rule.matcher.name)])
            rule.uri_template.typed_config.CopyFrom(pack(found))

    for policy in message.rules.policies.values():
        for rule in policy.permissions:
            restore(rule)
    return message


def bootstrap(filters: list[Json]) -> Mapping[str, Any]:
    def typed(kind: str, **fields: Any) -> Json:
        return {"@type": f"type.googleapis.com/{kind}", **fields}

    http = "envoy.extensions.filters.http"
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

    def listener(number: int, config: Json) -> Json:
        steps = [
            {
                "name": "set",
                "typed_config": typed(
                    f"{http}.set_metadata.v3.Config", metadata=[{"metadata_namespace": "test", "value": METADATA}]
                ),
            },
            {"name": "rbac", "typed_config": typed(f"{http}.rbac.v3.RBAC", **config)},
            {"name": "router", "typed_config": typed(f"{http}.router.v3.Router")},
        ]
        answer = {"status": 200, "body": {"inline_string": "in"}}
        route = {"match": {"prefix": "/"}, "direct_response": answer}
        details = {"header": {"key": "x-details", "value": "%RESPONSE_CODE_DETAILS%"}}
        return {
            "name": f"l{number}",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [
                {
                    "filters": [
                        {
                            "name": "hcm",
                            "typed_config": typed(
                                manager,
                                stat_prefix="t",
                                normalize_path=True,
                                http_filters=steps,
                                local_reply_config={"mappers": [{"filter": _always(), "headers_to_add": [details]}]},
                                route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
                            ),
                        }
                    ]
                }
            ],
        }

    return {"static_resources": {"listeners": [listener(*pair) for pair in enumerate(filters)]}}


def _always() -> Json:
    comparison = {"op": "GE", "value": {"default_value": 100, "runtime_key": "none"}}
    return {"status_code_filter": {"comparison": comparison}}


def theirs(port: int, requests: list[Request]) -> list[str]:
    """What Envoy's details say of each; one connection for all."""
    found: list[str] = []
    with socket.create_connection(("127.0.0.1", port), 30) as connection, connection.makefile("rb") as stream:
        for request in requests:
            connection.sendall(request.encode())
            status = int(stream.readline().split()[1])
            headers: dict[str, str] = {}
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            stream.read(int(headers.get("content-length", "0")))
            found.append("" if status == 200 else headers["x-details"])
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Json, Request, str]]:
    """(policies, request, Envoy's details)"""
    generator = Generator(random.Random(SEED))
    filters = [generator.filter() for _ in range(FILTERS)]
    found: list[tuple[Json, Request, str]] = []
    with envoy.running(bootstrap(filters), tmp_path_factory.mktemp("envoy")) as process:
        for number, config in enumerate(filters):
            requests = [generator.request() for _ in range(REQUESTS)]
            answers = theirs(process.listener_port(f"l{number}"), requests)
            found += [(config, request, answer) for request, answer in zip(requests, answers, strict=True)]
    return found


def test_decisions_are_envoys(compared: list[tuple[Json, Request, str]]) -> None:
    """And so are the details, which name the policy that decided."""
    for config, request, details in compared:
        if request.is_judged_alike(config["rules"]["action"]):
            assert ours(config, request) == details, (json.dumps(config), request)


def test_what_is_stricter_than_envoy_is_never_more_lenient(compared: list[tuple[Json, Request, str]]) -> None:
    for config, request, details in compared:
        if details:
            assert ours(config, request) != "", (json.dumps(config), request)


def test_the_generated_cases_tell_right_from_wrong(compared: list[tuple[Json, Request, str]]) -> None:
    """The control: both decisions are there for both actions, alike and not."""
    cases = {(config["rules"]["action"], bool(details)) for config, _, details in compared}
    assert cases == {("ALLOW", True), ("ALLOW", False), ("DENY", True), ("DENY", False)}
    alike = [request.is_judged_alike(config["rules"]["action"]) for config, request, _ in compared]
    assert 0.5 < sum(alike) / len(alike) < 1.0
