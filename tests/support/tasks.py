"""What Istio's tasks and samples configure, in words of our own: what people will bring along."""

# ruff: noqa: E501 - one task a line

from __future__ import annotations

from dataclasses import dataclass

NETWORKING = "networking.istio.io/v1"
SECURITY = "security.istio.io/v1"


@dataclass(frozen=True)
class Task:
    """`refused`: code and field of what this mesh says no to; none: it is executed."""

    name: str
    kind: str
    spec: str
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        group = SECURITY if self.kind in _SECURITY else NETWORKING
        return f"{{apiVersion: {group}, kind: {self.kind}, metadata: {{name: {self.name}}}, spec: {self.spec}}}\n"


_SECURITY = ("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication")
_V1 = "destination: {host: httpbin, subset: v1}"
_V2 = "destination: {host: httpbin, subset: v2}"
_ALL = "destination: {host: httpbin}"
_GATEWAY = (("MSH0108", "spec.gateways[0]"),)

TASKS = (
    # --- traffic management
    Task("versions", "DestinationRule", "{host: httpbin, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}"),
    Task("all-to-one", "VirtualService", f"{{hosts: [httpbin], http: [{{route: [{{{_V1}}}]}}]}}"),
    Task("by-user", "VirtualService", f"{{hosts: [httpbin], http: [{{match: [{{headers: {{end-user: {{exact: jason}}}}}}], route: [{{{_V2}}}]}}, {{route: [{{{_V1}}}]}}]}}"),
    Task("by-browser", "VirtualService", f"{{hosts: [httpbin], http: [{{match: [{{headers: {{user-agent: {{regex: '.*Firefox.*'}}}}}}], route: [{{{_V2}}}]}}, {{route: [{{{_V1}}}]}}]}}"),
    Task("delay", "VirtualService", f"{{hosts: [httpbin], http: [{{match: [{{headers: {{end-user: {{exact: jason}}}}}}], fault: {{delay: {{percentage: {{value: 100.0}}, fixedDelay: 7s}}}}, route: [{{{_V1}}}]}}, {{route: [{{{_V1}}}]}}]}}"),
    Task("abort", "VirtualService", f"{{hosts: [httpbin], http: [{{fault: {{abort: {{percentage: {{value: 100.0}}, httpStatus: 500}}}}, route: [{{{_V1}}}]}}]}}"),
    Task("shift", "VirtualService", f"{{hosts: [httpbin], http: [{{route: [{{{_V1}, weight: 50}}, {{{_V2}, weight: 50}}]}}]}}"),
    Task("tcp-shift", "VirtualService", "{hosts: [httpbin], tcp: [{match: [{port: 9000}], route: [{destination: {host: httpbin, port: {number: 9000}}, weight: 80}, {destination: {host: httpbin}, weight: 20}]}]}", (("MSH0108", "spec.tcp"),)),
    Task("timeout", "VirtualService", f"{{hosts: [httpbin], http: [{{route: [{{{_V2}}}], timeout: 0.5s}}]}}"),
    Task("retries", "VirtualService", f"{{hosts: [httpbin], http: [{{route: [{{{_V1}}}], retries: {{attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,connect-failure,refused-stream'}}}}]}}"),
    Task("breaker", "DestinationRule", "{host: httpbin, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}, outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}}}"),
    Task("mirror", "VirtualService", f"{{hosts: [httpbin], http: [{{route: [{{{_V1}, weight: 100}}], mirror: {{host: httpbin, subset: v2}}, mirrorPercentage: {{value: 100.0}}}}]}}"),
    Task("mirror-some", "VirtualService", f"{{hosts: [httpbin], http: [{{route: [{{{_V1}}}], mirrors: [{{destination: {{host: httpbin, subset: v2}}, percentage: {{value: 10}}}}]}}]}}"),
    Task("rewrite", "VirtualService", f"{{hosts: [httpbin], http: [{{match: [{{uri: {{prefix: /v1/old}}}}, {{uri: {{exact: /old}}}}], rewrite: {{uri: /new}}, route: [{{{_ALL}}}]}}]}}"),
    Task("redirect", "VirtualService", "{hosts: [httpbin], http: [{match: [{uri: {exact: /v1/getProductRatings}}], redirect: {uri: /v1/bookRatings, authority: newratings.default.svc.cluster.local}}]}"),
    Task("answer", "VirtualService", f"{{hosts: [httpbin], http: [{{match: [{{uri: {{exact: /v1/down}}}}], directResponse: {{status: 503, body: {{string: down}}}}}}, {{route: [{{{_ALL}}}]}}]}}"),
    Task("browsers", "VirtualService", f"{{hosts: [httpbin], http: [{{corsPolicy: {{allowOrigins: [{{exact: 'https://example.com'}}], allowMethods: [POST, GET], allowCredentials: false, allowHeaders: [X-Foo-Bar], maxAge: 24h}}, route: [{{{_ALL}}}]}}]}}"),
    Task("header-changes", "VirtualService", f"{{hosts: [httpbin], http: [{{headers: {{request: {{set: {{test: 'true'}}}}}}, route: [{{{_V1}, headers: {{response: {{remove: [foo]}}}}, weight: 25}}, {{{_V2}, weight: 75}}]}}]}}"),
    Task("query", "VirtualService", f"{{hosts: [httpbin], http: [{{match: [{{queryParams: {{beta: {{exact: 'true'}}}}, withoutHeaders: {{x-internal: {{}}}}, method: {{exact: GET}}}}], route: [{{{_V2}}}]}}]}}"),
    Task("sources", "VirtualService", f"{{hosts: [httpbin], http: [{{match: [{{sourceLabels: {{app: sleep}}, sourceNamespace: default}}], route: [{{{_V2}}}]}}, {{route: [{{{_V1}}}]}}]}}"),
    Task("delegating", "VirtualService", "{hosts: [httpbin], http: [{match: [{uri: {prefix: /page}}], delegate: {name: pages, namespace: default}}]}"),
    Task("pages", "VirtualService", f"{{http: [{{match: [{{uri: {{prefix: /page/a}}}}], route: [{{{_ALL}}}]}}]}}"),
    # --- balancing
    Task("cookie", "DestinationRule", "{host: httpbin, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}}}}}"),
    Task("warm-up", "DestinationRule", "{host: httpbin, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 60s, minimumPercent: 10, aggression: 1.5}}}}"),
    Task("failover", "DestinationRule", "{host: httpbin, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}, loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: true, failover: [{from: region1, to: region2}]}}, outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 1m}}}"),
    Task("distribute", "DestinationRule", "{host: httpbin, trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: true, distribute: [{from: 'region1/zone1/*', to: {'region1/zone1/*': 70, 'region1/zone2/*': 20, 'region3/zone4/*': 10}}]}}, outlierDetection: {consecutive5xxErrors: 100, interval: 1s, baseEjectionTime: 1m}}}"),
    Task("by-port", "DestinationRule", "{host: httpbin, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: LEAST_REQUEST}}, {port: {number: 81}, loadBalancer: {simple: ROUND_ROBIN}}]}}"),
    # --- out of the mesh
    Task("outside-http", "ServiceEntry", "{hosts: [api.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, location: MESH_EXTERNAL}"),
    Task("outside-https", "ServiceEntry", "{hosts: [www.example.com], ports: [{number: 443, name: https, protocol: HTTPS}], resolution: DNS, location: MESH_EXTERNAL}"),
    Task("originate", "DestinationRule", "{host: edition.example.com, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, sni: edition.example.com}}]}}"),
    Task("edition", "ServiceEntry", "{hosts: [edition.example.com], ports: [{number: 80, name: http-port, protocol: HTTP, targetPort: 443}, {number: 443, name: https-port, protocol: HTTPS}], resolution: DNS}"),
    Task("wildcard", "ServiceEntry", "{hosts: ['*.wikipedia.org'], ports: [{number: 443, name: https, protocol: HTTPS}], resolution: NONE}"),
    Task("slow-api", "VirtualService", "{hosts: [api.example.com], http: [{timeout: 3s, route: [{destination: {host: api.example.com}, weight: 100}]}]}"),
    Task("mongo", "ServiceEntry", "{hosts: [mongo.example.com], addresses: [192.192.192.192/24], ports: [{number: 27017, name: tcp, protocol: MONGO}], location: MESH_EXTERNAL, resolution: STATIC, endpoints: [{address: 2.2.2.2}]}", (("MSH0108", "spec.addresses[0]"),)),
    Task("passthrough", "VirtualService", "{hosts: [www.example.com], tls: [{match: [{port: 443, sniHosts: [www.example.com]}], route: [{destination: {host: www.example.com}}]}]}", (("MSH0108", "spec.tls"),)),
    Task("machine", "WorkloadEntry", "{address: 127.0.0.7, labels: {app: details, instance-id: vm1}, serviceAccount: details}"),
    Task("machines", "ServiceEntry", "{hosts: [details.example.com], location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], resolution: STATIC, workloadSelector: {labels: {app: details}}}"),
    Task("narrow", "Sidecar", "{egress: [{hosts: ['./*', 'istio-system/*', '*/*.example.com', '*/httpbin.default.svc.cluster.local']}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"),
    # --- gateways
    Task("ingress", "VirtualService", f"{{hosts: [httpbin.example.com], gateways: [httpbin-gateway], http: [{{match: [{{uri: {{prefix: /status}}}}], route: [{{{_ALL}}}]}}]}}", _GATEWAY),
    Task("doors", "Gateway", "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}", (("MSH0006", "kind"),)),
    # --- security
    Task("strict", "PeerAuthentication", "{mtls: {mode: STRICT}}"),
    Task("strict-but", "PeerAuthentication", "{selector: {matchLabels: {app: httpbin}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}"),
    Task("nothing", "AuthorizationPolicy", "{}"),
    Task("reader", "AuthorizationPolicy", "{selector: {matchLabels: {app: httpbin}}, action: ALLOW, rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/sleep']}}], to: [{operation: {methods: [GET], paths: ['/info*']}}], when: [{key: 'request.auth.claims[iss]', values: ['https://issuer.example.com']}]}]}"),
    Task("deny-get", "AuthorizationPolicy", "{selector: {matchLabels: {app: httpbin}}, action: DENY, rules: [{to: [{operation: {methods: [GET]}}], when: [{key: 'request.headers[x-token]', notValues: [admin]}]}]}"),
    Task("tokens", "RequestAuthentication", "{selector: {matchLabels: {app: httpbin}}, jwtRules: [{issuer: 'testing@secure.example.com', jwksUri: 'https://keys.example.com/jwks.json', outputClaimToHeaders: [{header: x-jwt-claim-foo, claim: foo}]}]}"),
)  # fmt: skip
