"""Durations as Go and protobuf JSON write them, exact to the nanosecond."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"[-+]?(?:(?:{_PART.pattern})+|0)\Z")
_MAX_NANOSECONDS = 2**63 - 1


def parse_duration(text: str) -> float | None:
    """Seconds of ``1.5s``, ``10ms``, ``1h30m``, ``-1s`` or ``0``; None when it is not a duration (292 years at most)."""
    if len(text) > 64 or not _WHOLE.match(text):
        return None
    total = 0
    for number, unit in _PART.findall(text):
        whole, _, fraction = number.partition(".")
        scale = _UNITS[unit]
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
    if total > _MAX_NANOSECONDS:
        return None
    return (-total if text.startswith("-") else total) / 10**9


def format_duration(seconds: float) -> str:
    """The shortest form that reads back the same: ``1.5s``, ``10ms``."""
    exact = Decimal(repr(seconds))
    if 0 < abs(exact) < 1 and exact * 1000 % 1 == 0:
        return f"{int(exact * 1000)}ms"
    digits = f"{exact:f}"
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + "s"


def is_whole_milliseconds(seconds: float) -> bool:
    """Whether nothing finer than a millisecond is in it."""
    milliseconds = seconds * 1000
    return abs(milliseconds - round(milliseconds)) < 5e-7  # half a nanosecond: below what can be written
