"""Matchers on dynamic metadata: what other filters have found out about a request, claims of its token above all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from meshlib.model.authorization import MetadataMatch, ValueMatch
from meshlib.model.inbound import Inspection
from meshlib.model.route import StringMatch
from meshlib.policy.authorization_keys import Keys, exact_keys
from meshlib.policy.authorization_text import TEXT, compile_texts

_MISSING = object()


def compile_metadata(match: MetadataMatch, *, restricts: bool) -> Callable[[Inspection], bool]:
    """What is missing matches nothing, unless that is what is asked for.  `restricts`: see `authorization_predicates`."""
    value_of, invert = value_at(match.filter, match.path), match.invert
    test = _compile_value(match.value, restricts=restricts is not invert)
    return lambda inspection: test(value_of(inspection)) is not invert


def value_at(name: str, path: Sequence[str]) -> Callable[[Inspection], object]:
    """What `path` leads to in the metadata of the filter `name`."""

    def value_of(inspection: Inspection) -> object:
        value: object = inspection.metadata.get(name, _MISSING)
        for key in path:
            value = value.get(key, _MISSING) if isinstance(value, Mapping) else _MISSING
        return value

    return value_of


def _compile_value(match: ValueMatch, *, restricts: bool) -> Callable[[object], bool]:
    if match.string is not None:
        text = compile_texts([match.string], TEXT, restricts=restricts)
        return lambda value: isinstance(value, str) and text(value)
    if match.one_of is not None:
        element = _compile_value(match.one_of, restricts=restricts)
        return lambda value: isinstance(value, list | tuple) and any(map(element, value))
    if match.any_of:
        tests = [_compile_value(item, restricts=restricts) for item in match.any_of]
        return lambda value: any(test(value) for test in tests)
    if match.boolean is not None:
        wanted = match.boolean
        return lambda value: value is wanted
    if match.number is not None:
        number = match.number
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == number
    if match.null:
        return lambda value: value is None
    present = bool(match.present)
    return lambda value: present and value is not _MISSING


def metadata_keys(match: MetadataMatch) -> Keys | None:
    """The strings that the value, or an element of it, must be one of; None when it may be something else."""
    strings = None if match.invert else _strings(match.value)
    return None if strings is None else exact_keys(("metadata", match.filter, *match.path), strings)


def _strings(match: ValueMatch) -> list[StringMatch] | None:
    if match.string is not None:
        return [match.string]
    if match.one_of is not None:
        return None if match.one_of.string is None else [match.one_of.string]
    found = [_strings(item) for item in match.any_of]
    if not found or any(part is None for part in found):
        return None
    return [item for part in found for item in part or ()]


def texts_at(name: str, path: Sequence[str]) -> Callable[[Inspection], Sequence[str]]:
    """All that `metadata_keys` may speak of in a request."""
    value_of = value_at(name, path)

    def texts(inspection: Inspection) -> Sequence[str]:
        value = value_of(inspection)
        if isinstance(value, str):
            return (value,)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else ()

    return texts
