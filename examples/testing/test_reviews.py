"""What reviews does when ratings does not do well."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.testing.reviews import make_app
from meshlib.testing import Delay, Refuse, Status
from meshlib_control.lab import MeshLab


@pytest.fixture
def lab(mesh_lab: MeshLab) -> MeshLab:
    mesh_lab.service("ratings", lambda request: {"stars": 5}, instances=2)
    mesh_lab.apply(Path(__file__).with_name("ratings.yaml"))
    mesh_lab.service("reviews", make_app(mesh_lab.async_client("reviews")))
    return mesh_lab


def stars(lab: MeshLab) -> int | None:
    found: int | None = lab.client("productpage").get("http://reviews/").json()["stars"]
    return found


def test_one_bad_answer_is_not_noticed(lab: MeshLab) -> None:
    lab.inject("ratings", Status(503), times=1)
    assert stars(lab) == 5
    assert lab.attempts("ratings") == 2


def test_a_process_that_is_gone_is_not_noticed(lab: MeshLab) -> None:
    lab.down("ratings", 0)
    assert [stars(lab) for _ in range(5)] == [5] * 5


def test_slow_ratings_cost_a_second_and_the_stars(lab: MeshLab) -> None:
    lab.inject("ratings", Delay(30.0))
    began = lab.clock.now
    assert stars(lab) is None
    assert lab.clock.now == began + 1.0


def test_without_ratings_there_are_reviews(lab: MeshLab) -> None:
    lab.inject("ratings", Refuse())
    assert stars(lab) is None


def test_nobody_else_reads_ratings(lab: MeshLab) -> None:
    assert lab.client("productpage").get("http://ratings/7").status_code == 403
