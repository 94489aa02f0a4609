"""What httpx and httpx2 have and the other clients have not, through the mesh."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import httpx2
import pytest

from meshlib import CallRecord, Mesh, Overrides, errors
from meshlib.testing import service, static_mesh
from meshlib_integrations.httpx import AsyncMeshTransport, MeshTransport
from meshlib_integrations.httpx2 import AsyncMeshTransport as AsyncMeshTransport2
from meshlib_integrations.httpx2 import MeshTransport as MeshTransport2
from tests.support.scenarios import GREETING

PACKAGES = [pytest.param((httpx, MeshTransport), id="httpx"), pytest.param((httpx2, MeshTransport2), id="httpx2")]
ASYNC = [pytest.param((httpx, AsyncMeshTransport), id="httpx"), pytest.param((httpx2, AsyncMeshTransport2), id="httpx2")]


@pytest.fixture
def mesh(upstream: int) -> Iterator[Mesh]:
    with static_mesh(service("reviews", [f"127.0.0.1:{upstream}"])) as mesh:
        yield mesh


@pytest.fixture(params=PACKAGES)
def client(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Any]:
    package, transport = request.param
    with package.Client(transport=transport(mesh), base_url="http://reviews") as client:
        client.package = package
        yield client


def test_responses_look_like_the_packages_own(client: Any) -> None:
    response = client.get("/plain?size=3")
    assert isinstance(response, client.package.Response)
    assert (response.http_version, response.reason_phrase, response.text) == ("HTTP/1.1", "OK", "xxx")
    assert response.elapsed > timedelta(0)
    assert response.is_closed
    assert isinstance(response.extensions["meshlib"], CallRecord)


def test_raise_for_status_is_httpxs_business(client: Any) -> None:
    with pytest.raises(client.package.HTTPStatusError):
        client.get("/status?code=500").raise_for_status()


def test_json_form_and_files_are_sent(client: Any) -> None:
    assert json.loads(client.post("/echo", json={"a": 1}).content)["length"] == len('{"a":1}')
    assert json.loads(client.post("/echo", data={"a": "1"}).content)["length"] == len("a=1")
    arrived = json.loads(client.post("/echo", files={"f": ("name", io.BytesIO(b"x" * 100_000))}).content)
    assert arrived["length"] == int(dict(arrived["headers"])["content-length"]) > 100_000


def test_a_file_is_sent_with_its_length(client: Any) -> None:
    arrived = json.loads(client.put("/echo", content=io.BytesIO(b"x" * 100_000)).content)
    assert arrived["length"] == 100_000
    headers = dict(arrived["headers"])
    assert headers.get("content-length", "100000") == "100000"


def test_raw_bytes_stay_encoded(client: Any) -> None:
    with client.stream("GET", "/gzip") as response:
        assert gzip.decompress(b"".join(response.iter_raw())) == GREETING


def test_authentication_and_redirects_work_as_ever(client: Any) -> None:
    headers = dict(json.loads(client.get("/echo", auth=("u", "p")).content)["headers"])
    assert headers["authorization"] == "Basic dTpw"


def test_hooks_see_the_record(client: Any) -> None:
    seen: list[CallRecord] = []
    client.event_hooks = {"response": [lambda response: seen.append(response.extensions["meshlib"])]}
    client.get("/plain?size=1")
    assert seen[0].authority == "reviews:80"


def test_overrides_may_be_an_object(client: Any) -> None:
    url = f"/flaky?key={client.package.__name__}&fails=1"
    response = client.get(url, extensions={"meshlib": Overrides(retries=1, retry_on=frozenset({"5xx"}))})
    assert (response.status_code, response.extensions["meshlib"].attempts) == (200, 2)


def test_overrides_that_make_no_sense_are_the_callers_mistake(client: Any) -> None:
    with pytest.raises(client.package.LocalProtocolError, match="has no 'retrys'") as caught:
        client.get("/plain?size=1", extensions={"meshlib": {"retrys": 1}})
    assert isinstance(caught.value, errors.RequestError)


@pytest.fixture(params=ASYNC)
async def async_client(request: pytest.FixtureRequest, mesh: Mesh) -> Any:
    package, transport = request.param
    async with package.AsyncClient(transport=transport(mesh), base_url="http://reviews", timeout=60) as client:
        yield client
    await mesh.aclose_loop()


async def test_a_cancelled_call_gives_its_slot_back(async_client: Any, mesh: Mesh) -> None:
    for _ in range(3):
        call = asyncio.create_task(async_client.get("/hang"))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert (await async_client.get("/plain?size=1")).content == b"x"
    [upstream] = mesh._running().client.destinations.upstreams.values()
    assert upstream.active == 0


async def test_a_stream_closed_early_gives_its_slot_back(async_client: Any, mesh: Mesh) -> None:
    async with async_client.stream("GET", "/stall") as response:
        assert await anext(response.aiter_raw()) == b"some"
    [upstream] = mesh._running().client.destinations.upstreams.values()
    assert upstream.active == 0


async def test_an_asynchronous_body_is_streamed(async_client: Any) -> None:
    async def body() -> Any:
        for _ in range(3):
            yield b"x" * 70_000

    assert json.loads((await async_client.post("/echo", content=body())).content)["length"] == 210_000


async def test_the_callers_own_failure_stays_its_own(async_client: Any) -> None:
    """A body that cannot be made is not the mesh's error."""

    async def body() -> Any:
        yield b"a"
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        await async_client.post("/echo", content=body())
