"""Texts to resources: everything that is wrong at once, with its place."""

from __future__ import annotations

import json

import pytest

from meshlib_control.config import InvalidDocument, Key, Severity, load, load_document
from meshlib_control.config.kinds import HTTPRetry, VirtualService
from tests.unit.config.support import DESTINATION_RULE, VIRTUAL_SERVICE, findings, found, loaded, virtual_service


def test_a_resource_is_typed() -> None:
    (resource,) = loaded(
        virtual_service(
            "  - timeout: 1.5s\n"
            "    retries: {attempts: 3, perTryTimeout: 500ms, retryOn: '5xx'}\n"
            "    route: [{destination: {host: reviews, port: {number: 9080}}, weight: 5}]\n"
        )
    )
    assert resource.key == Key("VirtualService", "default", "reviews")
    assert isinstance(resource.spec, VirtualService)
    route = resource.spec.http[0]
    assert route.timeout == 1.5
    assert route.retries == HTTPRetry(attempts=3, per_try_timeout=0.5, retry_on="5xx")
    assert route.route[0].destination.port is not None
    assert (route.route[0].weight, route.route[0].destination.port.number) == (5, 9080)
    assert (resource.file, resource.line) == ("file0.yaml", 1)


def test_everything_that_is_wrong_is_found_at_once() -> None:
    text = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: Reviews
  labels: {version: 1.10}
spec:
  hosts: reviews
  htp: []
  http:
  - match:
    - uri: {exact: /a, prefix: /b}
      headers: {end-user: {regex: "a("}}
      port: 70000
    timeout: 5
    retries: {attempts: "3", perTryTimeout: "1,5s"}
    route:
    - destinaton: {host: reviews}
      weight: -1
    - destination: {host: rev_iews, subset: v1, port: {number: 0}}
      weight: 1
  exportTo: [a, a]
