"""Documents as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from rich.console import Console, RenderableType

from meshlib_control.admin import views
from meshlib_control.cli import render

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def text_of(renderable: RenderableType) -> str:
    console = Console(width=300, color_system=None, record=True, markup=False, highlight=False, file=None, quiet=False)
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def control(**changes: object) -> views.ControlView:
    fields: dict[str, object] = {
        "version": "0.1.0",
        "started": "2026-11-23T11:00:00Z",
        "xds": "127.0.0.1:15010",
        "admin": "127.0.0.1:15014",
        "store": "sqlite",
        "revision": 7,
        "mesh_domain": "cluster.local",
    }
    return views.ControlView(**{**fields, **changes})  # type: ignore[arg-type]  # fields by name


def test_status_shows_each_client_by_type_and_the_problems() -> None:
    client = views.ClientView(
        id="web-1",
        flavour="meshlib",
        service="web",
        namespace="default",
        connected_since="2026-11-23T11:48:00Z",
        types={"LDS": views.TypeSync(state="SYNCED"), "RDS": views.TypeSync(state="NACK", error="bad regex")},
    )
    text = text_of(render.status(views.Status(control=control(), clients=[client], problems=["web-1 refused RDS"]), now=NOW))
    header, row = [line.split() for line in text.splitlines() if line.startswith(("CLIENT", "web-1"))]
    assert header == ["CLIENT", "FLAVOUR", "NAMESPACE", "SERVICE", "LDS", "RDS", "CDS", "EDS", "SDS", "CONNECTED"]
    assert row == ["web-1", "meshlib", "default", "web", "SYNCED", "NACK", *["NOT", "SENT"] * 3, "12m"]
    assert "  - web-1 refused RDS" in text


def test_status_without_clients_and_problems_says_so() -> None:
    text = text_of(render.status(views.Status(control=control(), clients=[], problems=[]), now=NOW))
    assert "No clients are connected." in text
    assert "No problems." in text


def test_a_change_is_a_unified_diff_of_yaml() -> None:
    change = views.Change(
        resource="VirtualService/default/a",
        action="configured",
        before={"kind": "VirtualService", "spec": {"http": [{"timeout": "1s"}], "hosts": ["a"]}},
        after={"kind": "VirtualService", "spec": {"hosts": ["a"], "http": [{"timeout": "2s"}]}},
    )
    lines = render.unified(change).splitlines()
    assert lines[:2] == ["--- a/VirtualService/default/a", "+++ b/VirtualService/default/a"]
    assert [line for line in lines[3:] if not line.startswith(" ")] == ["-  - timeout: 1s", "+  - timeout: 2s"]


def test_a_new_resource_comes_from_nothing() -> None:
    change = views.Change(resource="VirtualService/default/a", action="created", after={"kind": "VirtualService"})
    assert render.unified(change) == "--- /dev/null\n+++ b/VirtualService/default/a\n@@ -0,0 +1 @@\n+kind: VirtualService\n"


def test_findings_have_place_severity_code_and_message() -> None:
    finding = views.FindingView(
        code="MSH0101",
        severity="error",
        resource="VirtualService/default/a",
        field="spec.http[0].route",
        file="a.yaml",
        line=9,
        message="weights [sum] to 0",
    )
    expected = "a.yaml:9: error MSH0101 (VirtualService/default/a) spec.http[0].route: weights [sum] to 0"
    assert text_of(render.findings([finding])) == expected
    assert render.summary([finding, finding]) == "2 errors"


def test_an_explanation_names_what_was_tried_and_what_was_taken() -> None:
    endpoint = views.EndpointView(
        host="reviews", id="r1", address="10.0.0.1", port=9080, health="healthy", weight=1, labels={"version": "v1"}
    )
    trace = views.ExplanationView(
        authority="reviews:80",
        outcome="forward",
        virtual_host="reviews",
        route="canary",
        routes=[
            views.RouteTried(name="jason", matched=False, reason="header end-user is not 'jason'"),
            views.RouteTried(name="canary", matched=True, reason="matches everything"),
        ],
        clusters=[
            views.ClusterShare(
                name="v1", percent=90.0, endpoints=[endpoint, replace(endpoint, address="10.0.0.2", priority=1)]
            ),
            views.ClusterShare(name="v2", percent=10.0, endpoints=[], error="it has no endpoints"),
        ],
        timeout=2.0,
        retries=2,
        retry_on=["connect-failure"],
        per_try_timeout=0.5,
    )
    lines = text_of(render.explanation("GET http://reviews/", trace)).splitlines()
    assert "     jason: header end-user is not 'jason'" in lines
    assert "  -> canary: matches everything" in lines
    assert "timeout        2s" in lines
    assert "retries        2 on connect-failure, 0.5s each" in lines
    assert "90 % to v1" in lines
    assert "     10.0.0.1:9080 healthy version=v1" in lines
    assert "     10.0.0.2:9080 healthy priority 1 version=v1" in lines
    assert any("no endpoints" in line and "UH" in line for line in lines)


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-11-23T11:59:53Z", "7s"),
        ("2026-11-23T11:59:00+00:00", "60s"),
        ("2026-11-23T11:30:00Z", "30m"),
        ("2026-11-23T09:00:00Z", "3h"),
        ("2026-11-18T12:00:00Z", "5d"),
        ("2026-11-23T12:00:09Z", "0s"),
        ("", ""),
    ],
)
def test_ages(time: str, shown: str) -> None:
    """A clock that is a little behind shows no negative age."""
    assert render.age(time, now=NOW) == shown
