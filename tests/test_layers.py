"""The layers of pyproject.toml hold, and the contracts would notice if they did not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = Path(sys.executable).with_name("lint-imports")

needs_linter = pytest.mark.skipif(not LINT.exists(), reason="import-linter comes with the dependency group `lint`")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    # PYTHONPATH wins over an editable installation, so that a copy is judged by itself.
    path = f"{folder}:{folder / 'integrations'}"
    return subprocess.run(
        [LINT, "--no-cache", "--config", "pyproject.toml"],
        cwd=folder,
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_linter
def test_the_layers_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@needs_linter
@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("meshlib/policy/budget.py", "import time", "pure code"),
        ("meshlib/flow/client.py", "from meshlib.runtime import clock", "library layers"),
        ("integrations/meshlib_integrations/wsgi.py", "from meshlib.runtime import clock", "public API only"),
        ("meshlib_control/compile/world.py", "import grpc", "compilation is pure"),
        ("meshlib_control/catalog/model.py", "from meshlib_control import app", "control layers"),
        ("meshlib_control/app.py", "from meshlib_integrations import httpx", "side by side"),
    ],
)
def test_a_contract_notices_its_breach(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for part in ("pyproject.toml", "meshlib", "meshlib_control", "integrations"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / part)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode != 0
    assert contract in done.stdout.partition("Broken contracts")[2], done.stdout


LONGEST_FILE = 500
GENERATED = "meshlib/xds/proto"


def test_no_file_of_the_packages_is_too_long_to_know() -> None:
    packages = ("meshlib", "meshlib_control", "integrations", "examples")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py") if GENERATED not in path.as_posix()]
    assert len(files) > 100
    assert not [str(path) for path in files if len(path.read_text().splitlines()) > LONGEST_FILE]
