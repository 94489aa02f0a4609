"""YAML and JSON text to plain values that know where each of them was written.

Built from the parser's events with a stack of our own: depth and number of values are limited before they cost anything,
aliases count as often as they are used, and a syntax error spoils one document, not those beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import yaml

from meshlib_control.config.problems import Path
from meshlib_control.config.scalars import AmbiguousScalar, Scalar, resolve

MAX_CHARACTERS = 4 << 20
MAX_DEPTH = 64
MAX_VALUES = 400_000

_SEPARATOR = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_ONLY_COMMENTS = re.compile(r"(?:[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)|%[^\n]*(?:\n|\Z)|\.\.\.[ \t]*(?:\r?\n|\Z))*\Z")
_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_STANDARD_TAG = "tag:yaml.org,2002:"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Position = tuple[int, int]
"""Line and column, from 1."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with the text itself."""

    code: str
    message: str
    position: Position
    path: Path = ()


@dataclass(slots=True)
class Document:
    """One document of a file.  `flaws` leave `value` as good as it could be read; None when it could not."""

    value: Any = None
    flaws: list[Flaw] = field(default_factory=list)
    keys: dict[Path, Position] = field(default_factory=dict)  # where the key, or the list item, starts
    values: dict[Path, Position] = field(default_factory=dict)  # where a scalar starts
    written: dict[Path, str] = field(default_factory=dict)  # unquoted text of scalars that are not strings
    start: Position = (1, 1)

    def locate(self, path: Path, *, key: bool = False) -> Position:
        """Where `path` is written, or the nearest parent that is.  `key`: the field's name rather than its value."""
        if not key and path in self.values:
            return self.values[path]
        while path:
            if path in self.keys:
                return self.keys[path]
            path = path[:-1]
        return self.start


def read_documents(text: str) -> Iterator[Document]:
    """The documents of a text, without the empty ones."""
    if len(text) > MAX_CHARACTERS:
        flaw = Flaw("MSH0002", f"{len(text)} characters; at most {MAX_CHARACTERS} are accepted in one file", (1, 1))
        yield Document(flaws=[flaw])
        return
    text = text.removeprefix("\ufeff")
    starts = [match.start() for match in _SEPARATOR.finditer(text)]
    bounds = [0, *starts, len(text)]
    for begin, end in pairwise(bounds):
        chunk = text[begin:end]
        if not _ONLY_COMMENTS.match(chunk.removeprefix("---")):
            yield from _read_chunk(_plain_json(chunk), text.count("\n", 0, begin))


def _plain_json(chunk: str) -> str:
    """JSON that YAML would stumble over: tabs between tokens, characters written as two surrogates."""
    if not chunk.lstrip().startswith(("{", "[")):
        return chunk
    try:
        json.loads(chunk)
    except (ValueError, RecursionError):
        return chunk
    return _SURROGATES.sub(lambda pair: json.loads(f'"{pair.group()}"'), chunk.replace("\t", " "))


def _read_chunk(chunk: str, line_offset: int) -> Iterator[Document]:
    builder = _Builder(line_offset)
    try:
        for event in yaml.parse(chunk, Loader=_LOADER):
            document = builder.take(event)
            if document is not None:
                if document.value is not None or document.flaws:
                    yield document
                builder = _Builder(line_offset)
    except yaml.YAMLError as error:
        builder.document.flaws.append(_syntax_flaw(error, chunk, line_offset))
        yield Document(flaws=builder.document.flaws)
    except UnicodeEncodeError as error:
        yield Document(flaws=[Flaw("MSH0001", f"not Unicode text: {error.reason}", (line_offset + 1, 1))])
    except _Excess as error:
        yield Document(flaws=[Flaw("MSH0002", str(error), error.position)])


def _syntax_flaw(error: yaml.YAMLError, chunk: str, line_offset: int) -> Flaw:
    mark = getattr(error, "problem_mark", None)
    position = (mark.line + line_offset + 1, mark.column + 1) if mark else (line_offset + 1, 1)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    hint = "; YAML indents with spaces, not tabs" if mark and _is_tab(chunk, mark.line, mark.column) else ""
    return Flaw("MSH0001", f"{problem}{f' ({context})' if context else ''}{hint}", position)


def _is_tab(chunk: str, line: int, column: int) -> bool:
    lines = chunk.split("\n", line + 1)
    return line < len(lines) and lines[line][column : column + 1] == "\t"


class _Excess(Exception):
    """A limit is passed: nothing more is read of this document."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.position = position


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is being filled.  `key` is None while a mapping waits for its next key."""

    container: dict[str, Any] | list[Any]
    path: Path
    anchor: str | None
    size_before: int
    key: str | None = None
    merges: list[Mapping[str, Any]] = field(default_factory=list)
    merging: bool = False
    skipping: bool = False  # the value of a key that is not usable
    seen: dict[str, Position] = field(default_factory=dict)


