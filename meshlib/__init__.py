"""A service mesh inside the process.

``Mesh`` finds services and calls them; ``meshlib_integrations`` puts it under httpx, requests, ASGI and WSGI.  Importing this
starts nothing, opens nothing, reads no environment, and loads its parts when they are first named.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs a tenth of the import budget
if TYPE_CHECKING:
    from meshlib import errors as errors
    from meshlib.flow.record import CallRecord as CallRecord
    from meshlib.mesh import Mesh as Mesh
    from meshlib.mesh import default_mesh as default_mesh
    from meshlib.model.call import Overrides as Overrides
    from meshlib.model.identity import Peer as Peer
    from meshlib.model.identity import SpiffeId as SpiffeId
    from meshlib.model.inbound import RequestContext as RequestContext
    from meshlib.model.request import Timeouts as Timeouts
    from meshlib.runtime.context import carried as carried
    from meshlib.runtime.context import current_request as current_request
    from meshlib.runtime.native import Response as Response
    from meshlib.runtime.native import ResponseHeaders as ResponseHeaders
    from meshlib.telemetry.events import Event as Event
    from meshlib.telemetry.metrics import Sample as Sample

__version__ = "0.1.0"

_HOMES = {
    "CallRecord": "meshlib.flow.record",
    "Event": "meshlib.telemetry.events",
    "Mesh": "meshlib.mesh",
    "Overrides": "meshlib.model.call",
    "Peer": "meshlib.model.identity",
    "RequestContext": "meshlib.model.inbound",
    "Response": "meshlib.runtime.native",
    "ResponseHeaders": "meshlib.runtime.native",
    "Sample": "meshlib.telemetry.metrics",
    "SpiffeId": "meshlib.model.identity",
    "Timeouts": "meshlib.model.request",
    "carried": "meshlib.runtime.context",
    "current_request": "meshlib.runtime.context",
    "default_mesh": "meshlib.mesh",
    "errors": "meshlib.errors",
}

__all__ = [
    "CallRecord",
    "Event",
    "Mesh",
    "Overrides",
    "Peer",
    "RequestContext",
    "Response",
    "ResponseHeaders",
    "Sample",
    "SpiffeId",
    "Timeouts",
    "carried",
    "current_request",
    "default_mesh",
    "errors",
]


def __getattr__(name: str) -> object:
    """Load what is named (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'meshlib' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(home)
    if name == "errors":
        return module
    thing = getattr(module, name)
    thing.__module__ = __name__  # tracebacks and reprs show the public path
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
