"""Requests that were not let in: counted by reason, and told to the log.

The client learns the status and a word; which rule of which policy decided is for the operator alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from meshlib.model.inbound import Inspection, Refusal, ServerRequest

logger = logging.getLogger("meshlib.access")

MAX_REASONS = 256
OTHER = "other"
"""Where what exceeds `MAX_REASONS` is counted: reasons name policies, and policies come and go."""

_SHOWN = 512


class Denials:
    """Counts by reason.  All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def count(self, reason: str) -> None:
        with self._lock:
            key = reason if reason in self._counts or len(self._counts) < MAX_REASONS else OTHER
            self._counts[key] = self._counts.get(key, 0) + 1

    @property
    def counts(self) -> Mapping[str, int]:
        """Refused requests by reason, up to now."""
        with self._lock:
            return dict(self._counts)

    @property
    def total(self) -> int:
        with self._lock:
            return sum(self._counts.values())

    def forget(self) -> None:
        """In a forked child: a new lock; what was refused was refused in the parent."""
        self._lock = threading.Lock()
        self._counts = {}


def log_denial(refusal: Refusal, request: ServerRequest, inspection: Inspection | None) -> None:
    """One line of level INFO, and the same as values in ``record.meshlib``."""
    if not logger.isEnabledFor(logging.INFO):
        return
    facts = _facts(request, inspection)
    facts.update(status=refusal.status, reason=refusal.reason, flag=refusal.flag, policy=printable(refusal.policy))
    logger.info(
        "denied %s %s%s from %s: %d %s%s",
        facts["method"],
        facts["authority"],
        facts["path"],
        facts["peer"] or facts["remote_address"] or "unknown",
        refusal.status,
        printable(refusal.reason),
        f" ({facts['notes']})" if facts["notes"] else "",
        extra={"meshlib": facts},
    )


def log_notes(request: ServerRequest, inspection: Inspection) -> None:
    """What filters have to say of a request that is let in: policies that audit it, or would deny it."""
    if not logger.isEnabledFor(logging.INFO):
        return
    facts = _facts(request, inspection)
    who = facts["peer"] or facts["remote_address"] or "unknown"
    where = f"{facts['authority']}{facts['path']}"
    logger.info("%s %s from %s: %s", facts["method"], where, who, facts["notes"], extra={"meshlib": facts})


def _facts(request: ServerRequest, inspection: Inspection | None) -> dict[str, object]:
    """Without the query: tokens travel there."""
    connection = request.connection
    path = request.target.partition(b"?")[0] if inspection is None else inspection.path
    return {
        "method": printable(request.method),
        "authority": printable(request.fields.get(b"host", b"") if inspection is None else inspection.host),
        "path": printable(path),
        "peer": str(connection.peer) if connection.peer is not None else "",
        "remote_address": printable(connection.remote_address),
        "notes": "" if inspection is None else "; ".join(map(printable, inspection.notes)),
    }


def printable(value: str | bytes) -> str:
    """Printable ASCII; the rest is escaped: no request writes lines or colours of its own into a log (CVE-2024-45808)."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}..."
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character.isascii() and character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
