"""What can go wrong between a caller and an instance, made to go wrong by a test."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Refuse:
    """Connections are refused: nobody listens there."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Connections are not answered at all: the connect timeout decides."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The application sees the request `seconds` later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """Answered in the application's place."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is lost: before a byte of the response (None), or `after` so many bytes of its body."""

    after: int | None = None


Fault = Refuse | Unreachable | Delay | Status | Reset


class Injected:
    """A fault at work, until it has happened `times` times (None: any number), or `remove`, or the end of a ``with``."""

    def __init__(self, fault: Fault, times: int | None = None) -> None:
        if times is not None and times < 1:
            raise ValueError(f"times={times}: expected 1 or more, or None for as long as it is not removed")
        self.fault = fault
        self.left = times
        self.happened = 0

    @property
    def active(self) -> bool:
        return self.left is None or self.left > 0

    def remove(self) -> None:
        """It happens no more.  Idempotent."""
        self.left = 0

    def take(self) -> Fault:
        """Let it happen once."""
        self.happened += 1
        if self.left is not None:
            self.left -= 1
        return self.fault

    def __enter__(self) -> Injected:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    def __repr__(self) -> str:
        left = "until removed" if self.left is None else f"{self.left} more"
        return f"<Injected {self.fault} {left}>"
