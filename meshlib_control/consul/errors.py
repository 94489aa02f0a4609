"""The one error of this package."""

from __future__ import annotations

from meshlib_control.errors import ControlServiceError


class ConsulError(ControlServiceError):
    """Consul refused (`status`), or cannot be reached (`status` 0)."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
