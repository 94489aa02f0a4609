"""What `meshctl endpoints` prints."""

from __future__ import annotations

from msgspec.structs import replace
from rich.console import Console

from meshlib_control.admin import views
from meshlib_control.cli.render_endpoints import endpoints

ENDPOINT = views.EndpointView(host="reviews", id="r-1", address="10.0.0.1", port=80, health="healthy", weight=1, callers=5)
EJECTED = views.EndpointStateView(state="ejected", reason="consecutive_5xx", callers=2, left=12.4, by=["web-1", "web-2"])
REFUSING = views.EndpointStateView(state="refusing", reason="", callers=1, left=0.0, by=["web-3"])


def printed(document: views.Endpoints) -> list[str]:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(endpoints(document))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_no_endpoints() -> None:
    assert printed(views.Endpoints(endpoints=[])) == ["No endpoints."]


def test_where_all_is_well_there_is_one_table() -> None:
    assert printed(views.Endpoints(endpoints=[ENDPOINT])) == [
        "SERVICE ENDPOINT HEALTH STATE LABELS LOCALITY WEIGHT",
        "reviews 10.0.0.1:80 healthy - - - 1",
    ]


def test_the_state_says_how_many_callers_say_what() -> None:
    _, line = printed(views.Endpoints(endpoints=[replace(ENDPOINT, reported=[EJECTED, REFUSING])]))
    assert "healthy ejected by 2 of 5: consecutive_5xx, 12s left; refusing by 1 of 5 -" in line


def test_breakers_budgets_and_limits_have_their_tables() -> None:
    cluster = views.ClusterStateView(
        name="outbound|80|v1|reviews",
        host="reviews",
        port=80,
        subset="v1",
        callers=5,
        reporters=3,
        circuit_breaker={"closed": 1, "open": 2},
        circuit_breaker_rejected=31,
        concurrency_limits=[3, 8],
        active_retries=1,
        allowed_retries=9,
        retries=40,
        retry_overflow=7,
        pending_overflow=6,
        hedges=5,
    )
    limit = views.LimitStateView(id="default/p/few", side="client", processes=2, allowed=10, limited=4, would_limit=1)
    lines = printed(views.Endpoints(endpoints=[ENDPOINT], clusters=[cluster], limits=[limit], notes=["A note."]))
    assert "reviews:80 v1 3 of 5 open at 2, closed at 1 (31 refused) 3 to 8 1/9 40 7 6 5" in lines
    assert "default/p/few client 2 10 4 1" in lines
    assert lines[-1] == "A note."
