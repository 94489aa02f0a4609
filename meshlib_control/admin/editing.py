"""Changing the stored configuration: everything is checked against what is stored, then stored at once or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, cast

from meshlib_control.admin import changes, views
from meshlib_control.admin.findings import finding_views
from meshlib_control.admin.problems import Problem, invalid, not_found
from meshlib_control.catalog.model import CatalogSnapshot, Instance
from meshlib_control.config import (
    REFUSES,
    ConfigResource,
    ConfigSet,
    Finding,
    Severity,
    analyze,
    load,
)
from meshlib_control.config.mtls import MTLS_LABEL, MTLS_MODE
from meshlib_control.config.validate.names import namespace_fault
from meshlib_control.errors import Conflict, StoreError
from meshlib_control.loading import DocumentLoader
from meshlib_control.store.revisions import RevisionContent, Revisions
from meshlib_control.store.trees import Changes as StoreChanges

NOTHING: Mapping[str, ConfigResource] = MappingProxyType({})
ATTEMPTS = 8  # over a store that other replicas write to as well, when the caller expects no particular revision


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an edit is judged by beside the store: resources from files, which are read-only, and the catalog."""

    files: tuple[ConfigResource, ...] = ()
    catalog: CatalogSnapshot = field(default_factory=CatalogSnapshot)
    domain: str = "cluster.local"


@dataclass(frozen=True, slots=True)
class Sent:
    """Files that were sent, read: resources by key, and what is wrong with them as they stand."""

    resources: Mapping[str, ConfigResource] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def documents(self) -> dict[str, views.Document]:
        return {key: dict(resource.document) for key, resource in self.resources.items()}


@dataclass(frozen=True, slots=True)
class Edit:
    """A change that was checked: what the store would have, and what is to be said of it."""

    content: RevisionContent  # that it was checked against
    after: dict[str, views.Document]
    named: frozenset[str]  # resources that the caller named
    findings: tuple[Finding, ...]

    @property
    def changes(self) -> list[views.Change]:
        return changes.between(documents_of(self.content), self.after, also=self.named)


