"""What of an attempt counts against its endpoint: Envoy's ``putHttpResponseCode`` and ``putResult``."""

from __future__ import annotations

import pytest

from meshlib.model.cluster import OutlierDetection
from meshlib.model.outcome import Outcome, Reset
from meshlib.policy.outlier_tally import Detection, Tally, count

TOGETHER = OutlierDetection(consecutive_5xx=3, consecutive_gateway_failure=2)
APART = OutlierDetection(consecutive_5xx=3, split_external_local_origin_errors=True, consecutive_local_origin_failure=2)


def grpc(status: int) -> Outcome:
    return Outcome(0.0, status=200, headers=((b"content-type", b"application/grpc"), (b"grpc-status", b"%d" % status)))


def reset(kind: Reset, *, sent: bool = True) -> Outcome:
    return Outcome(0.0, reset=kind, sent=sent)


@pytest.mark.parametrize(
    ("outcome", "counters"),  # total, ok, 5xx in a row, gateway errors in a row
    [
        (Outcome(0.0, status=200), (1, 1, 0, 0)),
        (Outcome(0.0, status=499), (1, 1, 0, 0)),
        (Outcome(0.0, status=500), (1, 0, 1, 0)),
        (Outcome(0.0, status=501), (1, 0, 1, 0)),
        (Outcome(0.0, status=502), (1, 0, 1, 1)),
        (Outcome(0.0, status=503), (1, 0, 1, 1)),
        (Outcome(0.0, status=504), (1, 0, 1, 1)),
        (Outcome(0.0, status=505), (1, 0, 1, 0)),
        (reset(Reset.CONNECT_FAILURE, sent=False), (1, 0, 1, 1)),
        (reset(Reset.CONNECT_TIMEOUT, sent=False), (1, 0, 1, 1)),
        (reset(Reset.CONNECTION_TERMINATION), (1, 0, 1, 1)),
        (reset(Reset.PROTOCOL_ERROR), (1, 0, 1, 1)),
        (reset(Reset.PER_TRY_TIMEOUT), (1, 0, 1, 1)),
        (reset(Reset.TIMEOUT), (1, 0, 1, 1)),
        (reset(Reset.TIMEOUT, sent=False), (0, 0, 0, 0)),
        (reset(Reset.OVERFLOW, sent=False), (0, 0, 0, 0)),
        (reset(Reset.POOL_TIMEOUT, sent=False), (0, 0, 0, 0)),
        (reset(Reset.LOCAL), (0, 0, 0, 0)),
    ],
    ids=repr,
)
def test_outcomes_are_responses_or_stand_for_them(outcome: Outcome, counters: tuple[int, ...]) -> None:
    tally = Tally()
    count(tally, outcome, TOGETHER)
    assert (tally.total, tally.ok, tally.consecutive_5xx, tally.consecutive_gateway) == counters
    assert (tally.local_total, tally.consecutive_local) == (0, 0)


def test_the_name_of_the_grpc_status_may_be_spelled_in_any_case() -> None:
    tally = Tally()
    count(tally, Outcome(0.0, status=200, headers=((b"Grpc-Status", b"14"),)), TOGETHER)
    assert tally.consecutive_gateway == 1


@pytest.mark.parametrize(
    ("status", "http"),
    list(enumerate((200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401, 500))),
)
def test_a_grpc_status_counts_as_the_http_status_that_envoy_maps_it_to(status: int, http: int) -> None:
    by_grpc, by_http = Tally(), Tally()
    count(by_grpc, grpc(status), TOGETHER)
    count(by_http, Outcome(0.0, status=http), TOGETHER)
    seen = [(tally.ok, tally.consecutive_5xx, tally.consecutive_gateway) for tally in (by_grpc, by_http)]
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("outcome", "local", "responses"),  # total, ok and failures in a row of connections; total of responses
    [
        (Outcome(0.0, status=200), (1, 1, 0), 1),
        (Outcome(0.0, status=503), (1, 1, 0), 1),
        (reset(Reset.CONNECT_FAILURE, sent=False), (1, 0, 1), 0),
        (reset(Reset.CONNECT_TIMEOUT, sent=False), (1, 0, 1), 0),
        (reset(Reset.CONNECTION_TERMINATION), (2, 1, 1), 0),
        (reset(Reset.PER_TRY_TIMEOUT), (2, 1, 1), 0),
        (reset(Reset.TIMEOUT), (2, 1, 1), 0),
        (reset(Reset.OVERFLOW, sent=False), (0, 0, 0), 0),
    ],
    ids=repr,
)
def test_connections_count_apart_from_responses_when_that_is_asked_for(
    outcome: Outcome, local: tuple[int, ...], responses: int
) -> None:
    tally = Tally()
    count(tally, outcome, APART)
    assert (tally.local_total, tally.local_ok, tally.consecutive_local) == local
    assert tally.total == responses


