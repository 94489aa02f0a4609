"""What is known of each resource that was asked for: the value and the trouble, side by side (gRFC A40, A88)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ResourceKey = tuple[str, str]
"""(type URL, resource name)."""


class Status(Enum):
    """CSDS ``ClientResourceStatus``."""

    REQUESTED = "requested"  # no answer yet
    ACKED = "acked"
    NACKED = "nacked"  # the newest version was refused; `value` is the last good one, if there ever was one
    DOES_NOT_EXIST = "does_not_exist"  # the server said so; `value` is the last good one, if there ever was one
    TIMEOUT = "timeout"  # never answered in time


@dataclass(frozen=True, slots=True)
class ResourceState:
    """One resource.

    `value` is what `decode` made of the last good version and stays through NACK, deletion and loss of the stream (A88);
    None: there never was one.  `error` says what is wrong with the newest version or its absence; empty: nothing.
    `updated_at` is the session's clock (monotonic seconds) when this state began.
    """

    status: Status
    value: object = None
    version: str = ""  # of `value`
    error: str = ""
    updated_at: float = 0.0
