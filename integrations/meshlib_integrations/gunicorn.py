"""meshlib in gunicorn's workers: ``gunicorn -c python:meshlib_integrations.gunicorn -k WORKER app:app``.

A gunicorn configuration of its own; one that exists already takes the hooks over:
``from meshlib_integrations.gunicorn import post_worker_init, pre_request, worker_exit``.

WORKER, for mTLS and plaintext on one port: ``meshlib_integrations.gunicorn.SyncMeshWorker``, ``....ThreadMeshWorker`` (its
``gthread``) or ``....UvicornMeshWorker``.  With any other one, ``asgi`` for instance, the middleware listens for mTLS by itself
on the Mesh's ``mesh_port``.

The mesh starts in each worker, after the fork, with and without ``--preload``.  It is the one of the application's
`MeshMiddleware`, or else `meshlib.default_mesh()`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from meshlib import Mesh, default_mesh
from meshlib_integrations._starting import announce

if TYPE_CHECKING:
    from meshlib_integrations._gunicorn_uvicorn import UvicornMeshWorker as UvicornMeshWorker
    from meshlib_integrations._gunicorn_workers import SyncMeshWorker as SyncMeshWorker
    from meshlib_integrations._gunicorn_workers import ThreadMeshWorker as ThreadMeshWorker

__all__ = ["SyncMeshWorker", "ThreadMeshWorker", "UvicornMeshWorker", "post_worker_init", "pre_request", "worker_exit"]

_WORKERS = {
    "SyncMeshWorker": "meshlib_integrations._gunicorn_workers",
    "ThreadMeshWorker": "meshlib_integrations._gunicorn_workers",
    "UvicornMeshWorker": "meshlib_integrations._gunicorn_uvicorn",
}


def __getattr__(name: str) -> object:
    """Load the worker that is named (PEP 562), and not the others with what they need."""
    home = _WORKERS.get(name)
    if home is None:
        raise AttributeError(f"module 'meshlib_integrations.gunicorn' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


class Worker(Protocol):
    """The part of gunicorn's worker that is used here."""

    @property
    def wsgi(self) -> object: ...
    @property
    def handle_exit(self) -> Callable[..., object]: ...


def post_worker_init(worker: Worker) -> None:
    """The application is loaded: announce the worker, and have it leave before it stops."""
    mesh = _mesh_of(worker.wsgi)
    middleware = _middleware_of(worker.wsgi)
    if middleware is None:
        announce(mesh)
    elif hasattr(middleware, "started"):  # WSGI's; ASGI's has a lifespan
        middleware.started()
    # Workers that leave SIGTERM to somebody else (uvicorn's) run a lifespan, which installs this in its place.
    if signal.getsignal(signal.SIGTERM) == worker.handle_exit:
        mesh.install_drain_on_sigterm()


def pre_request(worker: Worker, request: object) -> None:
    """Gunicorn drops an application's ``connection: close``, so a draining worker says it here."""
    if _mesh_of(worker.wsgi).draining and hasattr(request, "force_close"):
        request.force_close()


def worker_exit(server: object, worker: Worker) -> None:
    """The worker is about to end: deregister, should nothing have done so before, and stop the threads."""
    if hasattr(worker, "wsgi"):  # its application could be loaded
        middleware = _middleware_of(worker.wsgi)
        if hasattr(middleware, "stopped"):
            middleware.stopped()
        _mesh_of(worker.wsgi).close()


def _middleware_of(application: object) -> object:
    """`MeshMiddleware` itself, or what it was put under: Flask keeps it in ``wsgi_app``.  None: there is none."""
    for place in (application, getattr(application, "wsgi_app", None)):
        if isinstance(getattr(place, "mesh", None), Mesh):
            return place
    return None


def _mesh_of(application: object) -> Mesh:
    mesh = getattr(_middleware_of(application), "mesh", None)
    return mesh if isinstance(mesh, Mesh) else default_mesh()
