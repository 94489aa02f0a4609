"""Plain values to the structs of a kind, collecting everything that is wrong on the way.

msgspec's own conversion stops at the first error, so the types are walked here: each becomes a reader, built once.  A reader
gives the typed value, or a stand-in when the value is wrong; `Reading` then knows the path, and whoever runs rules over the
result leaves out what would only repeat the complaint.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

from msgspec import inspect as types

from meshlib_control.config.durations import parse_duration
from meshlib_control.config.kinds import Element, StringMatch
from meshlib_control.config.problems import Path, Problem


@dataclass(slots=True)
class Reading:
    """One walk over a document.  `written`: unquoted text of scalars that YAML did not take for strings."""

    written: Mapping[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def reject(self, path: Path, code: str, message: str) -> None:
        self.problems.append(Problem(path, code, message))
        self.broken.add(path)

    def covers(self, path: Path) -> bool:
        """Whether a value at `path`, or one that holds it or is in it, could not be read: a rule would judge a stand-in."""
        return any(path[: len(other)] == other or other[: len(path)] == path for other in self.broken)


Reader = Callable[[Any, Path, Reading], Any]
T = TypeVar("T", bound=Element)


def read(kind: type[T], value: object, reading: Reading, path: Path = ()) -> T:
    """`value` as a `kind`, whatever it is; what does not fit is in `reading` and stands at its default."""
    struct: T = _struct_reader(kind)(value, path, reading)
    return struct


def describe(value: object) -> str:
    """A value as a message names it."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f'the string "{value if len(value) <= 60 else value[:57] + "..."}"'
        case list() | tuple():
            return "a list"
        case _:
            return "a mapping"


@cache
def _struct_reader(kind: type[Element]) -> Reader:
    fields = {item.encode_name: item for item in types.type_info(kind).fields}  # type: ignore[attr-defined]
    readers = {name: (item.name, _reader(item.type)) for name, item in fields.items()}
    required = [(name, item.name) for name, item in fields.items() if item.required]

    def read_struct(value: Any, path: Path, reading: Reading) -> Any:
        if not isinstance(value, dict):
            reading.reject(path, "MSH0102", f"expected a mapping with {_some(fields)}, got {describe(value)}")
            return kind(**{attribute: _stand_in(fields[name].type) for name, attribute in required})
        given: dict[str, Any] = {}
        for name, inner in value.items():
            found = readers.get(name)
            if found is None:
                reading.reject((*path, name), "MSH0101", _unknown(name, fields))
            elif inner is not None:
                attribute, reader = found
                given[attribute] = reader(inner, (*path, name), reading)
        for name, attribute in required:
            if attribute not in given:
                reading.reject((*path, name), "MSH0103", f"{name} is missing; it has no default")
                given[attribute] = _stand_in(fields[name].type)
        for group in kind.at_most_one:
            _check_group(group, value, path, reading)
        return kind(**given)

    return read_struct


def _check_group(group: tuple[str, ...], value: Mapping[str, Any], path: Path, reading: Reading) -> None:
    given = [name for name in group if value.get(name) is not None]
    if len(given) > 1:
        message = f"{' and '.join(given)} exclude each other; set only one of {', '.join(group)}"
        reading.reject((*path, given[1]), "MSH0107", message)


def _unknown(name: str, fields: Mapping[str, Any]) -> str:
    close = get_close_matches(name, fields, n=1, cutoff=0.6)
    close = close or [known for known in fields if known.lower() == name.lower().replace("_", "")]
    hint = f"did you mean {close[0]}?" if close else f"known here: {_some(fields)}"
    return f"there is no field {name}; {hint}"


def _some(names: Mapping[str, Any]) -> str:
    listed = list(names)
    return ", ".join(listed[:12]) + (" ..." if len(listed) > 12 else "")


