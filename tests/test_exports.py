"""The public names, pinned: adding one is a decision, losing one breaks somebody."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import meshlib
import meshlib_integrations

PUBLIC = {
    "meshlib": [
        "CallRecord", "Event", "Mesh", "Overrides", "Peer", "RequestContext", "Response", "ResponseHeaders", "Sample",
        "SpiffeId", "Timeouts", "carried", "current_request", "default_mesh", "errors",
    ],
    "meshlib.errors": [
        "CallError", "CircuitOpen", "ClusterNotFound", "ConcurrencyLimited", "ConfigError", "ConnectFailed",
        "ConnectTimeout", "ConnectionTerminated", "ControlError", "MeshError", "NoHealthyUpstream", "NotReady",
        "OutboundBlocked", "Overflow", "PoolTimeout", "RateLimited", "RequestError", "RouteError", "RouteNotFound",
        "TargetUnknown", "TimeoutExceeded", "TimeoutName", "TlsFailed", "UpstreamError", "UpstreamProtocolError",
    ],
    "meshlib.lowlevel": [
        "Admitted", "AsyncExchange", "Authorization", "CallRecord", "Connection", "Exchange", "Explanation", "FilterTrial",
        "GrpcCall", "GrpcClient", "GrpcServing", "GrpcTry", "HANDSHAKE_TIMEOUT", "Listening", "METRICS_CONTENT_TYPE",
        "NotAdmitted", "OpenTry", "Overrides", "Peer", "RETRIED", "Refusal", "Request", "RequestContext", "RouteAnswers",
        "RuleTrial", "ServerRequest", "ServerTlsTransport", "Serving", "SpiffeId", "Stay", "Timeouts", "TraceContext",
        "TrustBundles", "admit", "authority_of", "authorize", "certified_for", "code_of_status", "connection_of", "explain",
        "headers_of", "is_method", "svid_of",
    ],
    "meshlib.testing": [
        "Arrived", "Attempted", "Called", "Caller", "CompiledControl", "DEFAULT_RETRY", "Delay", "Event", "FakeClock", "Fault",
        "Injected", "Instance", "MemoryNetwork", "Refuse", "Reset", "SimulatedMesh", "Stalled", "StaticControl", "Status",
        "Unreachable", "VirtualTime", "noted", "service", "snapshot", "static_mesh",
    ],
    "meshlib_control.lab": ["DeclaredService", "InvalidConfiguration", "MeshLab", "Received"],
    "meshlib_integrations.asgi": ["MeshMiddleware"],
    "meshlib_integrations.grpc": ["MeshChannel", "channel", "peer", "serve", "server_credentials", "server_interceptors"],
    "meshlib_integrations.grpc_aio": ["MeshChannel", "channel", "peer", "serve", "server_credentials", "server_interceptors"],
    "meshlib_integrations.gunicorn": [
        "SyncMeshWorker", "ThreadMeshWorker", "UvicornMeshWorker", "post_worker_init", "pre_request", "worker_exit",
    ],
    "meshlib_integrations.httpx": ["AsyncMeshTransport", "MeshTransport"],
    "meshlib_integrations.httpx2": ["AsyncMeshTransport", "MeshTransport"],
    "meshlib_integrations.prometheus": ["metrics_app", "metrics_wsgi_app"],
    "meshlib_integrations.requests": ["MeshAdapter", "MeshResponse"],
    "meshlib_integrations.uvicorn": ["MeshH11Protocol", "MeshProtocol"],
    "meshlib_integrations.werkzeug": ["MeshRequestHandler"],
    "meshlib_integrations.wsgi": ["MeshMiddleware"],
}  # fmt: skip

FRAMEWORKS = ("httpx", "requests", "starlette", "fastapi", "flask", "django", "uvicorn", "gunicorn", "grpc", "yaml", "click")


@pytest.mark.parametrize("name", PUBLIC)
def test_a_module_exports_what_it_promises(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name])
    for exported in module.__all__:
        assert hasattr(module, exported)


def test_every_integration_is_listed_here() -> None:
    (folder,) = meshlib_integrations.__path__
    modules = {path.stem for path in Path(folder).glob("*.py") if not path.stem.startswith("_")}
    assert {f"meshlib_integrations.{module}" for module in modules} == {n for n in PUBLIC if "integrations" in n}


def test_public_classes_say_their_public_name() -> None:
    """Tracebacks and reprs lead to what can be imported."""
    for name in meshlib.__all__:
        thing = getattr(meshlib, name)
        if isinstance(thing, type):
            assert f"{thing.__module__}.{thing.__qualname__}" == f"meshlib.{name}"


def test_importing_meshlib_imports_no_framework_and_starts_nothing() -> None:
    script = (
        "import sys, threading; import meshlib; "
        f"print([name for name in {FRAMEWORKS!r} if name in sys.modules], threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "1"], done.stdout
