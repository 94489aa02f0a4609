"""Connections end with the trust in their root, and with no other."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, cast

import pytest

from meshlib.lowlevel import Peer, SpiffeId
from meshlib.model.identity import TrustBundles
from meshlib.runtime import distrust
from meshlib.runtime.distrust import Vouched
from meshlib.runtime.tls.objects import Checked


class Finished(Checked):
    """A connection whose handshake is over."""

    def __init__(self, domain: str, root: bytes) -> None:
        self.peer = Peer(SpiffeId(domain, "/ns/default/sa/alice"))
        self.root = root


@pytest.fixture
def vouched(monkeypatch: pytest.MonkeyPatch) -> Vouched:
    monkeypatch.setattr(distrust, "verified_chain", lambda tls: (b"leaf", cast("Finished", tls).root))
    return Vouched()


def told(ended: list[str], name: str) -> Callable[[], None]:
    return lambda: ended.append(name)


def test_only_those_end_whose_own_root_is_gone(vouched: Vouched) -> None:
    ended: list[str] = []
    open_ = {"old": Finished("td1", b"1"), "new": Finished("td1", b"2"), "other": Finished("td2", b"1")}
    for name, tls in open_.items():
        vouched.add(tls, told(ended, name))
    vouched.recheck(TrustBundles({"td1": (b"1", b"2"), "td2": (b"1",)}))
    assert ended == []
    vouched.recheck(TrustBundles({"td1": (b"2",), "td2": (b"1", b"3")}))
    assert ended == ["old"]
    vouched.recheck(TrustBundles({"td1": (b"1", b"2")}))  # the same bytes, of another domain
    assert ended == ["old", "other"]
    vouched.recheck(TrustBundles({}))
    assert sorted(ended) == ["new", "old", "other"]


def test_a_connection_that_is_gone_is_not_kept(vouched: Vouched) -> None:
    ended: list[str] = []
    tls: Any = Finished("td1", b"1")
    vouched.add(tls, told(ended, "gone"))
    del tls
    gc.collect()
    vouched.recheck(TrustBundles({}))
    assert ended == []


def test_a_forked_child_ends_nothing_of_its_parents(vouched: Vouched) -> None:
    ended: list[str] = []
    tls = Finished("td1", b"1")
    vouched.add(tls, told(ended, "parent's"))
    vouched.forget()
    vouched.recheck(TrustBundles({}))
    assert ended == []