class _Builder:
    """Takes events, gives a document at its end.

    The one rule: every value passes through `_add`, which counts it.
    """

    def __init__(self, line_offset: int) -> None:
        self.document = Document()
        self._line = line_offset + 1
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._size = 0

    def take(self, event: yaml.Event) -> Document | None:
        """The finished document when `event` ends it."""
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self.document.start = self._position(event)
            case yaml.DocumentEndEvent():
                return self.document
            case _:
                pass
        return None

    def _position(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        return (mark.line + self._line, mark.column + 1) if mark else self.document.start

    def _flaw(self, code: str, message: str, event: yaml.Event, path: Path) -> None:
        self.document.flaws.append(Flaw(code, message, self._position(event), path))

    def _awaits_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].container, dict) and self._stack[-1].key is None

    def _path(self) -> Path:
        """Of the value that comes next."""
        if not self._stack:
            return ()
        frame = self._stack[-1]
        return (*frame.path, len(frame.container) if isinstance(frame.container, list) else frame.key or "")

    def _count(self, values: int, event: yaml.Event) -> None:
        self._size += values
        if self._size > MAX_VALUES:
            message = f"more than {MAX_VALUES} values, counting what aliases repeat"
            raise _Excess(message, self._position(event))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._count(1, event)
        if self._awaits_key():
            self._key(event)
            return
        path = self._path()
        value = self._resolve(event, path)
        self.document.values[path] = self._position(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._add(value, event, path)

    def _resolve(self, event: yaml.ScalarEvent, path: Path) -> Scalar:
        text: str = event.value
        tag: str = event.tag or ""
        if tag and tag != "!" and tag.removeprefix(_STANDARD_TAG) not in ("str", "int", "float", "bool", "null"):
            self._flaw("MSH0004", f"the tag {tag} has no meaning in configuration; write the value plainly", event, path)
            return text
        plain = event.implicit[0] or (tag and not tag.endswith((":str", "!")))
        if not plain:
            return text
        try:
            value = resolve(text)
        except AmbiguousScalar as error:
            self._flaw("MSH0004", str(error), event, path)
            return text
        if not isinstance(value, str):
            self.document.written[path] = text
        return value

    def _key(self, event: yaml.ScalarEvent) -> None:
        frame = self._stack[-1]
        frame.key = event.value
        path = self._path()
        if event.value == "<<" and event.implicit[0]:
            frame.merging = True
            return
        if event.implicit[0] and event.value in ("", "~", "null"):
            self._flaw("MSH0004", "a key without a name; quote it if it is meant", event, path)
            frame.skipping = True
        elif event.value in frame.seen:
            line = frame.seen[event.value][0]
            self._flaw("MSH0003", f"{event.value} is already given in line {line}; only one of them can hold", event, path)
            frame.skipping = True
        else:
            frame.seen[event.value] = self.document.keys[path] = self._position(event)

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._count(1, event)
        if len(self._stack) >= MAX_DEPTH:
            raise _Excess(f"nested more than {MAX_DEPTH} levels deep", self._position(event))
        path = self._path()
        if self._awaits_key():
            self._flaw("MSH0004", "a mapping or list cannot be a key", event, path[:-1])
            self._stack[-1].key = ""
            self._stack[-1].skipping = True
        if event.tag and event.tag.removeprefix(_STANDARD_TAG) not in ("map", "seq", "!"):
            self._flaw("MSH0004", f"the tag {event.tag} has no meaning in configuration", event, path)
        self._mark_item(event, path)
        container: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Frame(container, path, event.anchor, self._size))

    def _close(self) -> None:
        frame = self._stack.pop()
        if isinstance(frame.container, dict):
            for merged in frame.merges:
                for key, value in merged.items():
                    frame.container.setdefault(key, value)
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.container, self._size - frame.size_before + 1)
        self._store(frame.container)

    def _alias(self, event: yaml.AliasEvent) -> None:
        path = self._path()
        if self._awaits_key():
            self._flaw("MSH0004", "an alias cannot be a key", event, path[:-1])
            self._stack[-1].key = ""
            self._stack[-1].skipping = True
            return
        if event.anchor not in self._anchors:
            self._flaw("MSH0004", f"*{event.anchor} refers to nothing that is complete before this place", event, path)
            self._add(None, event, path)
            return
        value, size = self._anchors[event.anchor]
        self._count(size, event)
        self._add(value, event, path)

    def _add(self, value: Any, event: yaml.Event, path: Path) -> None:
        self._mark_item(event, path)
        self._store(value)

    def _mark_item(self, event: yaml.Event, path: Path) -> None:
        if not self._stack or isinstance(self._stack[-1].container, list):
            self.document.keys[path] = self._position(event)

    def _store(self, value: Any) -> None:
        if not self._stack:
            self.document.value = value
            return
        frame = self._stack[-1]
        if isinstance(frame.container, list):
            frame.container.append(value)
            return
        if frame.merging:
            sources = value if isinstance(value, list) else [value]
            frame.merges.extend(source for source in sources if isinstance(source, dict))
        elif not frame.skipping:
            frame.container[frame.key or ""] = value
        frame.key, frame.merging, frame.skipping = None, False, False
