"""What the control service raises.  Findings about configuration are values (config.findings), not errors."""

from __future__ import annotations


class ControlServiceError(Exception):
    """Root."""


class OperatorError(ControlServiceError):
    """Something cannot work until the operator acts: what, where, why and the next step."""

    def __init__(self, what: str, *, where: str, why: str, next_step: str) -> None:
        super().__init__(f"{what} ({where}): {why}. {next_step}")
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step


class StoreError(ControlServiceError):
    """The store cannot be reached or refused; the message says which store, and why."""


class Conflict(StoreError):
    """A compare-and-set lost: somebody else wrote in between.  `key` and the revision that was expected and found."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        super().__init__(f"{key}: expected revision {expected}, found {found}; read it again and retry")
        self.key = key
        self.expected = expected
        self.found = found


class CatalogError(ControlServiceError):
    """A source of services cannot be read."""
