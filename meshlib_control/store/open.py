"""From what an operator writes after ``--store`` to a store."""

from __future__ import annotations

from meshlib_control.consul.address import parse_consul_url
from meshlib_control.errors import ControlServiceError, StoreError
from meshlib_control.store.consul import ConsulStore
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Store
from meshlib_control.store.sqlite import SqliteStore


def open_store(url: str) -> Store:
    """``memory``, ``consul://host:port/prefix?token=...``, ``sqlite:PATH`` or a plain PATH of a SQLite file.

    Nothing is opened yet.  Raises `StoreError` for what it cannot read.
    """
    scheme, separator, rest = url.partition(":")
    if url in ("memory", "memory:"):
        return MemoryStore()
    if scheme == "consul" and separator:
        try:
            return ConsulStore(parse_consul_url(url))
        except ControlServiceError as error:
            raise StoreError(str(error)) from error
    if scheme == "sqlite" and separator:
        # sqlite:///srv/mesh.db as in database URLs; sqlite:mesh.db is relative.
        url = rest.removeprefix("//")
    elif "://" in url:
        raise StoreError(f"no store is known by {scheme}://; expected memory, sqlite:PATH or consul://HOST:PORT/PREFIX")
    if not url:
        raise StoreError("the store has no path; expected memory, sqlite:PATH or consul://HOST:PORT/PREFIX")
    return SqliteStore(url)
