"""The same requests through real Envoy and through our filter, both configured by what we compile from Istio's YAML."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from meshlib.policy.jwt import Step, compile_jwt
from meshlib.xds.fields import unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.json import to_json
from meshlib.xds.jwt import decode_jwt
from meshlib.xds.proto import jwt_pb2, listener_pb2
from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.compile import World
from meshlib_control.compile.authentication import jwt_filters
from meshlib_control.compile.node import Node
from meshlib_control.compile.scope import scope_of
from tests.support.configuring import config_set
from tests.support.envoy import running
from tests.support.tokens import Json, b64, bearer, ec_key, ed25519_key, inspected, key_set, rsa_key, secret_key, segment

pytestmark = pytest.mark.envoy

NOW = int(time.time())
RSA, EC, EC384, ED, SECRET = rsa_key("k1"), ec_key("ES256", "e1"), ec_key("ES384", "e3"), ed25519_key(), secret_key()
GOOD: Json = {"iss": "ia", "sub": "s", "exp": NOW + 3600}
REFLECTED = ("x-claim", "x-sub", "x-payload", "authorization", "x-b", "cookie")

ONE = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: one}}
spec:
  jwtRules:
  - issuer: ia
    jwks: '{key_set(RSA, EC, EC384, ED, SECRET)}'
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{{header: x-claim, claim: c}}, {{header: x-sub, claim: n.s}}]
"""
SEVERAL = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: several}}
spec:
  jwtRules:
  - {{issuer: ia, audiences: ["https://x/"], jwks: '{key_set(RSA)}'}}
  - issuer: ib
    jwks: '{key_set(EC)}'
    fromHeaders: [{{name: x-b}}]
    fromCookies: [c]
    fromParams: [t]
    forwardOriginalToken: true
  - {{issuer: ic, jwksUri: 'https://nobody.fetched.this/', fromHeaders: [{{name: x-c, prefix: "T "}}]}}
"""
REQUIRED = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: required}}
spec:
  jwtRules: [{{issuer: ia, presence: REQUIRED, jwks: '{key_set(RSA)}'}}]
---
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {{name: mesh}}
spec: {{tokens: {{requireExpiration: true}}}}
"""


class Ask(NamedTuple):
    """One request; `one`, `several` or `required` is asked."""

    name: str
    headers: tuple[tuple[str, str], ...] = ()
    target: str = "/"
    method: str = "GET"


def with_token(name: str, token: str) -> Ask:
    return Ask(name, (bearer(token),))


def claims(name: str, **more: Any) -> Ask:
    return with_token(f"claims: {name}", RSA.token({**GOOD, **more}))


def header(name: str, key: Any = RSA, **more: Any) -> Ask:
    return with_token(f"header: {name}", key.token(GOOD, header=more))


G = RSA.token(GOOD)
HEAD, PAYLOAD, SIGNATURE = G.split(".")
DUPLICATE = '{"iss":"x","iss":"ia"}'
PREFLIGHT = (("origin", "https://o"), ("access-control-request-method", "GET"))
SPOOFED = (("x-claim", "spoofed"), ("x-payload", "spoofed"))

