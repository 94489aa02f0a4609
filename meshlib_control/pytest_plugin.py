"""The pytest fixture ``mesh_lab``: a mesh inside of a test.  See docs/testing.md.

pytest loads this file in every run on a machine where meshlib is installed, so it imports nothing until the fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from meshlib_control.lab import MeshLab


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "mesh_lab(seed=0, namespace='default'): how the fixture `mesh_lab` is made")


@pytest.fixture
def mesh_lab(request: pytest.FixtureRequest) -> Iterator[MeshLab]:
    """A `meshlib_control.lab.MeshLab` of the test's own."""
    try:
        from meshlib_control.lab import MeshLab
    except ModuleNotFoundError as error:
        pytest.fail(
            f"mesh_lab needs {error.name}, which is not installed here: it comes with meshlib's extra `control`; "
            "from a checkout of meshlib: pip install '.[control]'",
            pytrace=False,
        )
    marker = request.node.get_closest_marker("mesh_lab")
    with MeshLab(**(marker.kwargs if marker is not None else {})) as lab:
        yield lab