class Editor:
    """Apply, delete, roll back, compare.  `clock` gives seconds since the epoch.  Methods raise `Problem` and `StoreError`."""

    def __init__(self, revisions: Revisions, surroundings: Callable[[], Surroundings], clock: Callable[[], float]) -> None:
        self._revisions = revisions
        self._surroundings = surroundings
        self._clock = clock
        self._loader = DocumentLoader()

    async def apply(self, files: views.Files, *, dry_run: bool = False, expect: int | None = None) -> views.Applied:
        """Create or change what `files` say."""
        sent = await asyncio.to_thread(read_files, files)
        self._keep_files_apart(sent.resources)

        async def commit(edit: Edit) -> int:
            puts = {key: edit.after[key] for key in sent.resources}
            return await self._revisions.apply(
                StoreChanges(puts=puts),
                expect=edit.content.revision,
                author=files.author,
                message=files.message,
                now=self._clock(),
            )

        async def check() -> Edit:
            content = await self._current(expect)
            after = changes.applied(documents_of(content), sent.documents)
            return Edit(content, after, frozenset(sent.resources), await self._judged(content, after, sent=sent))

        return await self._carry_out(check, commit, dry_run=dry_run, expect=expect)

    async def delete(self, request: views.DeleteRequest, *, dry_run: bool = False, expect: int | None = None) -> views.Applied:
        """Remove resources; refused if others would become invalid by it, unless `request.force`."""
        named = frozenset(request.resources)
        self._keep_files_apart(named)

        async def check() -> Edit:
            content = await self._current(expect)
            missing = sorted(named - content.documents.keys())
            if missing:
                raise not_found(", ".join(missing), "`meshctl get` lists what there is.")
            after = changes.without(documents_of(content), named)
            found = await self._judged(content, after, refuse=not request.force)
            return Edit(content, after, named, found)

        async def commit(edit: Edit) -> int:
            return await self._revisions.apply(
                StoreChanges(deletes=named),
                expect=edit.content.revision,
                author=request.author,
                message=request.message,
                now=self._clock(),
            )

        return await self._carry_out(check, commit, dry_run=dry_run, expect=expect)

    async def rollback(
        self, request: views.RollbackRequest, *, dry_run: bool = False, expect: int | None = None
    ) -> views.Applied:
        """A new revision with the content of an old one.  It is checked like any other: what runs now may know more rules."""

        async def check() -> Edit:
            content = await self._current(expect)
            old = documents_of(await self._kept(request.revision))
            return Edit(content, old, frozenset(), await self._judged(content, old))

        async def commit(edit: Edit) -> int:
            return await self._revisions.rollback(
                request.revision,
                expect=edit.content.revision,
                author=request.author,
                message=request.message,
                now=self._clock(),
            )

        return await self._carry_out(check, commit, dry_run=dry_run, expect=expect)

    async def compare(self, files: views.Files) -> views.Difference:
        """What applying `files` would change."""
        sent = await asyncio.to_thread(read_files, files)
        content = await self._revisions.read()
        stored = documents_of(content)
        after = changes.applied(stored, sent.documents)
        found = await self._judged(content, after, sent=sent)
        return views.Difference(
            since=content.revision, to=0, changes=changes.between(stored, after), findings=finding_views(found)
        )

    async def difference(self, since: int, to: int | None) -> views.Difference:
        """What changed from one revision to another; `to` None: to the current one."""
        before = await self._kept(since)
        after = await self._revisions.read() if to is None else await self._kept(to)
        found = changes.between(documents_of(before), documents_of(after))
        return views.Difference(since=since, to=after.revision, changes=found)

    async def analyze(self, files: views.Files) -> views.Findings:
        """Findings of the mesh as it would be with `files` applied; without any, as it is."""
        sent = await asyncio.to_thread(read_files, files)
        content = await self._revisions.read()
        after = changes.applied(documents_of(content), sent.documents)
        everything = await asyncio.to_thread(self._findings, content, after, sent.resources)
        relevant = [finding for finding in everything if not sent.resources or finding.resource in sent.resources]
        return views.Findings(findings=finding_views([*sent.findings, *relevant]))

    async def history(self, limit: int) -> views.History:
        """Newest first."""
        lines = await self._revisions.history(limit)
        items = [
            views.RevisionView(
                revision=line.revision,
                time=rfc3339(line.time),
                author=line.author,
                message=line.message,
                resources=line.resources,
                added=line.added,
                changed=line.changed,
                removed=line.removed,
                rolled_back_to=line.rolled_back_to,
            )
            for line in lines
        ]
        return views.History(head=await self._revisions.head(), items=items)

    async def listing(self, *, kind: str | None, namespace: str | None) -> views.Listing:
        """Stored resources and those from files, in order of key."""
        content = await self._revisions.read()
        items = {key: views.Item(resource=key, document=document) for key, document in documents_of(content).items()}
        for resource in self._surroundings().files:
            key = str(resource.key)
            items[key] = views.Item(resource=key, document=dict(resource.document), source="file", file=resource.file)
        chosen = [item for _, item in sorted(items.items()) if _is_chosen(item.resource, kind, namespace)]
        return views.Listing(revision=content.revision, items=chosen)

    async def item(self, key: str) -> views.Item:
        """One resource."""
        found = [item for item in (await self.listing(kind=None, namespace=None)).items if item.resource == key]
        if not found:
            raise not_found(key, "`meshctl get` lists what there is.")
        return found[0]

    async def _carry_out(
        self,
        check: Callable[[], Awaitable[Edit]],
        commit: Callable[[Edit], Awaitable[int]],
        *,
        dry_run: bool,
        expect: int | None,
    ) -> views.Applied:
        """Check and commit; begin again when another writer was faster and the caller did not insist on a revision."""
        for attempt in range(ATTEMPTS):
            edit = await check()
            try:
                revision = edit.content.revision if dry_run else await commit(edit)
            except Conflict:
                if expect is not None or attempt == ATTEMPTS - 1:
                    raise
                continue
            return views.Applied(
                revision=revision,
                dry_run=dry_run,
                changes=edit.changes if dry_run else changes.brief(edit.changes),
                findings=finding_views(edit.findings),
            )
        raise AssertionError("unreachable")

    async def _current(self, expect: int | None) -> RevisionContent:
        content = await self._revisions.read()
        if expect is not None and content.revision != expect:
            raise Conflict("the configuration", expect, content.revision)
        return content

    async def _kept(self, revision: int) -> RevisionContent:
        try:
            return await self._revisions.read(revision)
        except StoreError as error:
            await self._revisions.head()  # if the store answers, the error is about the revision
            raise Problem(
                404,
                f"revision {revision} cannot be read",
                why=str(error),
                next_step="`meshctl history` lists those that are kept.",
            ) from error

    async def _judged(
        self,
        content: RevisionContent,
        after: Mapping[str, views.Document],
        *,
        sent: Sent | None = None,
        refuse: bool = True,
    ) -> tuple[Finding, ...]:
        """What is to be said of a change: findings of reading it, of what it names, and new ones elsewhere.

        Raises `Problem` with all of them if one of them is an error.
        """
        sent = sent or Sent()
        # A large mesh takes a while, in which clients must be served.
        found = await asyncio.to_thread(self._judge, content, after, sent)
        if refuse and any(refuses(finding) for finding in found):
            raise invalid(finding_views(found))
        return found

    def _judge(self, content: RevisionContent, after: Mapping[str, views.Document], sent: Sent) -> tuple[Finding, ...]:
        # What was stored by an earlier version with laxer rules must not stand in the way of everything else.
        before = {_identity(finding) for finding in self._findings(content, documents_of(content))}
        found = self._findings(content, after, sent.resources)
        relevant = (each for each in found if each.resource in sent.resources or _identity(each) not in before)
        return (*sent.findings, *relevant)

    def _findings(
        self, content: RevisionContent, documents: Mapping[str, views.Document], located: Mapping[str, ConfigResource] = NOTHING
    ) -> list[Finding]:
        """All findings of `documents` together with what comes from files.  `located` gives places in files to name."""
        around = self._surroundings()
        newest = content.revision + 1
        resources, errors = self._loader.load(documents, content.created, newest=newest)
        for key, resource in located.items():
            resources[key] = replace(resource, created=content.created.get(key, newest))
        resources.update((str(resource.key), resource) for resource in around.files)
        config = ConfigSet(resources.values(), content.revision)
        labels = {host: [_labels(each) for each in instances] for host, instances in around.catalog.instances.items()}
        services = around.catalog.services.values()
        unreadable = [finding for key, error in errors.items() if key not in located for finding in error.findings]
        return [*unreadable, *analyze(config, services=services, instances=labels, domain=around.domain)]

    def _keep_files_apart(self, keys: Collection[str]) -> None:
        for resource in self._surroundings().files:
            if str(resource.key) in keys:
                raise Problem(
                    409,
                    f"{resource.key} comes from {resource.file}",
                    where="--config of the control service",
                    why="what is read from files cannot be changed through the API",
                    next_step="Edit that file: it is read again when it changes.",
                )


