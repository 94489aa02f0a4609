"""Edits: everything is checked first, then stored at once or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib_control.admin import views
from meshlib_control.admin.problems import Problem
from meshlib_control.catalog.model import CatalogSnapshot, Port, Service
from meshlib_control.errors import Conflict
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.trees import Changes
from tests.unit.admin.support import MESH, SERVICE, SUBSETS, Desk, files, from_file, virtual_service


async def refused(attempt: Any) -> dict[str, Any]:
    with pytest.raises(Problem) as caught:
        await attempt
    return {**caught.value.document, "status": caught.value.status}


async def test_one_apply_is_one_revision_with_all_its_resources() -> None:
    desk = Desk()
    applied = await desk.editor.apply(files(MESH, message="first"))
    assert applied.revision == 1
    assert [(change.resource, change.action) for change in applied.changes] == [
        ("DestinationRule/default/reviews", "created"),
        ("ServiceEntry/default/reviews", "created"),
        ("VirtualService/default/reviews", "created"),
    ]
    history = await desk.editor.history(10)
    assert [(line.revision, line.author, line.message, line.added) for line in history.items] == [(1, "ada", "first", 3)]


async def test_applying_the_same_again_makes_no_revision() -> None:
    desk = Desk()
    await desk.editor.apply(files(MESH))
    again = await desk.editor.apply(files(MESH))
    assert again.revision == 1
    assert {change.action for change in again.changes} == {"unchanged"}


async def test_every_finding_of_every_file_is_told_and_nothing_is_stored() -> None:
    desk = Desk()
    await desk.editor.apply(files(MESH))
    bad = virtual_service().replace("weight: 100", "wight: 100").replace("hosts: [reviews]", "hosts: 7")
    problem = await refused(desk.editor.apply(files(SUBSETS.replace("v2", "v3"), bad, "a: [")))
    assert problem["status"] == 422
    places = {(finding.file, finding.code) for finding in problem["findings"]}
    assert {("1.yaml", "MSH0101"), ("1.yaml", "MSH0102"), ("2.yaml", "MSH0001")} <= places
    assert all(finding.line for finding in problem["findings"] if finding.file)
    # What the first file would break in what is stored is told as well.
    assert ("", "MSH0202") in places
    assert await desk.revisions.head() == 1


async def test_a_reference_to_what_does_not_exist_is_refused() -> None:
    desk = Desk()
    problem = await refused(desk.editor.apply(files(SERVICE, virtual_service())))
    assert [finding.code for finding in problem["findings"]] == ["MSH0202", "MSH0202"]
    assert (await desk.editor.apply(files(SERVICE, SUBSETS, virtual_service()))).revision == 1


async def test_the_namespace_given_is_that_of_resources_without_one() -> None:
    desk = Desk()
    texts = (SUBSETS, virtual_service(), virtual_service(namespace="other", host="reviews.prod.svc.cluster.local"))
    applied = await desk.editor.apply(files(*texts, namespace="prod"))
    assert [change.resource for change in applied.changes] == [
        "DestinationRule/prod/reviews",
        "VirtualService/other/reviews",
        "VirtualService/prod/reviews",
    ]
    assert (await refused(desk.editor.apply(files(SUBSETS, namespace="Not One"))))["status"] == 400


async def test_a_dry_run_stores_nothing_and_shows_the_documents() -> None:
    desk = Desk()
    applied = await desk.editor.apply(files(MESH), dry_run=True)
    assert (applied.dry_run, applied.revision, await desk.revisions.head()) == (True, 0, 0)
    assert all(change.after for change in applied.changes)


async def test_an_expected_revision_that_is_not_there_any_more_is_a_conflict() -> None:
    desk = Desk()
    await desk.editor.apply(files(MESH), expect=0)
    with pytest.raises(Conflict) as caught:
        await desk.editor.apply(files(virtual_service(weight=50)), expect=0)
    assert (caught.value.expected, caught.value.found) == (0, 1)
    assert (await desk.editor.apply(files(virtual_service(weight=50)), expect=1)).revision == 2


class Crowded(MemoryStore):
    """Another replica writes a revision just before each of the first commits."""

    def __init__(self, rivals: int) -> None:
        super().__init__()
        self.rivals = rivals

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        if key == "config/head" and self.rivals > 0 and (found := await self.get(key)) is not None:
            self.rivals -= 1
            await super().put(key, found.value, expect=None)
        return await super().put(key, value, expect=expect)


async def test_whoever_expects_no_revision_wins_in_the_end() -> None:
    desk = Desk(store=Crowded(rivals=0))
    await desk.editor.apply(files(MESH))
    crowded = desk.store
    assert isinstance(crowded, Crowded)
    crowded.rivals = 3
    assert (await desk.editor.apply(files(virtual_service(weight=50)))).revision == 2
    assert crowded.rivals == 0


async def test_deleting_what_others_need_is_refused_unless_forced() -> None:
    desk = Desk()
    await desk.editor.apply(files(MESH))
    request = views.DeleteRequest(resources=["DestinationRule/default/reviews"])
    problem = await refused(desk.editor.delete(request))
    assert {finding.resource for finding in problem["findings"]} == {"VirtualService/default/reviews"}
    forced = views.DeleteRequest(resources=request.resources, force=True)
    assert [change.action for change in (await desk.editor.delete(forced)).changes] == ["deleted"]


async def test_deleting_what_is_not_there_is_not_found() -> None:
    desk = Desk()
    problem = await refused(desk.editor.delete(views.DeleteRequest(resources=["VirtualService/default/nobody"])))
    assert problem["status"] == 404


async def test_rolling_back_makes_a_new_revision_of_old_content() -> None:
    desk = Desk()
    await desk.editor.apply(files(MESH))
    await desk.editor.apply(files(virtual_service(weight=50)))
    applied = await desk.editor.rollback(views.RollbackRequest(revision=1))
    assert applied.revision == 3
    assert [(change.resource, change.action) for change in applied.changes] == [
        ("VirtualService/default/reviews", "configured")
    ]
    assert (await desk.editor.difference(1, 3)).changes == []
    assert (await desk.editor.history(1)).items[0].rolled_back_to == 1


async def test_a_revision_that_is_not_kept_is_not_found() -> None:
    desk = Desk()
    await desk.editor.apply(files(MESH))
    assert (await refused(desk.editor.rollback(views.RollbackRequest(revision=9))))["status"] == 404
    assert (await refused(desk.editor.difference(9, None)))["status"] == 404


async def test_comparing_shows_both_sides_and_stores_nothing() -> None:
    desk = Desk()
    await desk.editor.apply(files(MESH))
    difference = await desk.editor.compare(files(virtual_service(weight=50), SUBSETS))
    (change,) = difference.changes
    assert (change.resource, change.action) == ("VirtualService/default/reviews", "configured")
    assert change.before != change.after
    assert await desk.revisions.head() == 1


async def test_what_comes_from_files_cannot_be_changed_through_the_api() -> None:
    desk = Desk(static=from_file(SUBSETS))
    problem = await refused(desk.editor.apply(files(SUBSETS)))
    assert (problem["status"], "static.yaml" in problem["what"]) == (409, True)
    assert (await desk.editor.apply(files(SERVICE, virtual_service()))).revision == 1
    listed = {item.resource: item.source for item in (await desk.editor.listing(kind=None, namespace=None)).items}
    assert listed["DestinationRule/default/reviews"] == "file"


async def test_analyzing_looks_at_files_over_the_store_and_the_catalog() -> None:
    desk = Desk()
    await desk.editor.apply(files(SUBSETS))
    assert (await desk.editor.analyze(files(virtual_service(weight=50)))).findings != []
    host = "reviews.default.svc.cluster.local"
    desk.catalog = CatalogSnapshot(services={host: Service(host, "default", (Port(80),))})
    assert (await desk.editor.analyze(files(virtual_service(weight=50)))).findings == []


async def test_old_errors_elsewhere_do_not_stand_in_the_way() -> None:
    """A resource that an earlier version stored, with rules that were laxer, is not the fault of this change."""
    desk = Desk()
    broken = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "old", "namespace": "default"},
        "spec": {"hosts": ["old"], "http": [{"route": [{"destination": {"host": "old", "subset": "gone"}}]}]},
    }
    unreadable = {"apiVersion": "networking.istio.io/v9", "kind": "VirtualService", "metadata": {"name": "new"}}
    puts = {"VirtualService/default/old": broken, "VirtualService/default/new": unreadable}
    await desk.revisions.apply(Changes(puts=puts), expect=None, author="", message="", now=0.0)
    assert (await desk.editor.apply(files(MESH))).revision == 2


async def test_listing_by_kind_and_namespace() -> None:
    desk = Desk()
    await desk.editor.apply(files(MESH))
    kinds = [item.resource for item in (await desk.editor.listing(kind="ServiceEntry", namespace=None)).items]
    assert kinds == ["ServiceEntry/default/reviews"]
    assert (await desk.editor.listing(kind=None, namespace="prod")).items == []
    assert (await desk.editor.item("ServiceEntry/default/reviews")).document["kind"] == "ServiceEntry"
    assert (await refused(desk.editor.item("ServiceEntry/default/nobody")))["status"] == 404