FOR_ONE = [
    Ask("no token"),
    Ask("spoofed", SPOOFED),
    with_token("good", G),
    Ask("in the query", (), f"/x?a=1&access_token={G}&b=2"),
    Ask("encoded name", (), f"/x?access%5Ftoken={G}"),
    Ask("empty parameter", (), "/?access_token="),
    Ask("basic", (("authorization", "Basic abc"),)),
    Ask("lower case", (("authorization", f"bearer {G}"),)),
    Ask("only the scheme", (("authorization", "Bearer "),)),
    Ask("more spaces", (("authorization", f"Bearer   {G}"),)),
    Ask("not at the start", (("authorization", f"x Bearer {G}"),)),
    Ask("bad and good", (bearer("x"),), f"/?access_token={G}"),
    Ask("good and bad", (bearer(G),), "/?access_token=x"),
    Ask("expired and bad", (bearer(RSA.token({**GOOD, "exp": 1})),), "/?access_token=x"),
    Ask("bad and expired", (bearer("x"),), f"/?access_token={RSA.token({**GOOD, 'exp': 1})}"),
    Ask("preflight", (bearer("x"), *PREFLIGHT, *SPOOFED), "/", "OPTIONS"),
    Ask("no preflight", (bearer("x"), PREFLIGHT[0]), "/", "OPTIONS"),
    *(
        with_token(f"algorithm {name}", RSA.token(GOOD, algorithm=name))
        for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    ),
    *(with_token(f"algorithm {key.algorithm}", key.token(GOOD)) for key in (EC, EC384, ED, SECRET)),
    *(
        with_token(f"form: {name}", text)
        for name, text in {
            "garbage": "x",
            "two sections": f"{HEAD}.{PAYLOAD}",
            "no signature": f"{HEAD}.{PAYLOAD}.",
            "four": f"{G}.x",
            "header": f"a$b.{PAYLOAD}.{SIGNATURE}",
            "header length": f"a.{PAYLOAD}.{SIGNATURE}",
            "payload length": f"{HEAD}.a.{SIGNATURE}",
            "signature length": f"{HEAD}.{PAYLOAD}.a",
            "header list": f"{segment([])}.{PAYLOAD}.{SIGNATURE}",
            "header text": f"{b64(b'x')}.{PAYLOAD}.{SIGNATURE}",
            "payload list": f"{HEAD}.{segment(['a'])}.{SIGNATURE}",
            "duplicate": f"{HEAD}.{segment(DUPLICATE)}.{SIGNATURE}",
            "cut": f"{HEAD}.{PAYLOAD}.{SIGNATURE[:-4]}",
            "not its own": f"{HEAD}.{PAYLOAD}.{'A' * len(SIGNATURE)}",
            "deep": RSA.token('{"iss":"ia","c":' + "[" * 120 + "]" * 120 + "}"),
            "JSON": '{"payload":"a","signatures":[]}',
        }.items()
    ),
    header("none", alg="none"),
    header("HS256 on RSA", alg="HS256"),
    header("number", alg=5),
    header("no algorithm", alg=None),
    header("ES256K", alg="ES256K"),
    header("label of another hash", alg="RS512"),
    header("label of another curve", EC, alg="ES384"),
    header("kid number", kid=5),
    header("kid unknown", kid="zz"),
    header("kid of another", kid="e1"),
    header("no kid", kid=None),
    header("own key", jwk={"kty": "RSA"}),
    with_token("another key of the same name", rsa_key("k1", 3072).token(GOOD)),
    with_token("short Ed25519", ED.token(GOOD)[:-4]),
    with_token("short ES256", EC.token(GOOD)[:-4]),
    claims("unknown issuer", iss="x"),
    claims("issuer list", iss=["ia"]),
    claims("subject", sub=5),
    claims("identifier", jti=5),
    claims("audience number", aud=5),
    claims("audience mixed", aud=["a", 5]),
    claims("expiry text", exp="1"),
    claims("expiry true", exp=True),
    claims("expiry null", exp=None),
    claims("expiry negative", exp=-5),
    claims("expiry huge", exp=10**30),
    claims("expired", exp=NOW - 90),
    claims("just expired", exp=NOW - 20),
    claims("not yet", nbf=NOW + 120),
    claims("nearly", nbf=NOW + 20),
    claims("never expires", exp=0),
    with_token("claims: no expiry", RSA.token({"iss": "ia"})),
    with_token("claims: no issuer", RSA.token({"sub": "s"})),
    claims("text", c="text"),
    claims("number", c=5),
    claims("fraction", c=1.5),
    claims("boolean", c=True),
    claims("list", c=["a", "bb"]),
    claims("empty", c=""),
    claims("null", c=None),
    claims("whole fraction", c=1e3),
    claims("nested", n={"s": "v"}),
    claims("dotted", **{"n.s": "v"}),
]

GA = RSA.token({**GOOD, "aud": "x"})
GB, BAD = EC.token({**GOOD, "iss": "ib"}), "x"
FOR_SEVERAL = [
    Ask("none"),
    with_token("a", GA),
    with_token("a: list", RSA.token({**GOOD, "aud": ["q", "http://x"]})),
    with_token("a: no audience", G),
    with_token("a: another", RSA.token({**GOOD, "aud": "y"})),
    with_token("a: longer", RSA.token({**GOOD, "aud": "xy"})),
    with_token("a: upper", RSA.token({**GOOD, "aud": "HTTPS://x"})),
    Ask("b", (("x-b", GB),)),
    Ask("b: cookie", (("cookie", f"z=1; c={GB}"),)),
    Ask("b: quoted", (("cookie", f'c="{GB}"'),)),
    Ask("b: parameter", (), f"/?t={GB}&u=1"),
    Ask("b in a's place", (bearer(GB),)),
    Ask("a in b's place", (("x-b", GA),)),
    Ask("b: empty", (("x-b", ""),)),
    Ask("both", (bearer(GA), ("x-b", GB))),
    Ask("a good, b bad", (bearer(GA), ("x-b", BAD))),
    Ask("a bad, b good", (bearer(BAD), ("x-b", GB))),
    Ask("both bad", (bearer(BAD), ("x-b", BAD))),
    Ask("a expired, b bad", (bearer(RSA.token({**GOOD, "aud": "x", "exp": 1})), ("x-b", BAD))),
    Ask("c: no keys", (("x-c", f"T {RSA.token({**GOOD, 'iss': 'ic'})}"),)),
    Ask("c: no prefix", (("x-c", G),)),
]
FOR_REQUIRED = [Ask("none"), with_token("good", G), with_token("bad", BAD), with_token("no expiry", RSA.token({"iss": "ia"}))]

