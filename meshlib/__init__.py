"""A service mesh inside the process.

``Mesh`` finds services and calls them; ``meshlib_integrations`` puts it under httpx, requests, ASGI and WSGI.  Importing this
starts nothing, opens nothing and reads no environment.
"""

from __future__ import annotations

from meshlib import errors
from meshlib.flow.record import CallRecord
from meshlib.mesh import Mesh
from meshlib.model.call import Overrides
from meshlib.model.inbound import RequestContext
from meshlib.model.request import Timeouts
from meshlib.runtime.context import carried, current_request
from meshlib.runtime.native import Response, ResponseHeaders

__version__ = "0.1.0"

__all__ = [
    "CallRecord",
    "Mesh",
    "Overrides",
    "RequestContext",
    "Response",
    "ResponseHeaders",
    "Timeouts",
    "carried",
    "current_request",
    "default_mesh",
    "errors",
]

_default: Mesh | None = None


def default_mesh() -> Mesh:
    """The process-wide Mesh, built from the environment on first use.

    For what cannot be handed an argument (a server's configuration hooks); everything else builds its own and passes it on.
    """
    global _default  # noqa: PLW0603  # the one process-wide object there is
    if _default is None:
        _default = Mesh.from_env()
    return _default


for _name in __all__:  # tracebacks and reprs show the public path
    _thing = globals()[_name]
    if getattr(_thing, "__module__", "").startswith("meshlib."):
        _thing.__module__ = __name__
del _name, _thing
