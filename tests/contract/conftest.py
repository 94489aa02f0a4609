"""What the contracts share: a real server to call and each client integration; each server integration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from meshlib import Mesh
from tests.support import meshservers, servers
from tests.support.callers import CALLERS, Caller


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server for `tests.support.scenarios`."""
    log = tmp_path_factory.mktemp("upstream") / "log"
    with servers.running(lambda port: servers.uvicorn(port, app="tests.support.scenarios:app"), log) as port:
        yield port


@pytest.fixture(params=CALLERS)
def client(request: pytest.FixtureRequest) -> Iterator[Callable[[Mesh], Caller]]:
    """Makes a caller of the integration under test; closed, with its mesh, when the test is over."""
    opened: list[tuple[Caller, Mesh]] = []

    def make(mesh: Mesh) -> Caller:
        opened.append((CALLERS[request.param](mesh), mesh))
        return opened[-1][0]

    yield make
    for caller, mesh in opened:
        caller.close()
        mesh.close()


@pytest.fixture(scope="session", params=meshservers.SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[meshservers.Server]:
    """A running server of each kind, with the middleware's application behind it."""
    with meshservers.running(meshservers.SERVERS[request.param], tmp_path_factory.mktemp("server")) as running:
        running.name = request.param
        yield running
