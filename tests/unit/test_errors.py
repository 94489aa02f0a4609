"""Errors speak for themselves: what failed, where, after how many tries, whose fault."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from meshlib import errors

CALL_ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CallError)]


def make(kind: type[errors.CallError], message: str, **fields: object) -> errors.CallError:
    more = {"which": "route", "seconds": 1.5} if kind is errors.TimeoutExceeded else {}
    return kind(message, **more, **fields)  # type: ignore[arg-type]


def test_an_error_says_everything_it_knows() -> None:
    error = errors.ConnectFailed(
        "no connection to the endpoint",
        authority="reviews:80",
        route="default",
        cluster="outbound|80|v1|reviews",
        endpoint="10.0.0.7:9080",
        attempts=3,
        flags=("UF", "URX"),
    )
    assert str(error) == (
        "no connection to the endpoint [authority=reviews:80 route=default cluster=outbound|80|v1|reviews"
        " endpoint=10.0.0.7:9080 attempts=3 flags=UF,URX]"
    )


def test_what_is_not_known_is_left_out() -> None:
    assert str(errors.RouteNotFound("no route matches", authority="a:80")) == "no route matches [authority=a:80 flags=NR]"


@pytest.mark.parametrize("kind", CALL_ERRORS, ids=lambda kind: kind.__name__)
def test_every_call_error_has_the_flag_that_the_docstring_draws(kind: type[errors.CallError]) -> None:
    """The tree at the top of the module is what people read."""
    error = make(kind, "it failed")
    assert error.flags == (kind.flag,)
    drawn = re.search(rf"\u2500 {kind.__name__}\s+(\w+)\s\s", errors.__doc__ or "")
    if kind.flag != "-" and drawn is not None:
        assert drawn.group(1) == kind.flag
    assert f"flags={kind.flag}" in str(error)


def test_the_docstring_draws_every_error() -> None:
    drawn = set(re.findall(r"(?:\u2500 |^ +)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE))
    defined = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}
    assert defined <= drawn
    assert defined | {"TimeoutName"} == set(errors.__all__)


def test_a_timeout_says_whose_and_how_long() -> None:
    error = errors.TimeoutExceeded("too late", which="route", seconds=1.5, authority="a:80")
    assert (error.which, error.seconds, error.flags) == ("route", 1.5, ("UT",))


def test_a_call_error_mixes_with_a_clients_own() -> None:
    """The client's class gets what is not ours."""

    class Theirs(Exception):
        def __init__(self, message: str, *, request: object) -> None:
            super().__init__(message)
            self.request = request

    class Mixed(errors.ConnectFailed, Theirs):
        pass

    error = Mixed("refused", authority="a:80", request="the request")
    assert (error.request, error.authority) == ("the request", "a:80")
    assert str(error) == "refused [authority=a:80 flags=UF]"
    assert isinstance(error, errors.MeshError)


@pytest.mark.parametrize("kind", CALL_ERRORS, ids=lambda kind: kind.__name__)
def test_errors_travel_between_processes(kind: type[errors.CallError]) -> None:
    """A worker of multiprocessing or celery hands them to its parent."""
    error = make(kind, "it failed", authority="a:80", attempts=2)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
