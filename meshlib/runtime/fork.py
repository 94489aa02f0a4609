"""What happens to threads, locks and channels when the process forks: the child forgets them and starts anew on first use.

Threads do not survive a fork, locks may be held by one that is gone, and a gRPC channel shares its socket with the parent.
So nothing inherited is closed, joined or waited for in the child (closing could end the parent's stream); it is dropped,
without running its clean-up.  ``GRPC_ENABLE_FORK_SUPPORT`` is left alone: both of its values were seen to hang workers.
"""

from __future__ import annotations

import logging
import os
from typing import Protocol
from weakref import WeakSet

logger = logging.getLogger("meshlib")


class Forgetful(Protocol):
    """Something with threads, locks or channels."""

    def forget(self) -> None:
        """Called in the child, in its only thread, right after the fork: new locks, no threads, no channels.

        Must not start, close, wait or import anything.
        """
        ...


_survivors: WeakSet[Forgetful] = WeakSet()
_kept: list[object] = []


def forget_in_child(thing: Forgetful) -> None:
    """Have `thing` forget its threads in every child that this process forks, for as long as it lives."""
    _survivors.add(thing)


def keep_for_ever(inherited: object) -> None:
    """Let go of an inherited object without running its finalizer: that would act on what the parent still uses."""
    if inherited is not None:
        _kept.append(inherited)


def _after_in_child() -> None:
    for thing in list(_survivors):
        try:
            thing.forget()
        except Exception:  # the child must live, and an exception here would only be printed
            logger.exception("%r cannot start anew in the forked process %d", thing, os.getpid())


# A handler cannot be taken away again, so there is one for all; it does nothing as long as nobody registered.
os.register_at_fork(after_in_child=_after_in_child)