def _stand_in(info: types.Type) -> Any:
    """A value of the type, for a required field that is missing."""
    match info:
        case types.Metadata():
            return _stand_in(info.type)
        case types.StructType():
            return _empty_struct(info)
        case types.VarTupleType():
            return ()
        case types.DictType():
            return {}
        case types.StrType():
            return ""
        case types.IntType():
            return 0
        case types.FloatType():
            return 0.0
        case _:
            return None


def _empty_struct(info: types.StructType) -> object:
    """The struct with stand-ins for what it needs."""
    return info.cls(**{item.name: _stand_in(item.type) for item in info.fields if item.required})


def _reader(info: types.Type, extra: Mapping[str, Any] | None = None) -> Reader:
    match info:
        case types.Metadata():
            return _reader(info.type, info.extra)
        case types.UnionType():
            inner = [item for item in info.types if not isinstance(item, types.NoneType)]
            return _reader(inner[0], extra)
        case types.StructType():
            return _struct_reader(info.cls)
        case types.VarTupleType():
            return _list_reader(info)
        case types.DictType():
            return _map_reader(info)
        case types.LiteralType():
            return _word_reader(info)
        case types.StrType():
            return _base64 if (extra or {}).get("format") == "base64" else _string_reader(info)
        case types.BoolType():
            return _boolean
        case types.IntType():
            return _integer_reader(info)
        case types.FloatType():
            return _duration_reader(info) if (extra or {}).get("format") == "duration" else _number_reader(info)
        case _:
            raise TypeError(f"a kind has a field of a type that cannot be read: {info}")


def _list_reader(info: types.VarTupleType) -> Reader:
    item_reader = _reader(info.item_type)
    of_structs = isinstance(info.item_type, types.StructType)

    def read_list(value: Any, path: Path, reading: Reading) -> Any:
        if not isinstance(value, list | tuple):
            reading.reject(path, "MSH0102", f"expected a list, got {describe(value)}; write each item after a dash")
            return ()
        if info.max_length is not None and len(value) > info.max_length:
            reading.reject(path, "MSH0105", f"{len(value)} items; at most {info.max_length} are allowed")
        items = []
        for index, item in enumerate(value):
            if item is None and of_structs:
                reading.problems.append(Problem((*path, index), "MSH0109", "an item without a value: it has all defaults"))
                item = {}
            items.append(item_reader(item, (*path, index), reading))
        return tuple(items)

    return read_list


def _map_reader(info: types.DictType) -> Reader:
    value_reader = _reader(info.value_type)
    of_conditions = isinstance(info.value_type, types.StructType) and info.value_type.cls is StringMatch

    def read_map(value: Any, path: Path, reading: Reading) -> Any:
        if not isinstance(value, dict):
            reading.reject(path, "MSH0102", f"expected a mapping of names to values, got {describe(value)}")
            return {}
        if info.max_length is not None and len(value) > info.max_length:
            reading.reject(path, "MSH0105", f"{len(value)} entries; at most {info.max_length} are allowed")
        for name in [name for name, item in value.items() if item is None]:
            hint = "; {} asks only for its presence" if of_conditions else ""
            reading.reject((*path, name), "MSH0102", f"{name} has no value{hint}")
        return {str(name): value_reader(item, (*path, name), reading) for name, item in value.items() if item is not None}

    return read_map


def _word_reader(info: types.LiteralType) -> Reader:
    words = tuple(str(word) for word in info.values)

    def read_word(value: Any, path: Path, reading: Reading) -> Any:
        if value in words:
            return value
        if not isinstance(value, str):
            reading.reject(path, "MSH0102", f"expected one of {', '.join(words)}, got {describe(value)}")
            return words[0]
        close = get_close_matches(value.upper(), words, n=1, cutoff=0.6)
        hint = f"; did you mean {close[0]}?" if close else ""
        reading.reject(path, "MSH0104", f"{value} is not one of {', '.join(words)}{hint}")
        return words[0]

    return read_word


