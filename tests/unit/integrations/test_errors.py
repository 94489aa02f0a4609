"""meshlib's errors as httpx's and requests' own: every class, every timeout."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any, get_args

import httpx
import httpx2
import pytest
import requests

from meshlib import errors
from meshlib_integrations import requests as adapter
from meshlib_integrations._errors import Translation
from meshlib_integrations._httpx import _translation

CALL_ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CallError)]
HTTPX = [_translation(package) for package in (httpx, httpx2)]
REQUESTS = [adapter._SENDING, adapter._READING]


def made(kind: type[errors.MeshError]) -> errors.MeshError:
    if issubclass(kind, errors.TimeoutExceeded):
        return kind("it failed", which="route", seconds=2.0)
    return kind("it failed")


@pytest.mark.parametrize("translation", HTTPX + REQUESTS)
@pytest.mark.parametrize("kind", CALL_ERRORS)
def test_every_error_of_a_call_has_a_place(translation: Translation, kind: type[errors.CallError]) -> None:
    translated = translation.translate(made(kind), request=None)
    assert isinstance(translated, kind)
    assert isinstance(translated, httpx.TransportError | httpx2.TransportError | requests.RequestException)


@pytest.mark.parametrize("translation", [*HTTPX, adapter._SENDING])
@pytest.mark.parametrize("kind", [errors.RequestError, errors.ControlError, errors.NotReady])
def test_errors_before_a_call_have_one_as_well(translation: Translation, kind: type[errors.MeshError]) -> None:
    translated = translation.translate(kind("it failed"), request=None)
    assert isinstance(translated, kind)
    assert str(translated) == "it failed"


def test_all_fields_are_kept() -> None:
    fields = {
        "authority": "reviews:80",
        "route": "canary",
        "cluster": "outbound|80||reviews",
        "endpoint": "10.0.0.1:80",
        "attempts": 3,
        "flags": ("UT", "URX"),
        "which": "per_try",
        "seconds": 0.5,
    }
    error = errors.TimeoutExceeded("too slow", **fields)  # type: ignore[arg-type]
    translated = HTTPX[0].translate(error, request=None)
    assert {name: getattr(translated, name) for name in fields} == fields
    assert str(translated) == str(error)


@pytest.mark.parametrize("translation", HTTPX)
@pytest.mark.parametrize("which", get_args(errors.TimeoutName))
def test_a_timeout_is_the_clients_one_of_that_name(translation: Translation, which: errors.TimeoutName) -> None:
    translated = translation.translate(errors.TimeoutExceeded("too slow", which=which), request=None)
    name = {"connect": "ConnectTimeout", "write": "WriteTimeout", "pool": "PoolTimeout"}.get(which, "ReadTimeout")
    assert name in {kind.__name__ for kind in type(translated).__mro__}


def test_a_class_is_made_once() -> None:
    first, second = (HTTPX[0].translate(errors.NoHealthyUpstream("none"), request=None) for _ in range(2))
    assert type(first) is type(second)


def test_the_clients_request_is_there() -> None:
    request = httpx.Request("GET", "http://reviews/")
    translated = HTTPX[0].translate(errors.ConnectFailed("refused"), request=request)
    assert isinstance(translated, httpx.ConnectError)
    assert translated.request is request


@pytest.mark.parametrize("through", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    ("translation", "request_"),
    [
        (HTTPX[0], httpx.Request("GET", "http://reviews/")),
        (HTTPX[1], httpx2.Request("GET", "http://reviews/")),
        (REQUESTS[0], requests.Request("GET", "http://reviews/").prepare()),
        (REQUESTS[1], requests.Request("GET", "http://reviews/").prepare()),
    ],
)
@pytest.mark.parametrize("kind", CALL_ERRORS)
def test_errors_go_through_pickle_and_copies(
    translation: Translation, request_: Any, kind: type[errors.CallError], through: Callable[[Any], Any]
) -> None:
    """A process pool or a task queue hands an exception on by pickling it."""
    ours = made(kind)
    assert isinstance(ours, errors.CallError)
    ours.endpoint, ours.attempts, ours.flags = "10.0.0.1:80", 3, ("UF", "URX")
    error: Any = translation.translate(ours, request=request_)
    twin = through(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert {name: value for name, value in vars(twin).items() if "request" not in name} == {
        name: value for name, value in vars(error).items() if "request" not in name
    }
    assert twin.request.method == "GET"
