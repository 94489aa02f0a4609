"""Drives one blocking query for as long as somebody wants to hear of it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from meshlib_control.consul import blocking
from meshlib_control.consul.blocking import Answer, BlockingRules, Query, Rng
from meshlib_control.errors import ControlServiceError

T = TypeVar("T")
log = logging.getLogger(__name__)


async def watch(
    ask: Callable[[Query], Awaitable[Answer[T]]],
    rules: BlockingRules,
    *,
    what: str,
    clock: Callable[[], float] = time.monotonic,
    rng: Rng | None = None,
) -> AsyncGenerator[T, None]:
    """The content now, and again after each change.  Outages are waited out; each is logged once, and its end."""
    dice = rng or random.Random()
    state: blocking.Watching[T] = blocking.start(rules, clock())
    while True:
        await asyncio.sleep(blocking.delay(state, rules, clock(), dice))
        state, query = blocking.ask(state, rules, clock(), dice)
        try:
            answer = await ask(query)
        except ControlServiceError as error:
            if not state.failures:
                log.warning("watching %s: %s; what is known stays, trying again", what, error)
            state = blocking.failed(state)
            continue
        if state.failures:
            log.warning("watching %s: answered again", what)
        state, news = blocking.answered(state, answer, rules, clock())
        if news:
            yield answer.content
