"""The request being served, for the calls made meanwhile.

A contextvar: asyncio tasks and ``asyncio.to_thread`` inherit it by themselves, and a WSGI worker's thread has its own.  Plain
threads and executors start empty in Python: `carried` hands the context over to them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import ParamSpec, TypeVar

from meshlib.model.inbound import RequestContext

P = ParamSpec("P")
R = TypeVar("R")

CURRENT: ContextVar[RequestContext | None] = ContextVar("meshlib_request", default=None)
"""None outside of any request."""


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, bound to the context of the request that is being served now.

    For threads that Python starts empty: ``executor.submit(carried(work), item)``, ``Thread(target=carried(work))``.
    Each call of the result runs in a copy of its own, so it may be called from several threads at once.
    """
    context = copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(function, *args, **kwargs)

    return run


def current_request() -> RequestContext | None:
    """The context of the request that is being served now; None outside of one."""
    return CURRENT.get()