status: {}
extra: 1
"""
    assert found(text) == [
        ("MSH0009", "metadata.name", 4, 9),
        ("MSH0102", "metadata.labels.version", 5, 21),
        ("MSH0102", "spec.hosts", 7, 10),
        ("MSH0101", "spec.htp", 8, 3),
        ("MSH0107", "spec.http[0].match[0].uri.prefix", 11, 32),
        ("MSH0123", "spec.http[0].match[0].headers.end-user.regex", 12, 35),
        ("MSH0125", "spec.http[0].match[0].port", 13, 13),
        ("MSH0106", "spec.http[0].timeout", 14, 14),
        ("MSH0102", "spec.http[0].retries.attempts", 15, 25),
        ("MSH0106", "spec.http[0].retries.perTryTimeout", 15, 45),
        ("MSH0101", "spec.http[0].route[0].destinaton", 17, 7),
        ("MSH0103", "spec.http[0].route[0].destination", 17, 7),
        ("MSH0132", "spec.http[0].route[0].weight", 18, 15),
        ("MSH0121", "spec.http[0].route[1].destination.host", 19, 27),
        ("MSH0125", "spec.http[0].route[1].destination.port.number", 19, 64),
        ("MSH0128", "spec.exportTo[1]", 21, 17),
        ("MSH0101", "extra", 23, 1),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  - rout: []", "did you mean route?"),
        ("  - timeout: 5\n    route: [{destination: {host: a}}]", 'give it a unit: "5s"'),
        ("  - match: [{sourceLabels: {version: 1.10}}]\n    route: [{destination: {host: a}}]", 'quote it: "1.10"'),
        ("  - match: [{sourceLabels: {debug: on}}]\n    route: [{destination: {host: a}}]", 'quote it: "on"'),
        ("  - match: {uri: {exact: /}}\n    route: [{destination: {host: a}}]", "write each item after a dash"),
        ("  - match: [{ignoreUriCase: 'true'}]\n    route: [{destination: {host: a}}]", "remove the quotes"),
        ("  - match: [{headers: {x: }}]\n    route: [{destination: {host: a}}]", "{} asks only for its presence"),
    ],
)
def test_messages_say_what_to_do(line: str, said: str) -> None:
    assert any(said in finding.message for finding in findings(virtual_service(line + "\n")))


def test_words_are_suggested() -> None:
    text = DESTINATION_RULE + "  trafficPolicy: {loadBalancer: {simple: round-robin}}\n"
    (finding,) = findings(text)
    assert (finding.code, finding.severity) == ("MSH0104", Severity.ERROR)
    assert "did you mean ROUND_ROBIN?" in finding.message


def test_a_wrong_value_is_complained_about_once() -> None:
    """Rules do not judge what could not be read: hosts of the wrong type are not called empty as well."""
    assert found(virtual_service("  - route: [{destination: {host: 5}}]\n", hosts="{}")) == [
        ("MSH0102", "spec.hosts", 5, 3),
        ("MSH0102", "spec.http[0].route[0].destination.host", 7, 34),
    ]


def test_good_resources_are_returned_beside_bad_ones() -> None:
    resources, findings = load([("a.yaml", f"{VIRTUAL_SERVICE}---\nx: [\n---\n{DESTINATION_RULE}"), ("b.yaml", "kind: 5\n")])
    assert [str(resource.key) for resource in resources] == [
        "VirtualService/default/reviews",
        "DestinationRule/default/reviews",
    ]
    assert [(finding.code, finding.file, finding.line) for finding in findings] == [
        ("MSH0001", "a.yaml", 14),
        ("MSH0005", "b.yaml", 1),
    ]


def test_a_name_may_come_once() -> None:
    resources, found = load([("a.yaml", VIRTUAL_SERVICE), ("b.yaml", VIRTUAL_SERVICE)])
    assert len(resources) == 1
    assert [(finding.code, finding.file, finding.line) for finding in found] == [("MSH0010", "b.yaml", 4)]
    assert "a.yaml:1" in found[0].message


def test_lists_are_their_items() -> None:
    items = [json.loads(json.dumps(resource.document)) for resource in loaded(VIRTUAL_SERVICE, DESTINATION_RULE)]
    items[1]["spec"]["hots"] = "reviews"
    resources, found = load([("list.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent="\t"))])
    assert [str(resource.key) for resource in resources] == ["VirtualService/default/reviews"]
    (finding,) = found
    assert (finding.resource, finding.field) == ("DestinationRule/default/reviews", "spec.hots")
    assert finding.line > 20


def test_kubernetes_kinds_are_passed_over_and_said_so() -> None:
    resources, found = load([("k8s.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")])
    assert resources == []
    assert [(finding.code, finding.severity) for finding in found] == [("MSH0007", Severity.INFO)]


@pytest.mark.parametrize(
    ("api_version", "kind", "code"),
    [
        ("networking.istio.io/v1", "Gateway", "MSH0006"),
        ("telemetry.istio.io/v1", "Telemetry", "MSH0006"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "MSH0006"),
        ("networking.istio.io/v1", "VirtualServise", "MSH0006"),
        ("networking.istio.io/v2", "VirtualService", "MSH0008"),
        ("example.com/v1", "VirtualService", "MSH0008"),
        ("v1", "Service", "MSH0007"),
        ("networking.k8s.io/v1", "Ingress", "MSH0007"),
        ('""', "VirtualService", "MSH0005"),
    ],
)
def test_kinds_that_are_not_ours(api_version: str, kind: str, code: str) -> None:
    found = findings(f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n")
    assert [finding.code for finding in found] == [code]


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_all_versions_of_istio_are_read(version: str) -> None:
    (resource,) = loaded(VIRTUAL_SERVICE.replace("istio.io/v1", f"istio.io/{version}"))
    assert resource.api_version == f"networking.istio.io/{version}"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ("{}", "metadata.name"),
        ("{name: a_b}", "metadata.name"),
        ("{name: a, namespace: A}", "metadata.namespace"),
        ("{name: a, namespace: a.b}", "metadata.namespace"),
        ("{name: a, labels: {-x: y}}", "metadata.labels.-x"),
        ("{name: a, labels: {x: a b}}", "metadata.labels.x"),
        ("{name: a, annotations: {x y: ''}}", 'metadata.annotations["x y"]'),
        ("{name: a, annotations: {x: 1}}", "metadata.annotations.x"),
        ("{name: a, generateName: b}", "metadata.generateName"),
        ("[]", "metadata"),
    ],
)
def test_metadata_follows_kubernetes(metadata: str, field: str) -> None:
    text = VIRTUAL_SERVICE.replace("metadata:\n  name: reviews\n", f"metadata: {metadata}\n")
    assert [finding.field for finding in findings(text)] == [field]


def test_what_kubernetes_adds_is_not_in_the_way() -> None:
    """`kubectl get -o yaml` can be applied as it is."""
    text = VIRTUAL_SERVICE.replace(
        "  name: reviews\n", "  name: reviews\n  uid: x\n  resourceVersion: '5'\n  managedFields: [{}]\n"
    )
    (resource,) = loaded(text + "status: {observedGeneration: 1}\n")
    assert set(resource.document) == {"apiVersion", "kind", "metadata", "spec"}
    assert resource.document["metadata"] == {"name": "reviews", "namespace": "default"}


def test_the_namespace_of_those_that_name_none_can_be_chosen() -> None:
    text = VIRTUAL_SERVICE.replace("name: reviews", "name: reviews\n  namespace: own")
    resources, _ = load([("a.yaml", VIRTUAL_SERVICE), ("b.yaml", text)], namespace="shop")
    assert [resource.key.namespace for resource in resources] == ["shop", "own"]
    assert resources[0].document["metadata"]["namespace"] == "shop"


def test_there_is_one_mesh_config() -> None:
    text = "apiVersion: meshlib.io/v1\nkind: MeshConfig\nmetadata: {name: NAME}\nspec: {connectTimeout: 1s}\n"
    resources, found = load([("a", text.replace("NAME", "mesh"))], namespace="shop")
    assert found == []
    assert str(resources[0].key) == "MeshConfig/default/mesh"
    assert [finding.field for finding in findings(text.replace("NAME", "other"))] == ["metadata.name"]
    assert [finding.field for finding in findings(text.replace("NAME", "mesh, namespace: x"))] == ["metadata.namespace"]


def test_a_missing_spec_is_missing() -> None:
    assert found("apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a}\n") == [
        ("MSH0005", "spec", 1, 1)
    ]


def test_a_flaw_of_the_text_keeps_a_resource_out() -> None:
    resources, found = load([("a.yaml", VIRTUAL_SERVICE + "  hosts: [other]\n")])
    assert resources == []
    assert [(finding.code, finding.field, finding.line, finding.resource) for finding in found] == [
        ("MSH0003", "spec.hosts", 12, "VirtualService/default/reviews")
    ]


def test_stored_documents_read_back() -> None:
    (resource,) = loaded(VIRTUAL_SERVICE)
    stored = json.loads(json.dumps(resource.document))
    again = load_document(stored, created=7)
    assert again.spec == resource.spec
    assert (again.key, again.created) == (resource.key, 7)


def test_a_stored_document_that_cannot_be_read_says_why() -> None:
    with pytest.raises(InvalidDocument, match=r"spec\.host: host is missing") as caught:
        load_document(
            {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "x"}, "spec": {}}
        )
    assert caught.value.findings[0].code == "MSH0103"
