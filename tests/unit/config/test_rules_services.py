"""Rules of DestinationRule, ServiceEntry, WorkloadEntry and MeshConfig, broken and kept."""
# ruff: noqa: E501 - one case a line

from __future__ import annotations

import pytest
import yaml

from meshlib_control.config import NOT_SUPPORTED, Severity, validate_part

HTTP = "ports: [{number: 80, name: http, protocol: HTTP}]"
TCP = "ports: [{number: 81, name: tcp, protocol: TCP}]"

# fmt: off
CASES = [
    # DestinationRule
    ("DestinationRule", "{host: reviews}", []),
    ("DestinationRule", "{host: '*.example.com', subsets: [{name: v1, labels: {'app.kubernetes.io/version': '1.0'}}]}", []),
    ("DestinationRule", "{host: a_b}", [("MSH0121", "host")]),
    ("DestinationRule", "{host: a, subsets: [{name: ''}]}", [("MSH0138", "subsets[0].name")]),
    ("DestinationRule", "{host: a, subsets: [{name: v1, labels: {a: 'b c'}}]}", [("MSH0129", "subsets[0].labels.a")]),
    ("DestinationRule", "{host: a, subsets: [{name: v1}, {name: v1}]}", []),
    ("DestinationRule", "{host: a, trafficPolicy: {}}", [("MSH0143", "trafficPolicy")]),
    ("DestinationRule", "{host: a, subsets: [{name: v1, trafficPolicy: {}}]}", [("MSH0143", "subsets[0].trafficPolicy")]),
    ("DestinationRule", "{host: a, workloadSelector: {matchLabels: {app: x}}, exportTo: [.]}", []),
    ("DestinationRule", "{host: a, workloadSelector: {matchLabels: {app: x}}, exportTo: ['*']}", [("MSH0128", "exportTo")]),
    ("DestinationRule", "{host: a, workloadSelector: {matchLabels: {app: '*'}}}", [("MSH0142", "workloadSelector.matchLabels.app")]),
    # TrafficPolicy
    ("TrafficPolicy", "{portLevelSettings: [{port: {number: 80}, tls: {}}]}", []),
    ("TrafficPolicy", "{portLevelSettings: [{tls: {}}]}", [("MSH0125", "portLevelSettings[0].port")]),
    ("TrafficPolicy", "{portLevelSettings: [{port: {number: 80}}]}", [("MSH0143", "portLevelSettings[0]")]),
    ("TrafficPolicy", "{tunnel: {targetHost: a.b, targetPort: 1}}", []),
    ("TrafficPolicy", "{tunnel: {protocol: GET, targetHost: a.b, targetPort: 0}}", [("MSH0104", "tunnel.protocol"), ("MSH0125", "tunnel.targetPort")]),
    ("TrafficPolicy", "{tunnel: {targetHost: 10.0.0.1, targetPort: 1}, proxyProtocol: {}}", [("MSH0137", "proxyProtocol")]),
    ("TrafficPolicy", "{retryBudget: {percent: 101}}", [("MSH0105", "retryBudget.percent")]),
    # ConnectionPool
    ("ConnectionPool", "{tcp: {maxConnections: 1, connectTimeout: 1ms, tcpKeepalive: {probes: 3, time: 1h, interval: 75s}}}", []),
    ("ConnectionPool", "{}", [("MSH0143", "")]),
    ("ConnectionPool", "{tcp: {maxConnections: -1}}", [("MSH0105", "tcp.maxConnections")]),
    ("ConnectionPool", "{tcp: {idleTimeout: 0s}}", []),
    ("ConnectionPool", "{http: {idleTimeout: 0s}}", [("MSH0105", "http.idleTimeout")]),
    ("ConnectionPool", "{http: {maxRetries: -1, http1MaxPendingRequests: -1}}", [("MSH0105", "http.http1MaxPendingRequests"), ("MSH0105", "http.maxRetries")]),
    ("ConnectionPool", "{http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}", [("MSH0137", "http.useClientProtocol")]),
    ("ConnectionPool", "{http: {h2UpgradePolicy: SOMETIMES}}", [("MSH0104", "http.h2UpgradePolicy")]),
    # LoadBalancer
    ("LoadBalancer", "{simple: RANDOM}", []),
    ("LoadBalancer", "{simple: LEAST_CONN}", []),
    ("LoadBalancer", "{simple: RANDOM, consistentHash: {useSourceIp: true}}", [("MSH0107", "consistentHash")]),
    ("LoadBalancer", "{consistentHash: {useSourceIp: true, httpHeaderName: x}}", [("MSH0107", "consistentHash.useSourceIp")]),
    ("LoadBalancer", "{consistentHash: {httpCookie: {name: x, ttl: 0s}, maglev: {tableSize: 65537}}}", []),
    ("LoadBalancer", "{consistentHash: {httpCookie: {name: ''}}}", [("MSH0143", "consistentHash.httpCookie.name")]),
    ("LoadBalancer", "{consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}", [("MSH0137", "consistentHash.maglev.tableSize")]),
    ("LoadBalancer", "{consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}}", [("MSH0137", "consistentHash.maglev.tableSize")]),
    ("LoadBalancer", "{consistentHash: {useSourceIp: true, minimumRingSize: 1, ringHash: {}}}", [("MSH0137", "consistentHash.minimumRingSize")]),
    ("LoadBalancer", "{localityLbSetting: {distribute: [{from: a/b/*, to: {a/b: 70, a/c: 30}}]}}", []),
    ("LoadBalancer", "{localityLbSetting: {distribute: [{from: a, to: {a: 70, b: 31}}]}}", [("MSH0132", "localityLbSetting.distribute[0].to")]),
    ("LoadBalancer", "{localityLbSetting: {distribute: [{from: a, to: {a: 0, b: 100}}]}}", [("MSH0132", "localityLbSetting.distribute[0].to.a")]),
    ("LoadBalancer", "{localityLbSetting: {distribute: [{from: a/*, to: {a: 100}}, {from: a/b, to: {a: 100}}]}}", [("MSH0137", "localityLbSetting.distribute[1]")]),
    ("LocalityLbSetting", "{distribute: [{from: a, to: {b: 50, b/c: 50}}]}", [("MSH0137", 'distribute[0].to["b/c"]')]),
    ("LoadBalancer", "{localityLbSetting: {distribute: [{from: '*/b', to: {a: 100}}]}}", [("MSH0137", "localityLbSetting.distribute[0]")]),
    ("LoadBalancer", "{localityLbSetting: {failover: [{from: a, to: a}]}}", [("MSH0137", "localityLbSetting.failover[0].to")]),
    ("LoadBalancer", "{localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [topology.istio.io/subzone]}}", [("MSH0137", "localityLbSetting.failoverPriority[0]")]),
    ("LoadBalancer", "{localityLbSetting: {distribute: [{from: a, to: {a: 100}}], failover: [{from: a, to: b}]}}", [("MSH0137", "localityLbSetting.failover")]),
    # OutlierDetection
    ("OutlierDetection", "{consecutive5xxErrors: 5, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 100}", []),
    ("OutlierDetection", "{consecutiveLocalOriginFailures: 5}", [("MSH0137", "consecutiveLocalOriginFailures")]),
    ("OutlierDetection", "{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 5}", []),
    ("OutlierDetection", "{outlierDetectionHttpErrorCodes: [99]}", [("MSH0105", "outlierDetectionHttpErrorCodes[0]")]),
    # TLS
    ("ClientTLSSettings", "{mode: SIMPLE, credentialName: x}", []),
    ("ClientTLSSettings", "{mode: SIMPLE, credentialName: x, caCertificates: y}", [("MSH0137", "caCertificates")]),
    ("ClientTLSSettings", "{mode: MUTUAL}", [("MSH0103", "clientCertificate"), ("MSH0103", "privateKey")]),
    ("ClientTLSSettings", "{mode: MUTUAL, clientCertificate: a, privateKey: b}", []),
    ("ClientTLSSettings", "{mode: SIMPLE, insecureSkipVerify: true, credentialName: x}", [("MSH0137", "credentialName")]),
    ("ClientTLSSettings", "{mode: ISTIO_MUTUAL}", []),
    # ServiceEntry
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: STATIC, endpoints: [{{address: 10.0.0.1}}, {{address: '::1'}}]}}", []),
    ("ServiceEntry", f"{{hosts: [], {HTTP}}}", [("MSH0143", "hosts")]),
    ("ServiceEntry", f"{{hosts: ['*'], {HTTP}}}", [("MSH0121", "hosts[0]")]),
    ("ServiceEntry", f"{{hosts: ['*a.b'], {HTTP}}}", []),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, addresses: [10.0.0.300]}}", [("MSH0135", "addresses[0]")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, addresses: [10.0.0.0/8], resolution: DNS}}", [("MSH0136", "addresses[0]")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, endpoints: [{{address: 10.0.0.1}}]}}", [("MSH0136", "endpoints")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: STATIC, endpoints: [{{address: x.y}}]}}", [("MSH0134", "endpoints[0].address")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: DNS, endpoints: [{{address: x.y}}, {{address: 10.0.0.1}}]}}", []),
    ("ServiceEntry", f"{{hosts: ['*.b'], {HTTP}, resolution: DNS}}", [("MSH0136", "hosts[0]")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: DNS_ROUND_ROBIN, endpoints: [{{address: x.y}}, {{address: z.y}}]}}", [("MSH0136", "endpoints")]),
    ("ServiceEntry", f"{{hosts: [a.b, c.d], {TCP}, resolution: STATIC}}", [("MSH0136", "hosts")]),
    ("ServiceEntry", f"{{hosts: [a.b, c.d], {HTTP}, resolution: STATIC}}", []),
    ("ServiceEntry", f"{{hosts: [a.b, c.d], {TCP}}}", []),
    ("ServiceEntry", "{hosts: [a.b], ports: [{number: 80, name: a}, {number: 81, name: a}]}", [("MSH0125", "ports[1].name")]),
    ("ServiceEntry", "{hosts: [a.b], ports: [{number: 0, name: a}]}", [("MSH0125", "ports[0].number")]),
    ("ServiceEntry", "{hosts: [a.b], ports: [{number: 1, name: a_b}]}", [("MSH0125", "ports[0].name")]),
    ("ServiceEntry", "{hosts: [a.b], ports: [{number: 1, name: a, protocol: SMTP}]}", [("MSH0125", "ports[0].protocol")]),
    ("ServiceEntry", "{hosts: [a.b], ports: [{number: 1, name: a, protocol: gRPC-Web, targetPort: 65536}], resolution: DNS}", [("MSH0125", "ports[0].targetPort")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: STATIC, endpoints: [{{address: 10.0.0.1, ports: {{other: 1}}}}]}}", [("MSH0134", "endpoints[0].ports.other")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: STATIC, endpoints: [{{address: 'unix:///a', ports: {{http: 1}}}}]}}", [("MSH0134", "endpoints[0].ports")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: STATIC, endpoints: [{{address: 'unix://@a'}}]}}", []),
    ("ServiceEntry", "{hosts: [a.b], ports: [{number: 1, name: a}, {number: 2, name: b}], resolution: STATIC, endpoints: [{address: 'unix:///a'}]}", [("MSH0134", "endpoints[0].address")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: STATIC, workloadSelector: {{labels: {{a: b}}}}}}", []),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: STATIC, endpoints: [{{address: 10.0.0.1}}], workloadSelector: {{labels: {{a: b}}}}}}", [("MSH0136", "workloadSelector")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, workloadSelector: {{labels: {{a: '*'}}}}}}", [("MSH0142", "workloadSelector.labels.a")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, exportTo: ['~']}}", []),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, exportTo: ['~', .]}}", [("MSH0128", "exportTo[0]")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: DYNAMIC_DNS}}", [("MSH0136", "hosts[0]")]),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: STATIC, endpoints: [{{network: n}}]}}", []),
    ("ServiceEntry", f"{{hosts: [a.b], {HTTP}, resolution: DNS, endpoints: [{{network: n}}]}}", [("MSH0134", "endpoints[0].address")]),
    # WorkloadEntry
    ("WorkloadEntry", "{address: 10.0.0.1, ports: {http: 8080}, labels: {app: a}, weight: 0, locality: a/b/c}", []),
    ("WorkloadEntry", "{address: 10.0.0.1, ports: {http: 0}}", [("MSH0125", "ports.http")]),
    ("WorkloadEntry", "{address: 'unix://a'}", [("MSH0134", "address")]),
    ("WorkloadEntry", "{address: 'unix:///a/'}", [("MSH0134", "address")]),
    ("WorkloadEntry", "{address: 10.0.0.1:80}", [("MSH0134", "address")]),
    ("WorkloadEntry", "{address: 10.0.0.1, labels: {'': a}}", [("MSH0129", 'labels[""]')]),
    # MeshConfig
    ("MeshConfig", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}, connectTimeout: 1s, defaultServiceExportTo: [.]}", []),
    ("MeshConfig", "{outboundTrafficPolicy: {mode: DENY}}", [("MSH0104", "outboundTrafficPolicy.mode")]),
    ("MeshConfig", "{rootNamespace: A}", [("MSH0009", "rootNamespace")]),
    ("MeshConfig", "{defaultVirtualServiceExportTo: []}", [("MSH0128", "defaultVirtualServiceExportTo")]),
    ("MeshConfig", "{defaultHttpRetryPolicy: {attempts: 1, retryOn: x}}", [("MSH0127", "defaultHttpRetryPolicy.retryOn")]),
]
# fmt: on


