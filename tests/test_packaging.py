"""What is built and installed: exactly the three packages, typed, and working without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"meshlib", "meshlib_control", "meshlib_integrations"}

# hatchling is asked directly, as pip would do in an environment of its own: no package index is needed.
BUILD = "import sys; from hatchling import build; print(getattr(build, sys.argv[1])(sys.argv[2]))"


def run(*arguments: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and an sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    for kind in ("build_wheel", "build_sdist"):
        run(sys.executable, "-c", BUILD, kind, folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_the_wheels_top_level_is_the_three_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_package_says_that_it_is_typed(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


def test_the_wheel_has_every_module_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    folders = (ROOT, ROOT, ROOT / "integrations")
    for package, folder in zip(sorted(PACKAGES), folders, strict=True):
        modules = {str(path.relative_to(folder)) for path in (folder / package).rglob("*.py")}
        assert modules <= set(wheel.namelist())


def test_the_wheel_has_what_the_packages_read_at_run_time(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "meshlib_control/demo/bookinfo/reviews-90-10.yaml" in names
    assert "meshlib/xds/proto/route_pb2.pyi" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", "examples"))]


def test_the_wheel_names_its_licence_its_command_and_its_extras(wheel: zipfile.ZipFile) -> None:
    def read(ending: str) -> str:
        (name,) = (name for name in wheel.namelist() if name.endswith(ending))
        return wheel.read(name).decode()

    assert "Apache License" in read("/LICENSE")
    assert "meshctl = meshlib_control.__main__:main" in read("/entry_points.txt")
    metadata = read("/METADATA")
    assert "Name: meshlib-proxyless\n" in metadata
    for extra in ("httpx", "requests", "control", "consul", "demo", "all"):
        assert f"Provides-Extra: {extra}\n" in metadata


def test_pytest_finds_the_fixture_by_an_entry_point(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "[pytest11]\nmeshlib = meshlib_control.pytest_plugin" in wheel.read(name).decode()


SUITE = "def test_one(mesh_lab):\n    assert mesh_lab.service('ratings').instances == ['ratings-0']\n"


def run_pytest(folder: Path, *arguments: str, before: str = "") -> str:
    """A suite of somebody else's with the plugin; `before` is run before pytest."""
    (folder / "test_it.py").write_text(SUITE)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:meshlib", *arguments]
    script = f"{before}\nimport sys, pytest; sys.exit(pytest.main({options!r}))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'integrations'}"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_the_fixture_works_in_the_suites_of_others(tmp_path: Path) -> None:
    assert "1 passed" in run_pytest(tmp_path, "-p", "meshlib_control.pytest_plugin")
    assert "fixture 'mesh_lab' not found" in run_pytest(tmp_path)


def test_without_the_extra_the_fixture_says_what_to_install(tmp_path: Path) -> None:
    """A missing package is simulated: it cannot be imported."""
    said = run_pytest(tmp_path, "-p", "meshlib_control.pytest_plugin", before="import sys; sys.modules['msgspec'] = None")
    assert "mesh_lab needs msgspec" in said
    assert "pip install '.[control]'" in said


def test_a_suite_that_does_not_use_the_fixture_loads_nothing_of_ours(tmp_path: Path) -> None:
    script = (
        "import sys, pytest, meshlib_control.pytest_plugin\nprint([name for name in sys.modules if name.startswith('meshlib')])"
    )
    assert run(sys.executable, "-c", script, cwd=ROOT).strip() == "['meshlib_control', 'meshlib_control.pytest_plugin']"


def test_the_sdist_has_what_building_and_testing_need(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for needed in ("pyproject.toml", "README.md", "LICENSE", "Makefile", "meshlib/mesh.py", "tests/test_packaging.py"):
        assert needed in names
    assert not [name for name in names if name.startswith((".venv", ".tools")) or name.endswith(".pyc")]


def test_the_wheel_works_without_the_checkout(dist: Path, tmp_path: Path) -> None:
    """Unpacked into a folder, and imported from there alone."""
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        opened.extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import meshlib, meshlib_control.__main__, meshlib_integrations.httpx as httpx\n"
        "print(meshlib.__file__, httpx.__file__, meshlib.Mesh())"
    )
    said = run(sys.executable, "-c", script, cwd=tmp_path)
    assert said.count(str(tmp_path)) == 2
    assert "<Mesh client.default not started>" in said


def test_without_the_extra_meshctl_says_what_to_install(tmp_path: Path) -> None:
    """A missing package is simulated: the finder says that there is none."""
    script = (
        "import importlib.util as util; real = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'click' else real(name, *more)\n"
        "from meshlib_control.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "click" in done.stderr
    assert "pip install '.[control]'" in done.stderr
