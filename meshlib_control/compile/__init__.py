"""Configuration and catalog → xDS resources, for each kind of client.  Pure: no clock, no I/O.

`World.of` indexes one moment; `scope_of` says what of a node decides its resources; `generate` makes them;
`affected` says what has to be made anew after a change; `compile_document` shows everything at once.
"""

from meshlib_control.compile.affected import Affected, affected
from meshlib_control.compile.document import compile_document
from meshlib_control.compile.generate import generate
from meshlib_control.compile.node import Flavour, Node, Scope
from meshlib_control.compile.pending import is_pending
from meshlib_control.compile.scope import scope_of
from meshlib_control.compile.world import World

__all__ = [
    "Affected",
    "Flavour",
    "Node",
    "Scope",
    "World",
    "affected",
    "compile_document",
    "generate",
    "is_pending",
    "scope_of",
]
