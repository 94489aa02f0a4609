"""gunicorn's workers that run uvicorn, with our protocol."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from meshlib_integrations._serving import server_speaks_mtls

if TYPE_CHECKING:
    from uvicorn.workers import UvicornWorker
else:
    try:
        from uvicorn_worker import UvicornWorker
    except ImportError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # says to install uvicorn_worker
            from uvicorn.workers import UvicornWorker


class UvicornMeshWorker(UvicornWorker):
    """``-k meshlib_integrations.gunicorn.UvicornMeshWorker``: uvicorn with `meshlib_integrations.uvicorn.MeshProtocol`."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  # uvicorn's own
        **UvicornWorker.CONFIG_KWARGS,
        "http": "meshlib_integrations._mesh_protocol:MeshProtocol",
    }

    def init_process(self) -> None:
        server_speaks_mtls()
        super().init_process()
