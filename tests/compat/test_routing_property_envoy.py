"""The same generated Istio YAML and requests through a real Envoy and a real meshlib client: no decision differs.

Istio's YAML goes through the validator and the compiler.  Envoy gets the envoy flavour by ADS, a meshlib client the meshlib
flavour, and both send to the same endpoints.  Compared is all that can be seen: route, cluster, who got the request, method,
path, host, headers and deadline there, copies for mirrors; or the response that was made instead, or why there was none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.routing import sites
from tests.support.routing.cases import case
from tests.support.routing.comparing import Comparison, compared

pytestmark = pytest.mark.envoy

CONFIGURATIONS = 60
REQUESTS = 40
"""Of each configuration."""
ROUNDS = 20
"""Of the long run, each as large as the short one and with other configurations."""


@pytest.fixture(scope="module")
def endpoints() -> Iterator[sites.Sites]:
    with sites.running() as running:
        yield running


def run(endpoints: sites.Sites, seed: str, folder: Path) -> Comparison:
    cases = {index: case(index, seed, port=endpoints.port, count=REQUESTS) for index in range(CONFIGURATIONS)}
    return compared(cases, endpoints, folder)


def test_no_decision_differs_from_envoys(endpoints: sites.Sites, tmp_path: Path) -> None:
    found = run(endpoints, "1", tmp_path)
    assert not found.differences, "\n\n".join(found.differences[:10])
    assert sum(found.kinds.values()) == CONFIGURATIONS * REQUESTS
    # Nearly everything that can happen has happened, and not only once.
    assert found.kinds["forwarded"] > 800
    assert found.kinds["answered"] > 100
    assert found.copies > 20
    assert all(found.kinds[kind] > 0 for kind in ("outside", "blocked", "refused", "NR", "NC", "UH"))
    assert len(found.routes) > 200


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_nor_does_any_of_many_more(seed: int, endpoints: sites.Sites, tmp_path: Path) -> None:
    found = run(endpoints, f"soak-{seed}", tmp_path)
    assert not found.differences, "\n\n".join(found.differences[:10])
