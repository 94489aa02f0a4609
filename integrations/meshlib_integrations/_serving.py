"""Which Mesh the servers of this process serve: what a server's protocol class cannot be handed as an argument."""

from __future__ import annotations

from meshlib import Mesh, default_mesh


class _Serving:
    mesh: Mesh | None = None
    speaks_mtls = False  # the server's own port takes mTLS: its protocol or worker class is one of ours


_serving = _Serving()


def serve_with(mesh: Mesh) -> None:
    """`mesh` is the one of this process's application (of several, the newest)."""
    _serving.mesh = mesh


def serving_mesh() -> Mesh:
    """The Mesh of the application's `MeshMiddleware`, or else `meshlib.default_mesh()`; started, so that its modes hold.

    Raises errors.ConfigError.
    """
    mesh = _serving.mesh or default_mesh()
    mesh.start()
    return mesh


def server_speaks_mtls() -> None:
    """Said by what only a server asks for: whoever names a class of ours as its protocol or worker uses it."""
    _serving.speaks_mtls = True


def does_server_speak_mtls() -> bool:
    """Whether `server_speaks_mtls` was said in this process, or in the one that it was forked from."""
    return _serving.speaks_mtls
