"""What one call says in the place of the operator's policy, read from a plain mapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from meshlib.errors import RequestError
from meshlib.lowlevel import Overrides


def read_overrides(value: object) -> Overrides | None:
    """``{"timeout": 0.5, "retries": 0}`` or an Overrides -> Overrides.  Raises RequestError that says what is wrong with it."""
    if value is None or isinstance(value, Overrides):
        return value
    if not isinstance(value, Mapping):
        raise RequestError(f"extensions['meshlib'] must be a dict or meshlib.Overrides, not {type(value).__name__}")
    unknown = sorted(str(name) for name in value if name not in _READ)
    if unknown:
        raise RequestError(f"extensions['meshlib'] has no {', '.join(map(repr, unknown))}; there are {', '.join(_READ)}")
    read: dict[str, Any] = {name: _READ[name](name, given) for name, given in value.items() if given is not None}
    return Overrides(**read)


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise RequestError(f"extensions['meshlib']['{name}'] must be seconds above 0, not {value!r}")
    return float(value)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RequestError(f"extensions['meshlib']['{name}'] must be a whole number from 0 on, not {value!r}")
    return value


def _conditions(name: str, value: object) -> frozenset[str]:
    """Envoy's conditions and statuses: a sequence of them, or Istio's own comma-separated spelling."""
    tokens = value.split(",") if isinstance(value, str) else value
    if not isinstance(tokens, list | tuple | set | frozenset) or not all(isinstance(token, str) for token in tokens):
        raise RequestError(f"extensions['meshlib']['{name}'] must be a list such as ['5xx', 'reset'], not {value!r}")
    return frozenset(token.strip() for token in tokens)


def _strategy(name: str, value: object) -> Callable[..., object]:
    if not callable(value):
        raise RequestError(f"extensions['meshlib']['{name}'] must be a tenacity {name} strategy, not {value!r}")
    return value


_READ: Mapping[str, Callable[[str, object], object]] = {
    "timeout": _seconds,
    "per_try_timeout": _seconds,
    "retries": _count,
    "retry_on": _conditions,
    "stop": _strategy,
    "wait": _strategy,
}
