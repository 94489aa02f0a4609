"""From the text of ``--store`` to a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib_control.errors import StoreError
from meshlib_control.store.consul import ConsulStore
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.open import open_store
from meshlib_control.store.sqlite import SqliteStore


@pytest.mark.parametrize("url", ["memory", "memory:"])
def test_memory(url: str) -> None:
    assert isinstance(open_store(url), MemoryStore)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("mesh.db", "mesh.db"),
        ("/srv/mesh.db", "/srv/mesh.db"),
        ("sqlite:a/b.db", "a/b.db"),
        ("sqlite:///srv/b.db", "/srv/b.db"),
    ],
)
def test_sqlite(url: str, path: str) -> None:
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)


def test_consul() -> None:
    store = open_store("consul://127.0.0.1:8501/team?dc=eu")
    assert isinstance(store, ConsulStore)
    assert (store.address.port, store.address.prefix, store.address.datacenter) == (8501, "team/", "eu")


@pytest.mark.parametrize(
    ("url", "message"), [("redis://h", "no store is known by redis://"), ("", "no path"), ("consul://h?x=1", "unknown option")]
)
def test_what_is_refused(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        open_store(url)
