"""What the README and docs/ say is true: their code runs, their YAML is valid, their commands and links exist."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import httpx
import pytest

from meshlib import Mesh, errors
from meshlib.runtime.settings import from_environment
from meshlib_control.ca.issuers import read_issuers
from meshlib_control.cli import offline
from meshlib_control.cli.main import cli
from meshlib_control.lab import MeshLab

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/__main__.py"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def blocks(*languages: str) -> list[Block]:
    return [
        Block(path.relative_to(ROOT).as_posix(), number, language, text)
        for path in PAGES
        for number, (language, text) in enumerate(FENCE.findall(path.read_text()), 1)
        if language in languages
    ]


def commands() -> Iterator[tuple[str, str]]:
    """(page, command line) of console blocks and of lines that are indented by four."""
    for block in blocks("console", "sh"):
        for line in re.sub(r"\\\n *", "", block.text).splitlines():
            if line.startswith("$ "):
                yield block.page, line[2:]
    for path in PAGES:
        for line in FENCE.sub("", path.read_text()).splitlines():
            if re.match(r" {4}(make|meshctl|pip|python) ", line):
                yield path.relative_to(ROOT).as_posix(), line.strip()


def words_of(program: str) -> list[tuple[str, list[str]]]:
    """(page, words) of the commands that call `program`, without comments, environment, redirection and background marks."""
    found = []
    for page, line in commands():
        words = [word for word in shlex.split(re.sub(r" > \S+", "", line), comments=True) if word != "&"]
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words and words[0] == program:
            found.append((page, words[1:]))
    return found


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_code_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page shows as a program is executed, and what it shows as a test is run."""
    for name in ("MESHLIB_SERVICE", "MESHLIB_PORT"):
        monkeypatch.delenv(name, raising=False)
    code = compile(block.text, str(block), "exec")
    if "asyncio.run(" in block.text:
        return  # it is one of the examples, which are run as they are
    names: dict[str, object] = {"__name__": "documentation"}
    exec(code, names)
    for name, thing in names.items():
        if not name.startswith("test_") or not callable(thing):
            continue
        if "mesh_lab" in inspect.signature(thing).parameters:
            with MeshLab() as lab:
                thing(lab)
        else:
            thing()


@pytest.mark.parametrize(("number", "file"), [(0, "server.py"), (1, "client.py")])
def test_the_readme_shows_the_hello_example(number: int, file: str) -> None:
    shown = [block for block in blocks("python") if block.page == "README.md"][number]
    assert shown.text == (ROOT / "examples" / "hello" / file).read_text()
    assert len([line for line in shown.text.splitlines() if line]) <= 15


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_is_valid_configuration(block: Block) -> None:
    findings = offline.analyzed([(str(block), block.text)], "default").findings
    assert not [finding for finding in findings if finding.severity.lower() == "error"]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.parent.name)
def test_the_examples_yaml_has_nothing_wrong(path: Path) -> None:
    assert not [
        f for f in offline.analyzed([(str(path), path.read_text())], "default").findings if f.severity.lower() == "error"
    ]


def test_the_issuers_that_are_shown_can_be_read(tmp_path: Path) -> None:
    found = [block for block in blocks("yml") if block.text.startswith("issuers:")]
    assert found
    for block in found:
        file = tmp_path / "issuers.yaml"
        file.write_text(block.text)
        assert read_issuers(file)


def test_every_make_command_has_a_target() -> None:
    found = words_of("make")
    assert found
    for page, words in found:
        for word in words:
            assert "=" in word or word in TARGETS, f"{page}: make {word}"


def test_every_meshctl_command_can_be_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By click itself, so that a renamed option is noticed; files that a page names are made up."""
    monkeypatch.chdir(tmp_path)
    for file in ("canary.yaml", "node.json", "shop.yaml", "strict.yaml"):
        (tmp_path / file).touch()
    found = words_of("meshctl")
    assert found
    context = click.Context(cli)
    for page, words in found:
        command: click.Command | None = cli
        arguments = words
        while isinstance(command, click.Group):
            command, arguments = command.get_command(context, arguments[0]), arguments[1:]
        assert command is not None, f"{page}: meshctl {shlex.join(words)}"
        try:
            with command.make_context(words[0], arguments, parent=context):
                pass
        except click.ClickException as error:
            pytest.fail(f"{page}: meshctl {shlex.join(words)}: {error.format_message()}")


def test_extras_that_are_named_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    known = set(re.findall(r"^([a-z0-9]+) = \[", text.partition("optional-dependencies]")[2].partition("\n[")[0], re.MULTILINE))
    for page, words in words_of("pip"):
        for extras in re.findall(r"\.\[([a-z0-9,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= known, page


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{link} in {path}"
        if anchor:
            assert anchor in anchors(target), f"{link} in {path}"


def test_every_page_can_be_found() -> None:
    docs = ROOT / "docs"
    linked = {(path.parent / link.partition("#")[0]).resolve() for path in PAGES for link in LINK.findall(path.read_text())}
    assert not [str(path) for path in docs.rglob("*.md") if path.resolve() not in linked and path.name != "index.md"]


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in (ROOT / "examples").glob("*/__main__.py")), ids=lambda p: p.name
)
def test_every_example_says_how_it_is_started_and_takes_a_minute_to_read(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    assert f"NAME={folder.name}" in readme
    assert f"({folder.name}/)" in (folder.parent / "README.md").read_text()
    lines = sum(len(path.read_text().splitlines()) for path in folder.glob("*.py"))
    assert lines <= 90


def table(page: str) -> list[list[str]]:
    rows = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in row.split("|")[1:-1]] for row in rows]


def test_the_error_page_has_the_whole_tree_with_its_flags() -> None:
    rows = {row[0]: row[1] for row in table("errors.md")}
    classes = [getattr(errors, name) for name in errors.__all__]
    kinds = {kind.__name__: kind for kind in classes if isinstance(kind, type) and issubclass(kind, errors.MeshError)}
    assert rows.keys() == kinds.keys()
    for name, flag in rows.items():
        assert flag == getattr(kinds[name], "flag", "-").strip("-"), name


def test_the_error_page_knows_what_each_error_is_to_httpx() -> None:
    from meshlib_integrations._httpx import _translation

    translation = _translation(httpx)
    for row in table("errors.md"):
        kind = getattr(errors, row[0])
        if row[3] and not row[3].startswith("a response") and kind is not errors.TimeoutExceeded:
            assert translation._theirs(kind("x")).__name__ == row[3], row[0]


def test_the_quickstart_lists_every_variable(caplog: pytest.LogCaptureFixture) -> None:
    """The warning about an unknown variable names the known ones."""
    listed = {row[0]: row[1] for row in table("quickstart.md") if row[0].startswith("MESHLIB_")}
    from_environment({"MESHLIB_UNKNOWN": "1"})
    known = set(re.findall(r"MESHLIB_[A-Z0-9_]+", caplog.text))
    assert listed.keys() == known - {"MESHLIB_UNKNOWN"}
    for argument in listed.values():
        assert argument in Mesh.__init__.__annotations__
