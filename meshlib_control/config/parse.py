"""Text to resources and back.  Everything that is wrong with a text is found in one go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from meshlib_control.config.codes import CODES
from meshlib_control.config.document import Document, Flaw, read_documents
from meshlib_control.config.envelope import BOOKKEEPING, DEFAULT_NAMESPACE, Metadata, check_fields, check_metadata, find_kind
from meshlib_control.config.findings import Finding, Severity
from meshlib_control.config.model import ConfigResource, Key
from meshlib_control.config.problems import Path, Problem, render, under
from meshlib_control.config.registry import KINDS, Kind
from meshlib_control.config.schema import Reading, describe, read
from meshlib_control.config.unsupported import check_supported
from meshlib_control.errors import ControlServiceError

MAX_FINDINGS = 1000
"""Of one call.  Nobody reads more, and a text of 4 MiB can have a million."""


class InvalidDocument(ControlServiceError):
    """A stored document is not valid for this version; `findings` say why."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(str(finding) for finding in findings))
        self.findings = tuple(findings)


def load(texts: Sequence[tuple[str, str]], *, namespace: str = DEFAULT_NAMESPACE) -> tuple[list[ConfigResource], list[Finding]]:
    """The resources of (file name, text) pairs, and all that is wrong with them, in the order of the texts.

    `namespace` is that of resources which name none.  A resource with an error is not among those returned, nor is one that
    has the name of an earlier one.
    """
    resources: dict[Key, ConfigResource] = {}
    findings: list[Finding] = []
    for file, text in texts:
        found: list[Finding] = []
        for document in read_documents(text):
            for part in _parts(document, file, namespace):
                resource, problems = part.read()
                if resource is not None and resource.key in resources:
                    first = resources[resource.key]
                    message = f"{resource.key} is already in {first.file}:{first.line}; rename or remove one"
                    problems = [*problems, Problem(("metadata", "name"), "MSH0010", message)]
                elif resource is not None:
                    resources[resource.key] = resource
                found.extend(part.findings(problems))
        findings.extend(sorted(found, key=lambda finding: (finding.line, finding.column)))
    return list(resources.values()), findings[:MAX_FINDINGS]


def load_document(document: Mapping[str, Any], *, created: int = 0, file: str = "") -> ConfigResource:
    """A resource from the form in which it is stored.  Raises `InvalidDocument`.

    Its rules were checked before it was stored; whether this version can still read it is checked again.
    """
    part = _Part(document, (), Document(value=document), file, (), DEFAULT_NAMESPACE)
    resource, problems = part.read()
    if resource is None:
        raise InvalidDocument(part.findings(problems))
    return replace(resource, created=created, file=file, line=0, places=None)


def _parts(document: Document, file: str, namespace: str) -> Iterator[_Part]:
    """The resources of a document: one, or the items of a list."""
    value = document.value
    items = value.get("items") if isinstance(value, dict) and str(value.get("kind", "")).endswith("List") else None
    if not isinstance(items, list):
        yield _Part(value, (), document, file, tuple(document.flaws), namespace)
        return
    beside = tuple(flaw for flaw in document.flaws if flaw.path[:1] != ("items",))
    if beside:
        yield _Part(None, (), document, file, beside, namespace)
    for index, item in enumerate(items):
        path: Path = ("items", index)
        flaws = tuple(flaw for flaw in document.flaws if flaw.path[:2] == path)
        yield _Part(item, path, document, file, flaws, namespace)


@dataclass(frozen=True, slots=True)
class _Places:
    """The positions of a document, seen from a resource in it."""

    document: Document
    root: Path

    def locate(self, path: Path) -> tuple[int, int]:
        return self.document.locate(self.root + path)


