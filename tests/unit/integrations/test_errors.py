"""meshlib's errors as httpx's and requests' own: every class, every timeout."""

from __future__ import annotations

import inspect
from typing import get_args

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
