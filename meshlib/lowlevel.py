"""The second tier of the public API: for those who write integrations."""

from __future__ import annotations

from meshlib.flow.authorize import Authorization, FilterTrial, RuleTrial, authorize
from meshlib.flow.explain import Explanation, explain
from meshlib.flow.record import CallRecord
from meshlib.flow.shedding import Stay
from meshlib.model.call import Overrides
from meshlib.model.identity import Peer, SpiffeId, TrustBundles
from meshlib.model.inbound import Connection, Refusal, RequestContext, ServerRequest, TraceContext
from meshlib.model.request import Request, Timeouts, authority_of
from meshlib.policy.grpc import code_of_status, headers_of, is_method
from meshlib.policy.retrying import RETRIED
from meshlib.runtime.accepting import admit
from meshlib.runtime.grpc_client import GrpcCall, GrpcClient, GrpcTry, OpenTry, RouteAnswers
from meshlib.runtime.grpc_server import GrpcServing
from meshlib.runtime.listening import (
    HANDSHAKE_TIMEOUT,
    Admitted,
    Listening,
    NotAdmitted,
    certified_for,
    connection_of,
)
from meshlib.runtime.response import AsyncExchange, Exchange
from meshlib.runtime.serving import Serving
from meshlib.runtime.tls.aio_server import ServerTlsTransport
from meshlib.runtime.tls.verify import svid_of
from meshlib.telemetry.metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE

__all__ = [
    "HANDSHAKE_TIMEOUT",
    "METRICS_CONTENT_TYPE",
    "RETRIED",
    "Admitted",
    "AsyncExchange",
    "Authorization",
    "CallRecord",
    "Connection",
    "Exchange",
    "Explanation",
    "FilterTrial",
    "GrpcCall",
    "GrpcClient",
    "GrpcServing",
    "GrpcTry",
    "Listening",
    "NotAdmitted",
    "OpenTry",
    "Overrides",
    "Peer",
    "Refusal",
    "Request",
    "RequestContext",
    "RouteAnswers",
    "RuleTrial",
    "ServerRequest",
    "ServerTlsTransport",
    "Serving",
    "SpiffeId",
    "Stay",
    "Timeouts",
    "TraceContext",
    "TrustBundles",
    "admit",
    "authority_of",
    "authorize",
    "certified_for",
    "code_of_status",
    "connection_of",
    "explain",
    "headers_of",
    "is_method",
    "svid_of",
]
