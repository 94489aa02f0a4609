"""For tests of meshlib's users and of meshlib itself: snapshots that are written down, a clock that is moved, a mesh in memory.

Nothing here is imported by anything else in `meshlib`.  The mesh that compiles Istio's YAML as the control service does, with
the pytest fixture ``mesh_lab``, is `meshlib_control.lab`; it is made of the parts here.
"""

from meshlib.testing.static import DEFAULT_RETRY, FakeClock, StaticControl, service, snapshot, static_mesh

__all__ = ["DEFAULT_RETRY", "FakeClock", "StaticControl", "service", "snapshot", "static_mesh"]
