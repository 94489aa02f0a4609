"""How long there is left: the headers by which a deadline crosses processes.

``x-envoy-expected-rq-timeout-ms`` is what Envoy and meshlib set on every attempt that has a limit; ``grpc-timeout`` is gRPC's
own (units H M S m u n, at most eight digits).
"""

from __future__ import annotations

_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def parse_milliseconds(value: bytes) -> float | None:
    """Seconds; None for zero (Envoy: no limit) and for anything that is not a plain number."""
    if not value.isdigit() or len(value) > 12:
        return None
    seconds = int(value) / 1000.0
    return seconds or None


def parse_grpc_timeout(value: bytes) -> float | None:
    """Seconds; None when it is not a ``grpc-timeout``."""
    digits, unit = value[:-1], _GRPC_UNITS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > 8:
        return None
    return int(digits) * unit


def parse_attempt(value: bytes) -> int:
    """``x-envoy-attempt-count``; 1 for anything that is not a number."""
    return max(int(value), 1) if value.isdigit() and len(value) < 6 else 1
