"""What this machine remembers of the authority, apart from the store: a file with no secrets in it.

A store that was wiped looks like one that was never used, and one that was restored from an old backup looks like it did then.
Making a new root, or going back to one that was revoked, would split the mesh in silence: the witness is how that is noticed.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

import msgspec

from meshlib_control.ca.errors import AuthorityLost
from meshlib_control.ca.state import STATE, CaState

log = logging.getLogger(__name__)


class Seen(msgspec.Struct, frozen=True):
    """`roots`: ids of those that were trusted at `epoch`."""

    lineage: str
    epoch: int
    roots: tuple[str, ...]


class Witness:
    """`path` None: remembers for the life of the process only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: Seen | None = None

    @property
    def origin(self) -> str:
        return str(self._path) if self._path else "memory of this process"

    def recall(self) -> Seen | None:
        """None when nothing was seen yet.  Raises `AuthorityLost` for a file that cannot be read: it may tell of a lost CA."""
        if self._seen is None and self._path is not None and self._path.exists():
            try:
                self._seen = msgspec.json.decode(self._path.read_bytes(), type=Seen)
            except (OSError, msgspec.DecodeError) as error:
                raise AuthorityLost(
                    "what this service remembers of its certificate authority cannot be read",
                    where=str(self._path),
                    why=str(error),
                    next_step="Restore the file; or delete it, if you know that the store's authority is the right one.",
                ) from error
        return self._seen

    def remember(self, state: CaState) -> None:
        """Never fails: a folder that cannot be written makes a service no less able to serve."""
        seen = Seen(state.lineage, state.epoch, tuple(each.id for each in state.authorities))
        before = self._seen
        if seen == before or (before is not None and before.lineage == seen.lineage and before.epoch > seen.epoch):
            return
        self._seen = seen
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
            draft.write_bytes(msgspec.json.encode(seen))
            os.replace(draft, self._path)  # noqa: PTH105 - the pair of the line above
        except OSError as error:
            log.warning("%s cannot be written: %s; a wiped store will not be noticed after a restart", self._path, error)

    def check(self, state: CaState) -> str:
        """What is wrong with a state older than one that was seen before; empty when nothing is.

        Raises `AuthorityLost` for another authority, and for one whose active root was not among the trusted ones by then.
        """
        seen = self.recall()
        if seen is None:
            return ""
        if state.lineage != seen.lineage:
            raise self._replaced(state, seen, "it is not the authority that was there: the store was emptied or exchanged")
        if state.epoch >= seen.epoch:
            return ""
        if state.active.id not in seen.roots:
            raise self._replaced(state, seen, "its root is not trusted any more: the store was restored from an old backup")
        return f"the certificate authority has gone back from epoch {seen.epoch} to {state.epoch}: was an old backup restored?"

    def _replaced(self, state: CaState, seen: Seen, why: str) -> AuthorityLost:
        return AuthorityLost(
            f"the certificate authority in the store is not to be used (root {state.active.id[:16]}, epoch {state.epoch})",
            where=f"{STATE} in the store; {self.origin} saw epoch {seen.epoch}",
            why=why,
            next_step=f"Restore the newest backup of the store; or delete {self.origin}, if this authority is the right one.",
        )


def lost(evidence: str, origin: str) -> AuthorityLost:
    """There is no state, but evidence that there was one."""
    return AuthorityLost(
        "the certificate authority is gone from the store",
        where=STATE,
        why=f"{evidence}, so certificates of its root may be in use, and a new root would split the mesh",
        next_step="Restore the store from a backup. To begin anew on purpose, empty its keys under ca/"
        f" and delete {origin}: every workload then has to enrol again.",
    )
