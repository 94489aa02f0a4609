"""Targets and errors of the mesh's channels."""

from __future__ import annotations

import pickle

import grpc
import grpc.aio
import pytest

from meshlib import errors
from meshlib_integrations import _grpc_aio_calls, _grpc_calls
from meshlib_integrations._grpc_channel import authority, code_of, translation
from meshlib_integrations._grpc_server import framed


@pytest.mark.parametrize(
    ("target", "name"),
    [("ratings", "ratings:80"), ("Ratings.:9080", "ratings:9080"), ("[::1]:9080", "[::1]:9080"), ("[::1]", "[::1]:80")],
)
def test_targets(target: str, name: str) -> None:
    assert authority(target) == name


@pytest.mark.parametrize("target", ["dns:///ratings", "ratings:grpc", "unix:socket", "xds:///ratings"])
def test_targets_of_grpcs_resolvers_are_refused(target: str) -> None:
    with pytest.raises(errors.RequestError, match="host of the mesh"):
        authority(target)


FAILED = errors.NoHealthyUpstream("nobody", authority="ratings:80", cluster="c")


KINDS = [_grpc_calls.Failure, _grpc_aio_calls.Failure]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_both(kind: type[Exception]) -> None:
    error = translation(kind).translate(FAILED, code=code_of(FAILED))
    assert isinstance(error, errors.NoHealthyUpstream)
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "nobody" in error.details()
    assert (error.cluster, tuple(error.trailing_metadata())) == ("c", ())


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_travels_between_processes(kind: type[Exception]) -> None:
    error = translation(kind).translate(FAILED, code=code_of(FAILED))
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, errors.NoHealthyUpstream)
    assert isinstance(copy, grpc.RpcError)
    assert copy.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TimeoutExceeded("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.RequestError("odd"), grpc.StatusCode.INTERNAL),
        (errors.ControlError("gone"), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_codes(error: errors.MeshError, code: grpc.StatusCode) -> None:
    assert code_of(error) is code


def test_messages_have_their_length_before_them() -> None:
    assert framed(b"abc") == b"\0\0\0\0\3abc"
