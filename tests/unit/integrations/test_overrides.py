"""What one call may say about itself, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
import tenacity

from meshlib import Overrides
from meshlib.errors import RequestError
from meshlib_integrations._overrides import read_overrides


def test_nothing_is_nothing() -> None:
    assert read_overrides(None) is None


def test_an_overrides_is_taken_as_it_is() -> None:
    overrides = Overrides(retries=1)
    assert read_overrides(overrides) is overrides


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Overrides()),
        ({"timeout": 1, "per_try_timeout": 0.25}, Overrides(timeout=1.0, per_try_timeout=0.25)),
        ({"retries": 0}, Overrides(retries=0)),
        ({"timeout": None}, Overrides()),
        ({"retry_on": ["5xx", "reset"]}, Overrides(retry_on=frozenset({"5xx", "reset"}))),
        ({"retry_on": "5xx, reset"}, Overrides(retry_on=frozenset({"5xx", "reset"}))),
        ({"retry_on": "503,connect-failure"}, Overrides(retry_on=frozenset({"503", "connect-failure"}))),
    ],
)
def test_a_dict_is_read(given: dict[str, Any], expected: Overrides) -> None:
    assert read_overrides(given) == expected


def test_tenacity_strategies_are_passed_on() -> None:
    stop, wait = tenacity.stop_after_attempt(2), tenacity.wait_fixed(1)
    assert read_overrides({"stop": stop, "wait": wait}) == Overrides(stop=stop, wait=wait)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, r"must be a dict or meshlib.Overrides, not int"),
        ({"retrys": 3, "tiemout": 1}, r"has no 'retrys', 'tiemout'; there are timeout, per_try_timeout, retries"),
        ({"timeout": 0}, r"\['timeout'\] must be seconds above 0, not 0"),
        ({"timeout": True}, r"must be seconds"),
        ({"timeout": "1s"}, r"must be seconds above 0, not '1s'"),
        ({"per_try_timeout": float("nan")}, r"must be seconds"),
        ({"retries": -1}, r"\['retries'\] must be a whole number from 0 on, not -1"),
        ({"retries": 1.5}, r"must be a whole number"),
        ({"retry_on": 503}, r"\['retry_on'\] must be a list such as \['5xx', 'reset'\], not 503"),
        ({"retry_on": [503]}, r"must be a list"),
        ({"retry_on": "5xxx"}, r"retry_on: '5xxx' is not a condition; there are 5xx, cancelled"),
        ({"retry_on": "5xx,,reset"}, r"retry_on: '' is not a condition"),
        ({"retry_on": ["999"]}, r"retry_on: '999' is not a condition"),
        ({"wait": 1}, r"\['wait'\] must be a tenacity wait strategy, not 1"),
    ],
)
def test_mistakes_are_named(given: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_overrides(given)
