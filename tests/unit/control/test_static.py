"""Files beside the store: taken when they are right, kept as they were when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib_control.files import FileError, expand, read_file
from meshlib_control.static import StaticConfig, StaticError
from tests.unit.admin.support import SERVICE, SUBSETS


def keys(static: StaticConfig) -> list[str]:
    return [str(resource.key) for resource in static.resources]


def test_folders_are_read_with_all_that_is_below_but_hidden_files(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", ".hidden.yaml", "notes.txt", "below/c.json", ".git/d.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    found = [str(path.relative_to(tmp_path)) for path in expand([tmp_path], recursive=True)]
    assert found == ["a.yml", "b.yaml", "below/c.json"]
    assert [path.name for path in expand([tmp_path, tmp_path / "notes.txt"])] == ["a.yml", "b.yaml", "notes.txt"]


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="not UTF-8"):
        read_file(tmp_path / "binary")
    with pytest.raises(FileError, match="No such file"):
        read_file(tmp_path / "nothing")
    (tmp_path / "huge").write_bytes(b"#" * ((4 << 20) + 1))
    with pytest.raises(FileError, match="4 MiB"):
        read_file(tmp_path / "huge")


def test_errors_at_the_start_name_every_finding(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(SERVICE + "---" + SUBSETS.replace("host:", "hots:"))
    with pytest.raises(StaticError) as caught:
        StaticConfig([file], interval=1).read()
    assert {finding.code for finding in caught.value.findings} == {"MSH0101", "MSH0103"}
    assert "mesh.yaml" in str(caught.value)


async def test_changes_are_taken_and_mistakes_are_not(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(SERVICE)
    static = StaticConfig([file], interval=0.01)
    static.read()
    assert keys(static) == ["ServiceEntry/default/reviews"]
    changes = static.watch()

    file.write_text("a: [")
    # A watch that only skips a mistake yields nothing; the change after it is what comes.
    following = anext(changes)
    file.write_text(f"{SERVICE}---{SUBSETS}")
    assert len(await following) == 2
    assert static.problem == ""
    await changes.aclose()  # type: ignore[attr-defined]  # it is a generator

    file.write_text("a: [")
    with pytest.raises(StaticError):
        static.read()
    assert len(static.resources) == 2


async def test_nothing_to_watch_ends_at_once() -> None:
    assert [resources async for resources in StaticConfig([], interval=1).watch()] == []
