"""The second tier of the public API: for those who write integrations."""

from __future__ import annotations

from meshlib.flow.explain import Explanation, explain
from meshlib.flow.record import CallRecord
from meshlib.model.call import Overrides
from meshlib.model.inbound import Refusal, RequestContext, ServerRequest, TraceContext
from meshlib.model.request import Request, Timeouts, authority_of
from meshlib.runtime.response import AsyncExchange, Exchange
from meshlib.runtime.serving import Serving

__all__ = [
    "AsyncExchange",
    "CallRecord",
    "Exchange",
    "Explanation",
    "Overrides",
    "Refusal",
    "Request",
    "RequestContext",
    "ServerRequest",
    "Serving",
    "Timeouts",
    "TraceContext",
    "authority_of",
    "explain",
]