def read_files(files: views.Files) -> Sent:
    """The resources of `files`, and what is wrong with their text and fields.  Raises `Problem`."""
    fault = namespace_fault(files.namespace)
    if fault:
        raise Problem(400, fault, where="namespace", next_step="Use lower case letters, digits and dashes.")
    resources, findings = load([(file.name, file.text) for file in files.files], namespace=files.namespace)
    return Sent({str(resource.key): resource for resource in resources}, tuple(findings))


def refuses(finding: Finding) -> bool:
    """Does this keep a resource from being stored?"""
    return finding.severity is Severity.ERROR and finding.code in REFUSES


def documents_of(content: RevisionContent) -> dict[str, views.Document]:
    return {key: cast("dict[str, Any]", document) for key, document in content.documents.items()}


def rfc3339(time: float) -> str:
    """Seconds since the epoch as ``2026-11-23T12:00:00Z``."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _identity(finding: Finding) -> tuple[str, str, str, str]:
    return (finding.code, finding.resource, finding.field, finding.message)


def _labels(instance: Instance) -> Mapping[str, str]:
    """With the label by which Istio tells that it speaks mTLS."""
    return {MTLS_LABEL: MTLS_MODE, **instance.labels} if instance.mtls else instance.labels


def _is_chosen(key: str, kind: str | None, namespace: str | None) -> bool:
    its_kind, its_namespace, _ = key.split("/", 2)
    return kind in (None, its_kind) and namespace in (None, its_namespace)
