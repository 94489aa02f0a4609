"""Waiting for what must happen, however busy the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 60.0


async def eventually(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Return once `condition()` is true; fail after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        if condition():
            return
        assert loop.time() < deadline, f"still not so after {seconds} s"
        await asyncio.sleep(0.005)
