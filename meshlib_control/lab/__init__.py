"""A mesh inside of a test: services that are functions, Istio's YAML, time that is moved, and nothing on the network.

The configuration goes through the control service's own parser, rules and compiler; calls go through the data plane's own
decoder, client and server flows.  Only sockets, processes and clocks are replaced (`meshlib.testing`).  With pytest it is the
fixture ``mesh_lab``.
"""

from meshlib_control.lab.applications import Received
from meshlib_control.lab.configuration import InvalidConfiguration
from meshlib_control.lab.lab import MeshLab
from meshlib_control.lab.services import DeclaredService

__all__ = ["DeclaredService", "InvalidConfiguration", "MeshLab", "Received"]
