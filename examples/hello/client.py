import asyncio

import httpx

from meshlib import Mesh
from meshlib_integrations.httpx import AsyncMeshTransport


async def main() -> None:
    async with Mesh.from_env() as mesh, httpx.AsyncClient(transport=AsyncMeshTransport(mesh)) as client:
        response = await client.get("http://hello/world")
        print(response.text, "from", response.extensions["meshlib"].endpoint)


asyncio.run(main())
