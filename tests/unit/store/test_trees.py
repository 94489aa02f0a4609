"""Bytes of the repository's values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.errors import StoreError
from meshlib_control.store.trees import (
    Blob,
    Head,
    Tree,
    advanced,
    document_bytes,
    grown,
    head_bytes,
    read_head,
    read_tree,
    tree_bytes,
)

TREE = Tree(3, 2, "ann", "why", 12.5, {"A/b/c": Blob("ab" * 32, 2)}, added=1, rolled_back_to=1)


def test_a_tree_survives_its_bytes() -> None:
    assert read_tree("k", tree_bytes(TREE, "nonce")) == TREE


def test_the_same_tree_of_two_writers_has_two_names() -> None:
    assert tree_bytes(TREE, "one") != tree_bytes(TREE, "two")


def test_a_head_survives_its_bytes() -> None:
    head = Head({9: "aa", 10: "bb"})
    assert read_head(head_bytes(head)) == head
    assert head.revision == 10
    assert Head().revision == 0


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"trees": 1}', b'{"trees": {"x": "y"}}', b'{"revision": 1}'])
def test_broken_bytes_are_named(content: bytes) -> None:
    with pytest.raises(StoreError, match="config/head is corrupt"):
        read_head(content)
    with pytest.raises(StoreError, match="tree-key is corrupt"):
        read_tree("tree-key", content)


def test_equal_documents_have_equal_bytes() -> None:
    assert document_bytes("k", {"b": 1, "a": [{"d": 1, "c": "ü"}]}) == '{"a":[{"c":"ü","d":1}],"b":1}'.encode()


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", object()])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(StoreError, match="A/b/c cannot be stored"):
        document_bytes("A/b/c", {"value": value})


def test_a_tree_counts_what_differs_from_its_parent() -> None:
    parent = Tree(4, 3, "", "", 0.0, {"same": Blob("1", 1), "changed": Blob("2", 1), "removed": Blob("3", 1)})
    after = {"same": Blob("1", 1), "changed": Blob("4", 1), "added": Blob("5", 5), "more": Blob("6", 5)}
    tree = grown(parent, after, author="ann", message="", time=1.0)
    assert (tree.revision, tree.parent, tree.added, tree.changed, tree.removed) == (5, 4, 2, 1, 1)


@given(st.integers(1, 20), st.integers(1, 60))
def test_a_head_keeps_the_last_revisions(keep: int, count: int) -> None:
    head = Head()
    for revision in range(1, count + 1):
        head = advanced(head, revision, f"tree {revision}", keep)
    assert sorted(head.trees) == list(range(max(1, count - keep + 1), count + 1))
    assert all(head.trees[revision] == f"tree {revision}" for revision in head.trees)