@dataclass(slots=True)
class _Part:
    """One resource within a document.  `root`: where it stands there."""

    value: Any
    root: Path
    document: Document
    file: str
    flaws: tuple[Flaw, ...]
    namespace: str  # of a resource that names none

    def read(self) -> tuple[ConfigResource | None, list[Problem]]:
        """The resource, None when it has an error, and its problems."""
        if self.value is None and self.flaws:
            return None, []
        if not isinstance(self.value, dict):
            return None, [
                Problem(
                    (), "MSH0005", f"expected a resource with apiVersion, kind, metadata and spec, got {describe(self.value)}"
                )
            ]
        kind, reason = find_kind(self.value)
        if kind is None:
            return None, [reason] if reason else []
        skip = len(self.root)
        written = {path[skip:]: text for path, text in self.document.written.items() if path[:skip] == self.root}
        resource, problems = read_resource(kind, self.value, Reading(written), namespace=self.namespace)
        clean = not self.flaws and not any(_severity(problem) is Severity.ERROR for problem in problems)
        if not clean:
            return None, problems
        line = self.document.locate(self.root)[0] if self.root else self.document.start[0]
        return replace(resource, file=self.file, line=line, places=_Places(self.document, self.root)), problems

    def findings(self, problems: Iterable[Problem]) -> list[Finding]:
        """Flaws and problems with file, line and column."""
        name = _label(self.value, self.namespace)
        found = [
            Finding(
                flaw.code,
                CODES[flaw.code].severity,
                name,
                render(flaw.path[len(self.root) :]),
                flaw.message,
                self.file,
                *flaw.position,
            )
            for flaw in self.flaws
        ]
        for problem in problems:
            line, column = (0, 0)
            if self.file:
                line, column = self.document.locate(self.root + problem.path, key=problem.code == "MSH0101")
            field = render(problem.path)
            found.append(Finding(problem.code, _severity(problem), name, field, problem.message, self.file, line, column))
        return found


def _severity(problem: Problem) -> Severity:
    return problem.severity or CODES[problem.code].severity


def _label(value: Any, namespace: str) -> str:
    """``VirtualService/default/reviews``, as far as it can be told."""
    if not isinstance(value, dict):
        return ""
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    kind = KINDS.get(str(value.get("kind")))
    namespace = DEFAULT_NAMESPACE if kind is not None and kind.only_name else metadata.get("namespace") or namespace
    return f"{value.get('kind') or '?'}/{namespace}/{metadata.get('name') or '?'}"


def read_resource(
    kind: Kind, document: Mapping[str, Any], reading: Reading, *, namespace: str = DEFAULT_NAMESPACE
) -> tuple[ConfigResource, list[Problem]]:
    """The resource that `document` says, with stand-ins for what is wrong, and everything that is wrong."""
    raw = document.get("metadata")
    if isinstance(raw, dict):
        raw = {name: value for name, value in raw.items() if name not in BOOKKEEPING}
    metadata = read(Metadata, raw if raw is not None else {}, reading, ("metadata",))
    plain = document.get("spec")
    if plain is None and not kind.only_name:
        reading.reject(("spec",), "MSH0005", "spec is missing")
    spec = read(kind.spec, plain if plain is not None else {}, reading, ("spec",))
    namespace = DEFAULT_NAMESPACE if kind.only_name else metadata.namespace or namespace
    rules = [
        *check_fields(document),
        *under(("metadata",), check_metadata(metadata, kind)),
        *under(("spec",), kind.check(spec, namespace)),
    ]
    if kind.check_annotations is not None:
        rules += under(("metadata", "annotations"), kind.check_annotations(spec, metadata.annotations))
    problems = [
        *reading.problems,
        *(problem for problem in rules if not reading.covers(problem.path)),
        *under(("spec",), check_supported(kind.unsupported, plain)),
    ]
    key = Key(kind.name, namespace, metadata.name)
    resource = ConfigResource(
        key=key,
        api_version=document["apiVersion"],
        spec=spec,
        document=_stored(kind, key, metadata, plain, document["apiVersion"]),
        labels=metadata.labels,
        annotations=metadata.annotations,
    )
    return resource, problems


def _stored(kind: Kind, key: Key, metadata: Metadata, spec: Any, api_version: str) -> dict[str, Any]:
    about: dict[str, Any] = {"name": key.name}
    if not kind.only_name:
        about["namespace"] = key.namespace
    if metadata.labels:
        about["labels"] = dict(metadata.labels)
    if metadata.annotations:
        about["annotations"] = dict(metadata.annotations)
    return {"apiVersion": api_version, "kind": kind.name, "metadata": about, "spec": spec if spec is not None else {}}
