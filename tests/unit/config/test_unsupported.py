"""What is not executed is refused by name."""

from __future__ import annotations

import pytest
import yaml
from msgspec import inspect as types

from meshlib_control.config import KINDS, NOT_SUPPORTED, validate_part
from meshlib_control.config.unsupported import check_supported

ROUTE = "route: [{destination: {host: a}}]"
A = "destination: {host: a}"


HASH = "trafficPolicy.loadBalancer.consistentHash"


def refused(kind: str, spec: str) -> list[str]:
    return [item.field for item in validate_part(kind, yaml.safe_load(spec)) if item.code == NOT_SUPPORTED]


@pytest.mark.parametrize(
    ("kind", "spec", "fields"),
    [
        ("VirtualService", f"{{hosts: [a], gateways: [mesh], http: [{{name: x, {ROUTE}}}]}}", []),
        ("VirtualService", f"{{hosts: [a], gateways: [mesh, gw], http: [{{{ROUTE}}}]}}", ["gateways[1]"]),
        ("VirtualService", f"{{http: [{{{ROUTE}}}]}}", []),
        ("VirtualService", f"{{hosts: [a], tls: [], tcp: [], http: [{{{ROUTE}, mirrors: [], headers: {{}}}}]}}", []),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}}}, {{{ROUTE}, mirror: {{host: b}}}}]}}", []),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, rewrite: {{uri: '/a#b'}}}}]}}", ["http[0].rewrite.uri"]),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, rewrite: {{uri: /ä}}}}]}}", ["http[0].rewrite.uri"]),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, rewrite: {{uri: '/%C3%A4?b=c'}}}}]}}", []),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, rewrite: {{authority: a b}}}}]}}", ["http[0].rewrite.authority"]),
        ("VirtualService", "{hosts: [a], http: [{redirect: {uri: '/#x'}}]}", ["http[0].redirect.uri"]),
        ("VirtualService", "{hosts: [a], http: [{redirect: {port: 65535, scheme: https}}]}", []),
        (
            "VirtualService",
            "{hosts: [a], http: [{redirect: {port: 65536, scheme: 'a b'}}]}",
            ["http[0].redirect.port", "http[0].redirect.scheme"],
        ),
        (
            "VirtualService",
            f"{{hosts: [a], http: [{{{ROUTE}, rewrite: {{uriRegexRewrite: {{match: '(a)', rewrite: '\\2'}}}}}}]}}",
            ["http[0].rewrite.uriRegexRewrite"],
        ),
        (
            "VirtualService",
            f"{{hosts: [a], http: [{{{ROUTE}, rewrite: {{uriRegexRewrite: {{match: '(a)', rewrite: '\\1\\\\2'}}}}}}]}}",
            [],
        ),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, retries: {{attempts: 1000}}}}]}}", []),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, retries: {{attempts: 1001}}}}]}}", ["http[0].retries.attempts"]),
        (
            "VirtualService",
            f"{{hosts: [a], http: [{{route: [{{{A}, weight: {2**31 - 1}}}, {{{A}, weight: {2**31 - 1}}}]}}]}}",
            [],
        ),
        *(
            ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, headers: {{request: {operations}}}}}]}}", fields)
            for operations, fields in (
                ("{set: {a-b: 'c d'}, remove: [x_y]}", []),
                ("{set: {'a b': c}}", ["http[0].headers.request.set"]),
                ('{add: {a: "b\\nc"}}', ["http[0].headers.request.add"]),
                ("{set: {host: 'a b'}}", ["http[0].headers.request.set"]),
                ("{remove: ['a b']}", ["http[0].headers.request.remove[0]"]),
            )
        ),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, fault: {{abort: {{httpStatus: 503}}}}}}]}}", []),
        ("VirtualService", f"{{hosts: [a], http: [{{{ROUTE}, headers: {{request: {{set: {{a: 5%%}}}}}}}}]}}", []),
        (
            "VirtualService",
            f"{{hosts: [a], http: [{{{ROUTE}, headers: {{response: {{add: {{a: '%PROTOCOL%'}}}}}}}}]}}",
            ["http[0].headers.response.add"],
        ),
        (
            "VirtualService",
            "{hosts: [a], http: [{redirect: {uri: /a, redirectCode: 302}}, {redirect: {uri: /a, redirectCode: 304}}]}",
            ["http[1].redirect.redirectCode"],
        ),
        (
            "VirtualService",
            f"{{hosts: [a], http: [{{match: [{{scheme: {{exact: x}}, statPrefix: y, gateways: [a]}}], {ROUTE}}}]}}",
            ["http[0].match[0].gateways[0]"],
        ),
        ("VirtualService", f"{{hosts: [a], http: [{{match: [{{gateways: [mesh]}}], {ROUTE}}}]}}", []),
        ("DestinationRule", "{host: a, trafficPolicy: {tls: {mode: DISABLE}}}", []),
        ("DestinationRule", "{host: a, trafficPolicy: {tls: {mode: SIMPLE, sni: x, subjectAltNames: [x.test]}}}", []),
        ("DestinationRule", "{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://a/b']}}}", []),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {tls: {mode: SIMPLE, subjectAltNames: ['spiffe://a/b']}}}",
            ["trafficPolicy.tls"],
        ),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {tls: {mode: SIMPLE, credentialName: x, caCrl: y}}}",
            ["trafficPolicy.tls.credentialName", "trafficPolicy.tls.caCrl"],
        ),
        ("DestinationRule", "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}}", []),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, caCrl: /crl}}]}}",
            ["trafficPolicy.portLevelSettings[0].tls.caCrl"],
        ),
        ("ServiceEntry", "{hosts: [a.b], resolution: STATIC, subjectAltNames: [a]}", []),
        ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}}}", []),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {loadBalancer: {backendUtilization: {}, warmup: {duration: 1s, aggression: 0}}}}",
            ["trafficPolicy.loadBalancer.backendUtilization", "trafficPolicy.loadBalancer.warmup.aggression"],
        ),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {ringHash: {minimumRingSize: 8388609}}}}}",
            ["trafficPolicy.loadBalancer.consistentHash.ringHash.minimumRingSize"],
        ),
        *(
            ("DestinationRule", f"{{host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {hashed}}}}}}}", fields)
            for hashed, fields in (
                ("{httpHeaderName: ':authority'}", []),
                ("{httpHeaderName: 'a b'}", [f"{HASH}.httpHeaderName"]),
                ("{httpQueryParameterName: ''}", [f"{HASH}.httpQueryParameterName"]),
                ("{httpCookie: {name: 'a;b', path: '/;', ttl: 0s}}", [f"{HASH}.httpCookie.name", f"{HASH}.httpCookie.path"]),
                ("{httpCookie: {name: a, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}}", []),
                (
                    "{httpCookie: {name: a, attributes: [{name: 'Same Site', value: 'x;'}]}}",
                    [f"{HASH}.httpCookie.attributes[0].name", f"{HASH}.httpCookie.attributes[0].value"],
                ),
            )
        ),
        ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH, warmup: {duration: 1s}}}}", []),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}",
            ["trafficPolicy.connectionPool.http.h2UpgradePolicy"],
        ),
        (
            "DestinationRule",
            "{host: a, subsets: [{name: x}, {name: y, trafficPolicy: {tls: {mode: SIMPLE, caCrl: /crl}}}]}",
            ["subsets[1].trafficPolicy.tls.caCrl"],
        ),
        ("DestinationRule", "{host: a, trafficPolicy: {connectionPool: {http: {useClientProtocol: false}}}}", []),
        ("ServiceEntry", "{hosts: [a.b], resolution: STATIC, addresses: [10.0.0.1]}", []),
        ("ServiceEntry", "{hosts: [a.b], resolution: STATIC, addresses: [10.0.0.1, 10.0.0.0/8]}", ["addresses[1]"]),
        ("ServiceEntry", "{hosts: ['*.b'], resolution: DYNAMIC_DNS}", []),
        ("Sidecar", "{egress: [{hosts: ['*/*'], captureMode: IPTABLES}], outboundTrafficPolicy: {}}", []),
        (
            "Sidecar",
            "{egress: [{hosts: ['*/*'], captureMode: NONE, bind: 1.1.1.1, port: {number: 80, protocol: HTTP_PROXY}}]}",
            ["egress[0].bind", "egress[0].port.protocol", "egress[0].captureMode"],
        ),
        (
            "Sidecar",
            "{ingress: [{port: {number: 80}, defaultEndpoint: ':80', connectionPool: {http: {maxRetries: 1}}}]}",
            ["ingress[0].defaultEndpoint", "ingress[0].connectionPool.http.maxRetries"],
        ),
        ("Sidecar", "{inboundConnectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}", []),
        ("WorkloadGroup", "{template: {labels: {a: b}, ports: {http: 1}}, probe: {grpc: {port: 1}}}", []),
        (
            "WorkloadGroup",
            "{template: {address: 1.1.1.1}, probe: {httpGet: {port: 1, scheme: HTTPS}}}",
            ["template.address", "probe.httpGet.scheme"],
        ),
        ("ProxyConfig", "{selector: {matchLabels: {a: b}}}", []),
        ("ProxyConfig", "{concurrency: 0}", ["concurrency"]),
        ("WorkloadEntry", "{address: 10.0.0.1}", []),
        ("WorkloadEntry", "{address: 'unix:///a', network: n}", ["address", "network"]),
    ],
)
def test_refused_fields(kind: str, spec: str, fields: list[str]) -> None:
    assert refused(kind, spec) == fields


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_row_names_a_field_of_its_kind(kind: str) -> None:
    for row in KINDS[kind].unsupported:
        info: types.Type = types.type_info(KINDS[kind].spec)
        for step in row.path.replace("[]", ".[]").split("."):
            if step:
                info = inner(info, step)


