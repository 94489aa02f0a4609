"""Background tasks of the control service: named, and never silent when they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable

log = logging.getLogger(__name__)


def spawn(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """A task whose unexpected end is logged with its trace."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report)
    return task


async def cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel all and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s ended, which is a fault in meshlib: %r", task.get_name(), error, exc_info=error)
