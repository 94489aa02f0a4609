"""A client as the API describes it, as the compiler knows it."""

from __future__ import annotations

from meshlib_control.admin import views
from meshlib_control.compile.node import Node, ServedPort


def node_of(view: views.NodeView) -> Node:
    """A process of meshlib has the label `app` as it gives it to itself: the service's name unless it says otherwise."""
    own = {"app": view.service} if view.flavour == "meshlib" and view.service else {}
    return Node(
        flavour=view.flavour,
        id=view.id,
        service=view.service,
        namespace=view.namespace,
        service_account=view.service_account,
        labels=own | view.labels,
        locality=view.locality,
        ports=tuple(ServedPort.parse(str(port)) for port in view.ports),
        identity_file=view.identity_file,
        group=view.group,
    )
