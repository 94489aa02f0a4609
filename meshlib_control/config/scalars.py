"""What an unquoted YAML scalar means, and which ones are better not left to guessing.

Kubernetes reads YAML 1.1, so `yes` and `on` are booleans here too.  What 1.1 and 1.2 read as different numbers (010) is
refused, and the forms that only 1.1 takes for numbers or dates (1:30, 2020-01-01) stay text.
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUES = frozenset(form for word in ("true", "yes", "on") for form in (word, word.title(), word.upper()))
_FALSES = frozenset(form for word in ("false", "no", "off") for form in (word, word.title(), word.upper()))
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)\Z")
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]+\Z")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_STARTS_A_NUMBER = frozenset("+-.0123456789")
_MAX_DIGITS = 32


class AmbiguousScalar(ValueError):
    """Reads as different values in different versions of YAML."""


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar.  Raises `AmbiguousScalar`."""
    if text[:1] in _STARTS_A_NUMBER and text:
        return _number(text)
    if text in _NULLS:
        return None
    if text in _TRUES:
        return True
    if text in _FALSES:
        return False
    return text


def _number(text: str) -> Scalar:
    if _LEADING_ZERO.match(text):
        raise AmbiguousScalar(f"{text} starts with 0: YAML 1.1 reads it as octal, others do not; write the number, or quote it")
    if _INTEGER.match(text) and len(text) <= _MAX_DIGITS:
        return int(text.replace("_", ""))
    if _HEX.match(text) and len(text) <= _MAX_DIGITS:
        return int(text, 16)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL_FLOAT.match(text):
        return float(text.replace(".", "", 1))
    return text
