"""For tests of meshlib's users and of meshlib itself: snapshots that are written down, a clock that is moved, a mesh in memory.

Nothing here is imported by anything else in `meshlib`.  The mesh that compiles Istio's YAML as the control service does, with
the pytest fixture ``mesh_lab``, is `meshlib_control.lab`; it is made of the parts here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from meshlib.testing.static import DEFAULT_RETRY, FakeClock, StaticControl, service, snapshot, static_mesh

if TYPE_CHECKING:
    from meshlib.testing.compiled import CompiledControl as CompiledControl
    from meshlib.testing.faults import Delay as Delay
    from meshlib.testing.faults import Fault as Fault
    from meshlib.testing.faults import Injected as Injected
    from meshlib.testing.faults import Refuse as Refuse
    from meshlib.testing.faults import Reset as Reset
    from meshlib.testing.faults import Status as Status
    from meshlib.testing.faults import Unreachable as Unreachable
    from meshlib.testing.instance import Arrived as Arrived
    from meshlib.testing.instance import Instance as Instance
    from meshlib.testing.instance import noted as noted
    from meshlib.testing.network import Attempted as Attempted
    from meshlib.testing.network import Caller as Caller
    from meshlib.testing.network import MemoryNetwork as MemoryNetwork
    from meshlib.testing.simulated import Called as Called
    from meshlib.testing.simulated import Event as Event
    from meshlib.testing.simulated import SimulatedMesh as SimulatedMesh
    from meshlib.testing.virtual_time import Stalled as Stalled
    from meshlib.testing.virtual_time import VirtualTime as VirtualTime

__all__ = [
    "DEFAULT_RETRY",
    "Arrived",
    "Attempted",
    "Called",
    "Caller",
    "CompiledControl",
    "Delay",
    "Event",
    "FakeClock",
    "Fault",
    "Injected",
    "Instance",
    "MemoryNetwork",
    "Refuse",
    "Reset",
    "SimulatedMesh",
    "Stalled",
    "StaticControl",
    "Status",
    "Unreachable",
    "VirtualTime",
    "noted",
    "service",
    "snapshot",
    "static_mesh",
]

_WHERE = {
    "Arrived": "instance",
    "Attempted": "network",
    "Called": "simulated",
    "Caller": "network",
    "CompiledControl": "compiled",
    "Delay": "faults",
    "Event": "simulated",
    "Fault": "faults",
    "Injected": "faults",
    "Instance": "instance",
    "MemoryNetwork": "network",
    "Refuse": "faults",
    "Reset": "faults",
    "SimulatedMesh": "simulated",
    "Stalled": "virtual_time",
    "Status": "faults",
    "Unreachable": "faults",
    "noted": "instance",
    "VirtualTime": "virtual_time",
}


def __getattr__(name: str) -> Any:
    """The parts of a simulation, loaded when they are asked for: who needs a static mesh needs none of them."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"meshlib.testing.{_WHERE[name]}"), name)
    globals()[name] = found
    return found