STRICTER = [
    header("crit", crit=["bork"]),
    header("b64", b64=False),
    header("another purpose", typ="dpop+jwt"),
    header("typ number", typ=5),
    claims("expiry fraction", exp=NOW + 3600.5),
    claims("issued later", iat=NOW + 86_400),
    claims("line break", c="a\r\nx-evil: y"),
    claims("NUL", c="a\0b"),
    with_token("an empty section", f"{HEAD}..{PAYLOAD}.{SIGNATURE}"),
    with_token("lenient JSON", RSA.token("{'iss':'ia'}")),
    Ask("a second parameter", (), f"/?access_token={G}&access_token=x"),
]
"""Envoy lets these pass."""


class Answer(NamedTuple):
    status: int
    body: str
    reflected: dict[str, str]  # headers as the application gets them
    path: str


def filter_of(text: str) -> listener_pb2.HttpFilter:
    world = World.of(config_set(text), CatalogSnapshot())
    (item,) = jwt_filters(world, scope_of(world, Node("envoy")))
    return item


FILTERS = {"one": filter_of(ONE), "several": filter_of(SEVERAL), "required": filter_of(REQUIRED)}


def listener(name: str) -> Json:
    """Answers with what an application would have seen."""
    types = "type.googleapis.com/envoy.extensions.filters"
    reflected = [(f"r-{header}", f"%REQ({header})%") for header in REFLECTED] + [("r-path", "%REQ(:path)%")]
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
        "response_headers_to_add": [{"header": {"key": key, "value": value}} for key, value in reflected],
    }
    router = {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
    jwt = {name: value for name, value in to_json(FILTERS[name]).items() if name != "@type"}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "normalize_path": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [jwt, router],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}, "filter_chains": [chain]}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Envoy accepts what we compile, keys that nobody could fetch included."""
    bootstrap = {"static_resources": {"listeners": [listener(name) for name in FILTERS]}}
    with running(bootstrap, Path(tmp_path_factory.mktemp("envoy"))) as envoy:
        yield {name: envoy.listener_port(name) for name in FILTERS}


@pytest.fixture(scope="module")
def steps() -> dict[str, Step]:
    made = {}
    for name, item in FILTERS.items():
        problems = Problems()
        message = unpack(item.typed_config, jwt_pb2.JwtAuthentication, field="", problems=problems)
        assert message is not None
        made[name] = compile_jwt(decode_jwt(message, item.name, problems, field=""), now=time.time)
        assert not problems.found
    return made


def from_envoy(port: int, ask: Ask) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(ask.method, ask.target, skip_host=True, skip_accept_encoding=True)
        for name, value in (("host", "h.test"), *ask.headers):
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read().decode()
        seen = {name: response.getheader(f"r-{name}") for name in REFLECTED}
        reflected = {name: value for name, value in seen.items() if value is not None}
        return Answer(response.status, body, reflected, response.getheader("r-path", ""))
    finally:
        connection.close()


def from_us(step: Step, ask: Ask) -> Answer:
    request = inspected(*[(name, value.strip()) for name, value in ask.headers], target=ask.target, method=ask.method)
    refusal = step(request)
    if refusal is not None:
        return Answer(refusal.status, refusal.body.decode(), {}, "")
    seen = {**dict(request.request.headers), **request.header_changes}
    reflected = {name: value.decode() for name in REFLECTED if (value := seen.get(name.encode()))}
    return Answer(200, "ok", reflected, request.target.decode())


ASKS = {"one": FOR_ONE, "several": FOR_SEVERAL, "required": FOR_REQUIRED}


@pytest.mark.parametrize(("which", "asks"), ASKS.items(), ids=ASKS.keys())
def test_the_same_answer(ports: dict[str, int], steps: dict[str, Step], which: str, asks: list[Ask]) -> None:
    """Status, body, and what the application gets."""
    differing = {}
    for ask in asks:
        theirs, ours = from_envoy(ports[which], ask), from_us(steps[which], ask)
        if theirs != ours:
            differing[ask.name] = (theirs, ours)
    assert differing == {}


def test_stricter_where_it_is_meant(ports: dict[str, int], steps: dict[str, Step]) -> None:
    for ask in STRICTER:
        assert (from_envoy(ports["one"], ask).status, from_us(steps["one"], ask).status) == (200, 401), ask.name
    assert len(FOR_ONE) + len(FOR_SEVERAL) + len(FOR_REQUIRED) > 100


def test_policies_see_the_same_claims(ports: dict[str, int], steps: dict[str, Step]) -> None:
    token = RSA.token({**GOOD, "scope": "r  w", "permission": "p", "other": "a b"})
    request = inspected(bearer(token))
    assert steps["one"](request) is None
    assert json.loads(json.dumps(request.claims)) == {**GOOD, "scope": ["r", "w"], "permission": ["p"], "other": "a b"}
    assert from_envoy(ports["one"], with_token("", token)).status == 200
