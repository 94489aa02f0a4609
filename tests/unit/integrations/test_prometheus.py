"""A mesh's metrics over ASGI and WSGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from wsgiref.util import setup_testing_defaults

import httpx
import pytest

from meshlib import Mesh
from meshlib.testing import service, static_mesh
from meshlib_integrations.prometheus import metrics_app, metrics_wsgi_app

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture
def mesh() -> Mesh:
    return static_mesh(service("reviews", ["10.0.0.1:80"]))


def over_asgi(mesh: Mesh, method: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=metrics_app(mesh))
        async with httpx.AsyncClient(transport=transport, base_url="http://me") as client:
            return await client.request(method, "/metrics")

    return asyncio.run(ask())


def over_wsgi(mesh: Mesh, method: str) -> httpx.Response:
    with httpx.Client(transport=httpx.WSGITransport(app=metrics_wsgi_app(mesh)), base_url="http://me") as client:
        return client.request(method, "/metrics")


@pytest.mark.parametrize("ask", [over_asgi, over_wsgi])
def test_metrics_are_read(mesh: Mesh, ask: Callable[[Mesh, str], httpx.Response]) -> None:
    with mesh:
        answer = ask(mesh, "GET")
        assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
        assert answer.text == mesh.prometheus()
        assert "\nenvoy_cluster_membership_total{" in answer.text
        head = ask(mesh, "HEAD")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", answer.headers["content-length"])


@pytest.mark.parametrize("ask", [over_asgi, over_wsgi])
def test_nothing_else_is_done(mesh: Mesh, ask: Callable[[Mesh, str], httpx.Response]) -> None:
    answer = ask(mesh, "POST")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_asking_does_not_start_a_mesh(mesh: Mesh) -> None:
    environ: dict[str, object] = {}
    setup_testing_defaults(environ)
    (body,) = metrics_wsgi_app(mesh)(environ, lambda status, headers: None)
    assert b"meshlib_events_dropped_total 0" in body
    assert mesh._processes.current is None