CANDIDATES: list[object] = [
    "x", "NONE", "UPGRADE", "HTTPS", "HTTP_PROXY", "unix:///a", "10.0.0.0/8", "a b;", "/ä", "\\x", "", "ISTIO_MUTUAL",
    True, 0, 304, 70000, 2**33, 5, {}, {"a": "%X%"}, {"a b": "c"}, {"a": "b"}, {"match": "a", "rewrite": "\\1"},
    {"mode": "SIMPLE", "subjectAltNames": ["spiffe://a/b"]}, [{"weight": 2**32}], [{}], ["mesh"], "mesh", 1, 301, "/a",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "index"), [(kind, index) for kind in sorted(KINDS) for index in range(len(KINDS[kind].unsupported))]
)
def test_every_row_refuses_something_at_its_place(kind: str, index: int) -> None:
    """And lets something pass, if it does not refuse whatever is given."""
    row = KINDS[kind].unsupported[index]
    bad = next(value for value in CANDIDATES if row.refuses(value))
    assert row.instead in " ".join(problem.message for problem in check_supported((row,), around(row.path, bad)))
    assert list(check_supported((row,), {})) == []
    if row.only:
        fine = next(value for value in CANDIDATES if not row.refuses(value))
        assert list(check_supported((row,), around(row.path, fine))) == []


def around(path: str, value: object) -> object:
    """A spec with the value at the path."""
    for step in reversed(path.replace("[]", ".[]").split(".")):
        value = [value] if step == "[]" else {step: value}
    return value


def inner(info: types.Type, step: str) -> types.Type:
    while isinstance(info, types.Metadata | types.UnionType):
        info = info.type if isinstance(info, types.Metadata) else info.types[0]
    if step == "[]":
        assert isinstance(info, types.VarTupleType)
        return info.item_type
    assert isinstance(info, types.StructType)
    return {field.encode_name: field.type for field in info.fields}[step]


def test_the_message_says_what_and_what_instead() -> None:
    (problem,) = check_supported(KINDS["VirtualService"].unsupported, {"hosts": ["a"], "gateways": ["gw"]})
    assert problem.message.startswith("gateways: gw is not supported by this version; it is refused rather than ignored: ")
