"""RBAC and ext_authz filters are Istio's own, on Istio's own cases (pilot/pkg/security/authz/builder/testdata)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.xds.json import from_json, to_json
from meshlib_control.compile.trust import Trust
from tests.unit.compile.authz import GRPC_PROVIDER, HTTP_PROVIDER, http_filters, tcp_filters, world_of
from tests.unit.config.support import CORPORA

CASES = CORPORA / "authz"
TRUST = {"simple-policy-td-aliases": Trust("td1", ("cluster.local",))}


def inputs(kind: str) -> list[Path]:
    return sorted((CASES / kind).glob("*-in.yaml"))


def expected(source: Path) -> list[Any]:
    """Istio's filters, in the normal form of ours."""
    stem = source.name.removesuffix("-in.yaml")
    found = sorted(source.parent.glob(f"{stem}-out*.yaml"))
    return [_normal(yaml.safe_load(path.read_text())) for path in found]


def _normal(document: dict[str, Any]) -> dict[str, Any]:
    return {"name": document["name"], "typed_config": to_json(from_json(document["typedConfig"]))}


def compiled(source: Path, kind: str) -> list[Any]:
    name = source.name.removesuffix("-in.yaml")
    mesh = GRPC_PROVIDER if kind == "tcp" and name == "custom-both-http-tcp" else HTTP_PROVIDER
    world = world_of(mesh, source.read_text(), trust=TRUST.get(name))
    filters = http_filters(world) if kind == "http" else tcp_filters(world)
    return [{"name": item["name"], "typed_config": item["typed_config"]} for item in filters]


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_filters_are_istios(kind: str) -> None:
    """I14, I15, I16: every case that comes with its outcome."""
    if not CASES.exists():
        pytest.skip("Istio's cases are not here")
    known = [source for source in inputs(kind) if expected(source)]
    assert len(known) >= (7 if kind == "http" else 3)
    for source in known:
        assert compiled(source, kind) == expected(source), source.name


def test_cases_without_their_outcome_compile() -> None:
    """CUSTOM over HTTP: a pair of filters for requests, nothing for connections."""
    if not CASES.exists():
        pytest.skip("Istio's cases are not here")
    names = [item["name"] for item in compiled(CASES / "http" / "custom-simple-http-in.yaml", "http")]
    assert names == ["envoy.filters.http.rbac", "envoy.filters.http.ext_authz"]
    assert compiled(CASES / "tcp" / "custom-only-http-in.yaml", "tcp") == []