@pytest.mark.parametrize(("part", "spec", "expected"), CASES, ids=[f"{part} {spec[:60]}" for part, spec, _ in CASES])
def test_rules(part: str, spec: str, expected: list[tuple[str, str]]) -> None:
    found = validate_part(part, yaml.safe_load(spec))
    wrong = [(item.code, item.field) for item in found if item.severity is Severity.ERROR and item.code != NOT_SUPPORTED]
    assert wrong == expected


@pytest.mark.parametrize(
    ("part", "spec", "expected"),
    [
        ("DestinationRule", "{host: a, subsets: [{name: v1}, {name: v1}]}", [("MSH0138", "subsets[1].name")]),
        ("LoadBalancer", "{simple: LEAST_CONN}", [("MSH0150", "simple")]),
        ("ServiceEntry", f"{{hosts: ['*a.b'], {HTTP}}}", [("MSH0151", "hosts[0]")]),
        ("OutlierDetection", "{consecutiveErrors: 1}", [("MSH0150", "consecutiveErrors")]),
        ("HTTPRoute", "{match: [null], route: [{destination: {host: a}}]}", [("MSH0109", "match[0]")]),
    ],
)
def test_what_is_only_worth_a_warning(part: str, spec: str, expected: list[tuple[str, str]]) -> None:
    found = validate_part(part, yaml.safe_load(spec))
    assert [(item.code, item.field) for item in found if item.severity is Severity.WARNING] == expected
    assert not [item for item in found if item.severity is Severity.ERROR and item.code != NOT_SUPPORTED]
