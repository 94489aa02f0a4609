"""Rules of VirtualService and its parts: each one with a value that breaks it and one that does not."""
# ruff: noqa: E501 - one case a line

from __future__ import annotations

import pytest
import yaml

from meshlib_control.config import NOT_SUPPORTED, Severity, validate_part

LONG_LABEL = "a" * 63

ROUTE = "route: [{destination: {host: a}}]"

# fmt: off
CASES = [
    # HTTPRetry
    ("HTTPRetry", "{attempts: 3, perTryTimeout: 2s, retryOn: '5xx,connect-failure,503,cancelled'}", []),
    ("HTTPRetry", "{attempts: 0}", []),
    ("HTTPRetry", "{attempts: 0, retryOn: 5xx}", [("MSH0127", "retryOn")]),
    ("HTTPRetry", "{perTryTimeout: 1s}", [("MSH0127", "perTryTimeout")]),
    ("HTTPRetry", "{attempts: -1}", [("MSH0127", "attempts")]),
    ("HTTPRetry", "{attempts: 1, retryOn: '5xx, reset'}", [("MSH0127", "retryOn")]),
    ("HTTPRetry", "{attempts: 1, retryOn: '99'}", [("MSH0127", "retryOn")]),
    ("HTTPRetry", "{attempts: 1, retryOn: '599'}", [("MSH0127", "retryOn")]),
    ("HTTPRetry", "{attempts: 1, perTryTimeout: 0s}", [("MSH0105", "perTryTimeout")]),
    ("HTTPRetry", "{attempts: 1, perTryTimeout: 1.0005s}", [("MSH0133", "perTryTimeout")]),
    ("HTTPRetry", "{attempts: 1, perTryTimeout: soon}", [("MSH0106", "perTryTimeout")]),
    ("HTTPRetry", "{attempts: 2147483648}", [("MSH0105", "attempts")]),
    # Destination
    ("Destination", "{host: reviews.prod.svc.cluster.local, subset: v1, port: {number: 65535}}", []),
    ("Destination", "{host: '*.example.com'}", []),
    ("Destination", "{host: '*'}", [("MSH0121", "host")]),
    ("Destination", "{host: a..b}", [("MSH0121", "host")]),
    ("Destination", "{host: -a}", [("MSH0121", "host")]),
    ("Destination", "{host: 10.0.0.1}", [("MSH0121", "host")]),
    ("Destination", f"{{host: {LONG_LABEL}.b}}", []),
    ("Destination", f"{{host: {LONG_LABEL}a.b}}", [("MSH0121", "host")]),
    ("Destination", f"{{host: {'.'.join([LONG_LABEL] * 4)}}}", []),
    ("Destination", f"{{host: {'.'.join([LONG_LABEL] * 4)}.b}}", [("MSH0121", "host")]),
    ("Destination", "{host: a, subset: v_1}", [("MSH0138", "subset")]),
    ("Destination", "{host: a, port: {number: 0}}", [("MSH0125", "port.number")]),
    ("Destination", "{host: a, port: {}}", [("MSH0125", "port.number")]),
    ("Destination", "{host: a, port: {number: 65536}}", [("MSH0125", "port.number")]),
    ("Destination", "{}", [("MSH0103", "host")]),
    # Matches
    ("HTTPRoute", f"{{match: [{{uri: {{prefix: /a}}, method: {{exact: GET}}}}, {{}}], {ROUTE}}}", []),
    ("HTTPRoute", f"{{match: [{{uri: {{regex: '/[a-z]+/(?P<id>\\d+)'}}}}], {ROUTE}}}", []),
    ("HTTPRoute", f"{{match: [{{uri: {{regex: '(?=a)b'}}}}], {ROUTE}}}", [("MSH0123", "match[0].uri.regex")]),
    ("HTTPRoute", f"{{match: [{{uri: {{regex: '{'a' * 1024}'}}}}], {ROUTE}}}", []),
    ("HTTPRoute", f"{{match: [{{uri: {{regex: '{'a' * 1025}'}}}}], {ROUTE}}}", [("MSH0123", "match[0].uri.regex")]),
    ("HTTPRoute", f"{{match: [{{uri: {{prefix: ''}}}}], {ROUTE}}}", [("MSH0124", "match[0].uri.prefix")]),
    ("HTTPRoute", f"{{match: [{{uri: {{exact: ''}}}}], {ROUTE}}}", []),
    ("HTTPRoute", f"{{match: [{{queryParams: {{q: {{regex: '*'}}}}}}], {ROUTE}}}", [("MSH0123", "match[0].queryParams.q.regex")]),
    ("HTTPRoute", f"{{match: [{{withoutHeaders: {{x: {{regex: '*'}}}}}}], {ROUTE}}}", []),
    ("HTTPRoute", f"{{match: [{{headers: {{x: {{regex: '*'}}}}}}], {ROUTE}}}", [("MSH0123", "match[0].headers.x.regex")]),
    ("HTTPRoute", f"{{match: [{{headers: {{'x:y': {{}}}}}}], {ROUTE}}}", [("MSH0126", 'match[0].headers["x:y"]')]),
    ("HTTPRoute", f"{{match: [{{headers: {{'@request.auth.claims[a][b]': {{}}}}}}], {ROUTE}}}", []),
    ("HTTPRoute", f"{{match: [{{port: 65536}}], {ROUTE}}}", [("MSH0125", "match[0].port")]),
    ("HTTPRoute", f"{{match: [{{sourceLabels: {{'a/b/c': d}}}}], {ROUTE}}}", [("MSH0129", 'match[0].sourceLabels["a/b/c"]')]),
    ("HTTPRoute", f"{{match: [{{sourceNamespace: a.b}}], {ROUTE}}}", [("MSH0124", "match[0].sourceNamespace")]),
    # What a rule does
    ("HTTPRoute", "{}", [("MSH0131", "")]),
    ("HTTPRoute", "{route: []}", [("MSH0131", "")]),
    ("HTTPRoute", f"{{{ROUTE}, redirect: {{uri: /}}}}", [("MSH0131", "redirect")]),
    ("HTTPRoute", f"{{{ROUTE}, directResponse: {{status: 200}}}}", [("MSH0131", "directResponse")]),
    ("HTTPRoute", "{redirect: {uri: /}, fault: {abort: {httpStatus: 500}}}", [("MSH0131", "fault")]),
    ("HTTPRoute", "{directResponse: {status: 200}, rewrite: {uri: /}}", [("MSH0131", "rewrite")]),
    ("HTTPRoute", "{redirect: {uri: /}, directResponse: {status: 200}}", [("MSH0131", "directResponse")]),
    ("DelegateHTTPRoute", "{delegate: {name: a}}", [("MSH0131", "delegate")]),
    ("RootHTTPRoute", "{delegate: {name: a}}", []),
    # Weights
    ("HTTPRoute", "{route: [{destination: {host: a}, weight: 0}]}", []),
    ("HTTPRoute", "{route: [{destination: {host: a}}, {destination: {host: b}, weight: 1}]}", []),
    ("HTTPRoute", "{route: [{destination: {host: a}}, {destination: {host: b}}]}", [("MSH0132", "route")]),
    ("HTTPRoute", "{route: [{destination: {host: a}, weight: -5}]}", [("MSH0132", "route[0].weight")]),
    # Headers and authority
    ("HTTPRoute", f"{{headers: {{request: {{set: {{Host: a}}}}}}, {ROUTE}}}", []),
    ("HTTPRoute", f"{{headers: {{request: {{set: {{':path': a}}}}}}, {ROUTE}}}", [("MSH0126", 'headers.request.set[":path"]')]),
    ("HTTPRoute", f"{{headers: {{request: {{remove: [host]}}}}, {ROUTE}}}", [("MSH0126", "headers.request.remove[0]")]),
    ("HTTPRoute", f"{{headers: {{response: {{set: {{':authority': a}}}}}}, {ROUTE}}}", [("MSH0126", 'headers.response.set[":authority"]')]),
    ("HTTPRoute", f"{{headers: {{request: {{add: {{x: '100%%'}}}}}}, {ROUTE}}}", []),
    ("HTTPRoute", f"{{headers: {{request: {{add: {{x: '100%'}}}}}}, {ROUTE}}}", [("MSH0126", "headers.request.add.x")]),
    ("HTTPRoute", f"{{rewrite: {{authority: b}}, headers: {{request: {{set: {{host: a}}}}}}, {ROUTE}}}", [("MSH0141", "headers")]),
    (
        "HTTPRoute",
        "{headers: {request: {set: {host: a}}}, route: [{destination: {host: a}, headers: {request: {set: {':authority': b}}}}]}",
        [("MSH0141", "route[0].headers")],
    ),
    # Timeouts
    ("HTTPRoute", f"{{timeout: 1ms, {ROUTE}}}", []),
    ("HTTPRoute", f"{{timeout: 0s, {ROUTE}}}", [("MSH0105", "timeout")]),
    ("HTTPRoute", f"{{timeout: 1500us, {ROUTE}}}", [("MSH0133", "timeout")]),
    # Redirects, answers, rewrites
    ("HTTPRedirect", "{uri: /a}", []),
    ("HTTPRedirect", "{uri: '', authority: ''}", [("MSH0143", "")]),
    ("HTTPRedirect", "{uri: /a, redirectCode: 308}", []),
    ("HTTPRedirect", "{uri: /a, redirectCode: 404}", [("MSH0140", "redirectCode")]),
    ("HTTPRedirect", "{port: 1, derivePort: FROM_REQUEST_PORT}", [("MSH0107", "derivePort")]),
    ("HTTPRedirect", "{uri: /a, prefixRewrite: /b}", [("MSH0141", "prefixRewrite")]),
    ("HTTPDirectResponse", "{status: 599}", []),
    ("HTTPDirectResponse", "{status: 600}", [("MSH0140", "status")]),
    ("HTTPDirectResponse", "{status: 200, body: {string: a, bytes: YQ==}}", [("MSH0107", "body.bytes")]),
    ("HTTPDirectResponse", "{status: 200, body: {bytes: '!'}}", [("MSH0102", "body.bytes")]),
    ("HTTPDirectResponse", f"{{status: 200, body: {{string: {'x' * (1 << 20)}}}}}", [("MSH0105", "body")]),
    ("HTTPRewrite", "{uri: '', authority: ''}", [("MSH0143", "")]),
    ("HTTPRewrite", "{uriRegexRewrite: {match: '^/a(.*)$', rewrite: '/b\\1'}}", []),
    ("HTTPRewrite", "{uriRegexRewrite: {match: '('}}", [("MSH0141", "uriRegexRewrite"), ("MSH0123", "uriRegexRewrite.match")]),
    # Faults
    ("HTTPFaultInjection", "{delay: {fixedDelay: 1s}}", []),
    ("HTTPFaultInjection", "{delay: {}, abort: {}}", []),
    ("HTTPFaultInjectionDelay", "{fixedDelay: 1s, percent: 101}", [("MSH0139", "percent")]),
    ("HTTPFaultInjectionDelay", "{exponentialDelay: 1s}", [("MSH0137", "exponentialDelay")]),
    ("HTTPFaultInjectionAbort", "{grpcStatus: UNAVAILABLE}", []),
    ("HTTPFaultInjectionAbort", "{grpcStatus: '14'}", [("MSH0140", "grpcStatus")]),
    ("HTTPFaultInjectionAbort", "{httpStatus: 500, grpcStatus: UNAVAILABLE}", [("MSH0107", "grpcStatus")]),
    ("HTTPFaultInjectionAbort", "{http2Error: x}", [("MSH0137", "http2Error")]),
    # CORS
    ("CORSPolicy", "{allowOrigins: [{exact: 'https://a'}], allowMethods: [GET, '*'], maxAge: 2s}", []),
    ("CORSPolicy", "{allowOrigins: [{}]}", [("MSH0124", "allowOrigins[0]")]),
    ("CORSPolicy", "{allowHeaders: ['a b']}", [("MSH0126", "allowHeaders[0]")]),
    ("CORSPolicy", "{allowHeaders: ['*'], exposeHeaders: ['*']}", []),
    ("CORSPolicy", "{allowHeaders: ['x-*'], exposeHeaders: ['']}", [("MSH0126", "allowHeaders[0]"), ("MSH0126", "exposeHeaders[0]")]),
    ("CORSPolicy", "{maxAge: 1500ms}", [("MSH0133", "maxAge")]),
    # VirtualService
    ("VirtualService", f"{{hosts: [a, b.c, '*.d.e', 10.0.0.1, '::1'], http: [{{{ROUTE}}}]}}", []),
    ("VirtualService", f"{{hosts: [a, A], http: [{{{ROUTE}}}]}}", []),
    ("VirtualService", f"{{hosts: [a, a], http: [{{{ROUTE}}}]}}", [("MSH0122", "hosts[1]")]),
    ("VirtualService", f"{{hosts: [x.foo.com, '*.foo.com'], http: [{{{ROUTE}}}]}}", [("MSH0122", "hosts[1]")]),
    ("VirtualService", f"{{hosts: ['*.foo.com', '*.bar.com'], http: [{{{ROUTE}}}]}}", []),
    ("VirtualService", f"{{hosts: ['a.*'], http: [{{{ROUTE}}}]}}", [("MSH0121", "hosts[0]")]),
    ("VirtualService", f"{{hosts: ['*'], gateways: [gw], http: [{{{ROUTE}}}]}}", []),
    ("VirtualService", f"{{hosts: ['*'], gateways: [gw, mesh], http: [{{{ROUTE}}}]}}", [("MSH0121", "hosts[0]")]),
    ("VirtualService", f"{{hosts: [a], gateways: ['b@d'], http: [{{{ROUTE}}}]}}", [("MSH0130", "gateways[0]")]),
    ("VirtualService", f"{{hosts: [a], gateways: [ns/], http: [{{{ROUTE}}}]}}", [("MSH0130", "gateways[0]")]),
    ("VirtualService", f"{{gateways: [gw], http: [{{{ROUTE}}}]}}", [("MSH0131", "gateways")]),
    ("VirtualService", f"{{hosts: [a], exportTo: [., other], http: [{{{ROUTE}}}]}}", []),
    ("VirtualService", f"{{hosts: [a], exportTo: [., default], http: [{{{ROUTE}}}]}}", [("MSH0128", "exportTo[1]")]),
    ("VirtualService", f"{{hosts: [a], exportTo: ['*', other], http: [{{{ROUTE}}}]}}", [("MSH0128", "exportTo[0]")]),
    ("VirtualService", f"{{hosts: [a], exportTo: ['~'], http: [{{{ROUTE}}}]}}", [("MSH0128", "exportTo[0]")]),
    ("VirtualService", f"{{hosts: [a], exportTo: ['a b'], http: [{{{ROUTE}}}]}}", [("MSH0128", "exportTo[0]")]),
    ("VirtualService", f"{{hosts: [a.b], tls: [{{match: [{{sniHosts: [a.b]}}], {ROUTE}}}]}}", []),
    ("VirtualService", f"{{hosts: [a.b], tls: [{{match: [{{sniHosts: [c.b]}}], {ROUTE}}}]}}", [("MSH0121", "tls[0].match[0].sniHosts[0]")]),
    ("VirtualService", f"{{hosts: ['*.b'], tls: [{{match: [{{sniHosts: ['*.a.b']}}], {ROUTE}}}]}}", []),
    ("VirtualService", "{hosts: [a.b], tls: [{match: []}]}", [("MSH0143", "tls[0].match"), ("MSH0131", "tls[0].route")]),
    ("VirtualService", f"{{hosts: [a], tcp: [{{match: [{{destinationSubnets: [10.0.0.0/8], port: 1}}], {ROUTE}}}]}}", []),
    ("VirtualService", f"{{hosts: [a], tcp: [{{match: [{{destinationSubnets: [10.0.0.0/33]}}], {ROUTE}}}]}}", [("MSH0135", "tcp[0].match[0].destinationSubnets[0]")]),
    ("VirtualService", "{hosts: [a], tcp: [{}]}", [("MSH0131", "tcp[0].route")]),
]
# fmt: on


@pytest.mark.parametrize(("part", "spec", "expected"), CASES, ids=[f"{part} {spec[:60]}" for part, spec, _ in CASES])
def test_rules(part: str, spec: str, expected: list[tuple[str, str]]) -> None:
    found = validate_part(part, yaml.safe_load(spec))
    wrong = [(item.code, item.field) for item in found if item.severity is Severity.ERROR and item.code != NOT_SUPPORTED]
    assert wrong == expected
