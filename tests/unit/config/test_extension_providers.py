"""External authorizers and registration grants in MeshConfig."""

from __future__ import annotations

import pytest
import yaml

from meshlib_control.compile.mesh_settings import mesh_settings
from meshlib_control.config import ConfigSet, Severity, validate_part
from tests.unit.config.support import loaded


def judged(spec: str) -> list[tuple[str, str]]:
    return [
        (item.field, item.code) for item in validate_part("MeshConfig", yaml.safe_load(spec)) if item.severity is Severity.ERROR
    ]


def grpc(fields: str = "") -> str:
    return f"{{extensionProviders: [{{name: a, envoyExtAuthzGrpc: {{service: a.b, port: 9000{fields}}}}}]}}"


def http(fields: str = "") -> str:
    return grpc(fields).replace("Grpc", "Http")


def grant(namespace: str = "a", accounts: str = "[a]", services: str = "[b]") -> str:
    return f"{{registrationGrants: [{{namespace: {namespace}, serviceAccounts: {accounts}, services: {services}}}]}}"


GRPC, HTTP = "extensionProviders[0].envoyExtAuthzGrpc", "extensionProviders[0].envoyExtAuthzHttp"


@pytest.mark.parametrize(
    "spec",
    [
        grpc(),
        grpc(", timeout: 2ms, failOpen: true, statusOnError: '503', includeRequestBodyInCheck: {maxRequestBytes: 1}"),
        http(", pathPrefix: /check, headersToUpstreamOnAllow: ['x-*']"),
        grpc().replace("a.b", "ns/a.b"),
    ],
)
def test_what_can_be_asked(spec: str) -> None:
    assert judged(spec) == []


@pytest.mark.parametrize(
    ("spec", "field", "code"),
    [
        ("{extensionProviders: [{name: a}]}", HTTP, "MSH0161"),
        ("{extensionProviders: [{name: ''}]}", "extensionProviders[0].name", "MSH0161"),
        (grpc().replace("name: a", "name: ''"), "extensionProviders[0].name", "MSH0161"),
        (grpc().replace("port: 9000", "port: 99999"), f"{GRPC}.port", "MSH0125"),
        (grpc().replace("a.b", "''"), f"{GRPC}.service", "MSH0161"),
        (grpc().replace("a.b", "A_/a.b"), f"{GRPC}.service", "MSH0161"),
        (grpc(", statusOnError: '999'"), f"{GRPC}.statusOnError", "MSH0161"),
        (grpc(", statusOnError: '200'"), f"{GRPC}.statusOnError", "MSH0161"),
        (grpc(", includeRequestBodyInCheck: {}"), f"{GRPC}.includeRequestBodyInCheck.maxRequestBytes", "MSH0161"),
        (http(", pathPrefix: check"), f"{HTTP}.pathPrefix", "MSH0161"),
        (http(", includeAdditionalHeadersInCheck: {'a b': c}"), f'{HTTP}.includeAdditionalHeadersInCheck["a b"]', "MSH0126"),
        (http(', includeAdditionalHeadersInCheck: {a: "b\\n"}'), f"{HTTP}.includeAdditionalHeadersInCheck.a", "MSH0126"),
        (http(", headersToDownstreamOnDeny: ['']"), f"{HTTP}.headersToDownstreamOnDeny[0]", "MSH0126"),
        (grant(namespace="A"), "registrationGrants[0].namespace", "MSH0162"),
        (grant(accounts="[]"), "registrationGrants[0].serviceAccounts", "MSH0162"),
        (grant(services="['b*']"), "registrationGrants[0].services[0]", "MSH0162"),
    ],
)
def test_what_is_refused(spec: str, field: str, code: str) -> None:
    assert (field, code) in judged(spec)


def test_names_are_unique_and_one_way_of_asking_is_chosen() -> None:
    one = "{name: a, envoyExtAuthzGrpc: {service: a.b, port: 1}}"
    assert judged(f"{{extensionProviders: [{one}, {one}]}}") == [("extensionProviders[1].name", "MSH0161")]
    both = one.replace("}}", "}, envoyExtAuthzHttp: {service: a.b, port: 1}}")
    assert ("extensionProviders[0].envoyExtAuthzGrpc", "MSH0107") in judged(f"{{extensionProviders: [{both}]}}")


MESH = """\
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {name: mesh}
spec:
  registrationGrants:
  - {namespace: shop, serviceAccounts: [deployer], services: [reviews, ratings]}
  - {namespace: shop, serviceAccounts: ['*'], services: [shared]}
  - {namespace: test, serviceAccounts: [ci], services: ['*']}
"""


@pytest.mark.parametrize(
    ("namespace", "account", "service", "allowed"),
    [
        ("shop", "reviews", "reviews", True),
        ("shop", "web", "reviews", False),
        ("shop", "deployer", "reviews", True),
        ("shop", "deployer", "details", False),
        ("shop", "anybody", "shared", True),
        ("test", "anybody", "shared", False),
        ("test", "ci", "anything", True),
        ("other", "ci", "anything", False),
    ],
)
def test_who_may_register_what(namespace: str, account: str, service: str, allowed: bool) -> None:
    settings = mesh_settings(ConfigSet(loaded(MESH)), "cluster.local")
    assert settings.may_register(namespace, account, service) is allowed
