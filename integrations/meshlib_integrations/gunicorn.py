"""meshlib in gunicorn's workers: ``gunicorn -c python:meshlib_integrations.gunicorn app:app``.

A gunicorn configuration of its own; one that exists already takes the hooks over:
``from meshlib_integrations.gunicorn import post_worker_init, pre_request, worker_exit``.

The mesh starts in each worker, after the fork, with and without ``--preload``.  It is the one of the application's
`MeshMiddleware`, or else `meshlib.default_mesh()`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

from meshlib import Mesh, default_mesh

__all__ = ["post_worker_init", "pre_request", "worker_exit"]


class Worker(Protocol):
    """The part of gunicorn's worker that is used here."""

    @property
    def wsgi(self) -> object: ...
    @property
    def handle_exit(self) -> Callable[..., object]: ...


def post_worker_init(worker: Worker) -> None:
    """The application is loaded: announce the worker, and have it leave before it stops."""
    mesh = _mesh_of(worker.wsgi)
    mesh.serve_started()
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
        _mesh_of(worker.wsgi).close()


def _mesh_of(application: object) -> Mesh:
    """Of `MeshMiddleware`, or of what it was put under: Flask keeps it in ``wsgi_app``."""
    for place in (application, getattr(application, "wsgi_app", None)):
        mesh = getattr(place, "mesh", None)
        if isinstance(mesh, Mesh):
            return mesh
    return default_mesh()
