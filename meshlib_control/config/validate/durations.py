"""Durations of our own kinds: whole milliseconds, wherever in a spec they stand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from msgspec import inspect as types

from meshlib_control.config.durations import format_duration, is_whole_milliseconds
from meshlib_control.config.kinds.common import Element, is_duration
from meshlib_control.config.problems import Problem, under


def check_durations(element: Element) -> Iterator[Problem]:
    """Those of the element and of all elements in it."""
    for attribute, name, lasts in _fields(type(element)):
        value = getattr(element, attribute)
        if lasts:
            if value is not None and not is_whole_milliseconds(value):
                message = f"{format_duration(value)} is finer than a millisecond, which nothing measures"
                yield Problem((name,), "MSH0133", message)
        elif isinstance(value, Element):
            yield from under((name,), check_durations(value))
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, Element):
                    yield from under((name, index), check_durations(item))


@cache
def _fields(kind: type[Element]) -> tuple[tuple[str, str, bool], ...]:
    """Attribute, YAML name, and whether it is a duration."""
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    return tuple((item.name, item.encode_name, is_duration(item.type)) for item in info.fields)
