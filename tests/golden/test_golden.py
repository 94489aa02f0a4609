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
from tests.support.configuring import world

FOLDER = Path(__file__).parent
CASES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("flavour", get_args(Flavour))
@pytest.mark.parametrize("case", CASES)
def test_resources_are_the_golden_ones(case: str, flavour: Flavour) -> None:
    node = Node(flavour=flavour, namespace="default", labels={"app": "web"})
    found = compile_document(world((FOLDER / f"{case}.yaml").read_text()), node)
    golden = FOLDER / f"{case}.{flavour}.json"
    if os.environ.get("MESHLIB_UPDATE_GOLDEN"):
        golden.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(golden.read_text())


def test_no_golden_file_is_left_over() -> None:
    written = {path.name for path in FOLDER.glob("*.json")}
    assert written == {f"{case}.{flavour}.json" for case in CASES for flavour in get_args(Flavour)}
