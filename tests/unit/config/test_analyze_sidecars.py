"""Findings about Sidecars."""

from __future__ import annotations

import pytest

from meshlib_control.catalog.model import Port, Service
from meshlib_control.config import analyze
from tests.unit.config.support import loaded

SERVICES = [
    Service("orders.shop.svc.cluster.local", "shop", (Port(80),)),
    Service("hidden.vault.svc.cluster.local", "vault", (Port(80),), export_to=(".",)),
]


def sidecar(name: str, hosts: str, *, namespace: str = "shop", selector: str = "") -> str:
    labels = f"  workloadSelector: {{labels: {selector}}}\n" if selector else ""
    head = f"apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n"
    return f"{head}{labels}  egress: [{{hosts: {hosts}}}]\n"


def found(*texts: str, live: bool = True) -> list[tuple[str, str, str]]:
    findings = analyze(loaded(*texts), services=SERVICES if live else None)
    return [(item.code, item.resource, item.field) for item in findings]


@pytest.mark.parametrize(
    ("hosts", "fields"),
    [
        ("['*/*']", []),
        ("['./*', '~/*']", []),
        ("['shop/orders.shop.svc.cluster.local']", []),
        ("['./*.shop.svc.cluster.local']", []),
        ("['./orders']", ["spec.egress[0].hosts[0]"]),
        ("['*/*', '~shop/nobody.test']", []),
        ("['./*', 'nowhere/*']", ["spec.egress[0].hosts[1]"]),
        ("['vault/*']", ["spec.egress[0].hosts[0]"]),
        ("['*/orders.shop.svc.cluster.local', '*/other.test']", ["spec.egress[0].hosts[1]"]),
    ],
)
def test_entries_that_let_nothing_be_seen(hosts: str, fields: list[str]) -> None:
    assert found(sidecar("default", hosts)) == [("MSH0372", "Sidecar/shop/default", field) for field in fields]


def test_without_a_catalog_only_short_names_are_told_of() -> None:
    assert found(sidecar("default", "['nowhere/*', './orders']"), live=False) == [
        ("MSH0372", "Sidecar/shop/default", "spec.egress[0].hosts[1]")
    ]


def test_a_dot_of_the_root_namespace_is_every_namespace() -> None:
    assert found(sidecar("default", "['./*']", namespace="istio-system")) == []


def test_a_second_one_for_the_same_workloads_never_holds() -> None:
    first, second = sidecar("a", "['*/*']"), sidecar("b", "['./*']")
    assert found(first, second) == [("MSH0371", "Sidecar/shop/b", "spec")]
    assert found(first, sidecar("b", "['./*']", selector="{app: x}")) == []
    assert found(sidecar("a", "['*/*']", selector="{app: x}"), sidecar("b", "['./*']", selector="{app: x}")) == [
        ("MSH0371", "Sidecar/shop/b", "spec")
    ]
