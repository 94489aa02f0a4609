"""Counts who answers 500 requests, and one of a tester's."""

import asyncio
from collections import Counter

import httpx

from meshlib import Mesh
from meshlib_integrations.httpx import AsyncMeshTransport


async def main() -> None:
    async with Mesh.from_env() as mesh, httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as client:
        answers = Counter([(await client.get("http://shop/")).text for _ in range(500)])
        print("everybody:", ", ".join(f"{version} {count}" for version, count in sorted(answers.items())))
        print("a tester:", (await client.get("http://shop/", headers={"tester": "yes"})).text)


asyncio.run(main())