def run(config: OutlierDetection, *outcomes: Outcome) -> list[tuple[Detection, ...]]:
    tally = Tally()
    return [count(tally, outcome, config) for outcome in outcomes]


def test_a_threshold_is_met_once_and_not_again_beyond_it() -> None:
    bad = Outcome(0.0, status=500)
    assert run(TOGETHER, bad, bad, bad, bad, bad) == [(), (), (Detection.CONSECUTIVE_5XX,), (), ()]


def test_a_success_ends_the_row() -> None:
    bad, good = Outcome(0.0, status=500), Outcome(0.0, status=404)
    assert run(TOGETHER, bad, bad, good, bad, bad) == [()] * 5


def test_a_gateway_error_counts_twice_and_another_5xx_ends_the_row_of_gateway_errors() -> None:
    found = run(TOGETHER, *(Outcome(0.0, status=status) for status in (503, 500, 502, 504)))
    assert found == [(), (), (Detection.CONSECUTIVE_5XX,), (Detection.CONSECUTIVE_GATEWAY_FAILURE,)]


def test_both_rows_may_end_in_one_response() -> None:
    config = OutlierDetection(consecutive_5xx=2, consecutive_gateway_failure=2)
    bad = Outcome(0.0, status=503)
    assert run(config, bad, bad)[1] == (Detection.CONSECUTIVE_GATEWAY_FAILURE, Detection.CONSECUTIVE_5XX)


def test_a_threshold_of_zero_is_never_met() -> None:
    assert run(OutlierDetection(consecutive_5xx=0), *[Outcome(0.0, status=500)] * 9) == [()] * 9


def test_refused_connections_in_a_row_are_detected_apart() -> None:
    refused = reset(Reset.CONNECT_FAILURE, sent=False)
    assert run(APART, refused, refused) == [(), (Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE,)]
    assert run(APART, refused, Outcome(0.0, status=500), refused) == [()] * 3


def test_a_reset_counts_again() -> None:
    tally = Tally()
    bad = Outcome(0.0, status=500)
    found = []
    for _ in range(6):
        for detection in count(tally, bad, TOGETHER):
            found.append(detection)
            tally.reset(detection)
    assert found == [Detection.CONSECUTIVE_5XX] * 2


@pytest.mark.parametrize(
    ("outcome", "counters"),  # total, ok, 5xx in a row, gateway errors in a row
    [
        (Outcome(0.0, status=404), (1, 0, 1, 0)),
        (Outcome(0.0, status=503), (1, 0, 1, 1)),
        (Outcome(0.0, status=500), (1, 1, 0, 0)),
        (Outcome(0.0, status=200), (1, 1, 0, 0)),
        (grpc(14), (1, 0, 1, 1)),
        (reset(Reset.CONNECT_FAILURE, sent=False), (1, 0, 1, 1)),
    ],
    ids=repr,
)
def test_statuses_that_count_as_errors_do_in_the_place_of_all_from_500(outcome: Outcome, counters: tuple[int, ...]) -> None:
    """As Envoy's ``error_matcher``, seen on the binary."""
    tally = Tally()
    count(tally, outcome, OutlierDetection(error_statuses=frozenset({404, 503})))
    assert (tally.total, tally.ok, tally.consecutive_5xx, tally.consecutive_gateway) == counters
