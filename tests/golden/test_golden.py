"""Configuration → all resources of a node, compared with what was looked over once.

``MESHLIB_UPDATE_GOLDEN=1 pytest tests/golden`` writes the files anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import pytest

from meshlib_control.compile import Flavour, Node, compile_document
from meshlib_control.compile.node import ServedPort
from meshlib_control.compile.trust import Trust
from tests.support.configuring import INSECURE, world

FOLDER = Path(__file__).parent
CASES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
IDENTITIES = frozenset({"mtls"})
"""Cases of a mesh with identities.  The others show what it is like without."""

SERVING = IDENTITIES | {"sidecar", "resilience"}
"""Cases where the node serves ports."""

SERVICES = {"cors": "reviews"}
"""Cases where it matters what the node serves."""

GROUPS = {"workload-group": "vms"}
"""Cases where the node has joined a group."""

LABELS = {"app": "web", "version": "v1"}
LOCALITY = "us-east/a/1"

TRUST = Trust("td1", ("cluster.local",), {"td1": "(roots of td1, in PEM)"})
SERVED = (ServedPort(9080, 8080), ServedPort(9081, 8081, "tcp"))


@pytest.mark.parametrize("flavour", get_args(Flavour))
@pytest.mark.parametrize("case", CASES)
def test_resources_are_the_golden_ones(case: str, flavour: Flavour) -> None:
    secure = case in IDENTITIES
    ports = SERVED if case in SERVING else ()
    service = SERVICES.get(case, "")
    node = Node(
        flavour=flavour,
        service=service,
        namespace="default",
        labels=LABELS,
        locality=LOCALITY,
        ports=ports,
        group=GROUPS.get(case, ""),
    )
    found = compile_document(world((FOLDER / f"{case}.yaml").read_text(), trust=TRUST if secure else INSECURE), node)
    golden = FOLDER / f"{case}.{flavour}.json"
    if os.environ.get("MESHLIB_UPDATE_GOLDEN"):
        golden.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(golden.read_text())


def test_no_golden_file_is_left_over() -> None:
    written = {path.name for path in FOLDER.glob("*.json")}
    assert written == {f"{case}.{flavour}.json" for case in CASES for flavour in get_args(Flavour)}
