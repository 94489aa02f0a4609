"""Our trimmed messages are Envoy's, field by field, for those fields that ours have."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor

from meshlib.xds.proto import (
    cluster_pb2,
    core_pb2,
    discovery_pb2,
    endpoint_pb2,
    ext_authz_pb2,
    jwt_pb2,
    listener_pb2,
    rbac_pb2,
    rlqs_pb2,
    route_pb2,
    tls_pb2,
)
from meshlib.xds.types import ENVOY_NAMES
from tests.compat.dump_descriptors import message_shape
from tests.support import tools

OURS = "meshlib.xds.v3."
MODULES = (
    core_pb2,
    discovery_pb2,
    endpoint_pb2,
    cluster_pb2,
    route_pb2,
    listener_pb2,
    tls_pb2,
    rbac_pb2,
    jwt_pb2,
    ext_authz_pb2,
    rlqs_pb2,
)


def _messages() -> Iterator[tuple[str, Descriptor]]:
    """Envoy's name and our descriptor of every message, nested ones too."""
    for module in MODULES:
        for name, message in module.DESCRIPTOR.message_types_by_name.items():
            assert name in ENVOY_NAMES, f"{name} has no counterpart in meshlib.xds.types.ENVOY_NAMES"
            yield from _with_nested(ENVOY_NAMES[name], message)


def _with_nested(envoy_name: str, message: Descriptor) -> Iterator[tuple[str, Descriptor]]:
    yield envoy_name, message
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from _with_nested(f"{envoy_name}.{nested.name}", nested)


def _envoy_name(ours: str) -> str:
    """The name that a message of ours has in Envoy's API; well-known types keep theirs."""
    if not ours.startswith(OURS):
        return ours
    outer, _, rest = ours.removeprefix(OURS).partition(".")
    return ENVOY_NAMES[outer] + (f".{rest}" if rest else "")


MESSAGES = dict(_messages())


@pytest.fixture(scope="module")
def envoys() -> dict[str, dict[str, dict[str, Any]]]:
    script = Path(__file__).with_name("dump_descriptors.py")
    done = subprocess.run(
        [str(tools.xds_python()), str(script)],
        input=json.dumps(list(MESSAGES)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_are_envoys(name: str, envoys: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Number, name, type, repetition, presence, oneof and enum values are equal; we may have fewer fields, never others."""
    theirs = envoys[name]
    for number, ours in message_shape(MESSAGES[name]).items():
        assert number in theirs, f"{name} has no field {number} ({ours['name']})"
        other = theirs[number]
        for aspect in ("name", "type", "repeated", "presence", "oneof", "map"):
            assert ours[aspect] == other[aspect], f"{name}.{ours['name']}: {aspect}"
        if ours["message"] is not None and not ours["map"]:
            assert _envoy_name(str(ours["message"])) == other["message"], f"{name}.{ours['name']}: message"
        if ours["enum"] is not None:
            _compare_enum(f"{name}.{ours['name']}", ours["enum"], other["enum"])


def _compare_enum(where: str, ours: Any, theirs: dict[str, int]) -> None:
    """Every value of ours has the same number there; and we lack none, since an open enum would take it in silence."""
    assert dict(ours).items() <= theirs.items(), where
    missing = {name for name in theirs if name not in ours and not name.endswith(("_DEPRECATED", "_BEFORE_V3"))}
    assert not missing, f"{where}: our enum lacks {sorted(missing)}"


def test_comparison_notices_a_difference(envoys: dict[str, dict[str, dict[str, Any]]]) -> None:
    """The positive control: a message held against another one does differ."""
    locality = message_shape(MESSAGES["envoy.config.core.v3.Locality"])
    assert locality["1"]["name"] != envoys["envoy.config.core.v3.SocketAddress"]["1"]["name"]


def test_every_name_in_the_table_is_a_message_of_ours() -> None:
    tops = {name for module in MODULES for name in module.DESCRIPTOR.message_types_by_name}
    assert set(ENVOY_NAMES) == tops