def _string_reader(info: types.StrType) -> Reader:
    longest = info.max_length

    def read_string(value: Any, path: Path, reading: Reading) -> Any:
        if not isinstance(value, str):
            written = reading.written.get(path)
            hint = f'; quote it: "{written}"' if written else ""
            reading.reject(path, "MSH0102", f"expected a string, got {describe(value)}{hint}")
            return ""
        if longest is not None and len(value) > longest:
            reading.reject(path, "MSH0105", f"{len(value)} characters; at most {longest} are allowed")
        return value

    return read_string


def _base64(value: Any, path: Path, reading: Reading) -> Any:
    try:
        if isinstance(value, str):
            base64.b64decode(value, validate=True)
            return value
    except (binascii.Error, ValueError):
        pass
    reading.reject(path, "MSH0102", f"expected bytes in base64, got {describe(value)}")
    return ""


def _boolean(value: Any, path: Path, reading: Reading) -> Any:
    if isinstance(value, bool):
        return value
    hint = "; remove the quotes" if value in ("true", "false") else ""
    reading.reject(path, "MSH0102", f"expected true or false, got {describe(value)}{hint}")
    return False


def _integer_reader(info: types.IntType) -> Reader:
    least, most = info.ge, info.le

    def read_integer(value: Any, path: Path, reading: Reading) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            hint = "; remove the quotes" if isinstance(value, str) and value.isdecimal() else ""
            reading.reject(path, "MSH0102", f"expected a whole number, got {describe(value)}{hint}")
            return least or 0
        return _limited(value, least, most, path, reading)

    return read_integer


def _number_reader(info: types.FloatType) -> Reader:
    def read_number(value: Any, path: Path, reading: Reading) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            reading.reject(path, "MSH0102", f"expected a number, got {describe(value)}")
            return info.ge or 0.0
        return _limited(float(value), info.ge, info.le, path, reading)

    return read_number


def _limited(value: Any, least: float | None, most: float | None, path: Path, reading: Reading) -> Any:
    if least is not None and value < least:
        reading.reject(path, "MSH0105", f"{value} is below {least}, the least that is allowed")
        return least
    if most is not None and value > most:
        reading.reject(path, "MSH0105", f"{value} is above {most}, the most that is allowed")
        return most
    return value


def _duration_reader(info: types.FloatType) -> Reader:
    least = info.ge or 0.0

    def read_duration(value: Any, path: Path, reading: Reading) -> Any:
        if not isinstance(value, str):
            hint = f'; give it a unit: "{value}s"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
            reading.reject(path, "MSH0106", f"expected a duration such as 1.5s, got {describe(value)}{hint}")
            return least
        seconds = parse_duration(value)
        if seconds is None:
            message = f'{value!r} is not a duration; write a number with a unit (ns, us, ms, s, m, h), such as "1.5s"'
            reading.reject(path, "MSH0106", message)
            return least
        if seconds < least:
            smallest = "1ms" if least else "0s"
            reading.reject(path, "MSH0105", f"{value} is shorter than {smallest}, the least that is allowed")
            return least
        return seconds

    return read_duration


def canonical(kind: type[Element], document: Any) -> Any:
    """The same document with the fields of each element in the order of its struct, and maps by key."""
    return _ordered(types.type_info(kind), document)


def _ordered(info: types.Type, value: Any) -> Any:
    match info:
        case types.Metadata():
            return _ordered(info.type, value)
        case types.UnionType():
            inner = next(item for item in info.types if not isinstance(item, types.NoneType))
            return _ordered(inner, value)
        case types.StructType() if isinstance(value, Mapping):
            return {
                item.encode_name: _ordered(item.type, value[item.encode_name])
                for item in info.fields
                if item.encode_name in value
            }
        case types.VarTupleType() if isinstance(value, list | tuple):
            return [_ordered(info.item_type, item) for item in value]
        case types.DictType() if isinstance(value, Mapping):
            return {name: _ordered(info.value_type, value[name]) for name in sorted(value)}
        case _:
            return value
