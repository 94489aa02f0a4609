"""Whatever comes in, findings come out: no input raises, and what is accepted can be stored, shown and read again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect as types

from meshlib_control.config import KINDS, Severity, analyze, dump, load, load_document


def field_names(info: types.Type) -> set[str]:
    match info:
        case types.Metadata():
            return field_names(info.type)
        case types.UnionType():
            return {name for item in info.types for name in field_names(item)}
        case types.StructType():
            return {name for item in info.fields for name in {item.encode_name} | field_names(item.type)}
        case types.VarTupleType():
            return field_names(info.item_type)
        case types.DictType():
            return field_names(info.value_type)
        case _:
            return set()


NAMES = sorted({name for kind in KINDS.values() for name in field_names(types.type_info(kind.spec))})
WORDS = [
    "a",
    "*",
    "*.b",
    "",
    "1s",
    "0s",
    "5xx",
    "503",
    "mesh",
    ".",
    "~",
    "10.0.0.1",
    "10.0.0.0/8",
    "unix:///a",
    "STATIC",
    "DNS",
    "MUTUAL",
    "(",
]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 70000)
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


def shaped(info: types.Type) -> st.SearchStrategy[Any]:
    """Values of roughly the right type: they get past the schema and into the rules."""
    match info:
        case types.Metadata():
            text = (info.extra or {}).get("format") == "duration"
            return st.sampled_from(["1s", "1ms", "0s", "1.0001s"]) if text else shaped(info.type)
        case types.UnionType():
            return st.one_of(*(shaped(item) for item in info.types if not isinstance(item, types.NoneType)))
        case types.StructType():
            return st.fixed_dictionaries(
                {item.encode_name: shaped(item.type) for item in info.fields if item.required},
                optional={item.encode_name: shaped(item.type) for item in info.fields if not item.required},
            )
        case types.VarTupleType():
            return st.lists(shaped(info.item_type), max_size=2)
        case types.DictType():
            return st.dictionaries(st.sampled_from(["a", "x-y", "", "*"]), shaped(info.value_type), max_size=2)
        case types.LiteralType():
            return st.sampled_from([str(value) for value in info.values])
        case types.BoolType():
            return st.booleans()
        case types.IntType():
            return st.integers(0, 70000)
        case types.FloatType():
            return st.floats(0, 100)
        case _:
            return st.sampled_from(WORDS)


def check(kind: str, spec: object) -> None:
    document = {
        "apiVersion": KINDS[kind].api_versions[0],
        "kind": kind,
        "metadata": {"name": KINDS[kind].only_name or "x"},
        "spec": spec,
    }
    resources, findings = load([("x.json", json.dumps(document))])
    assert bool(resources) != any(finding.severity is Severity.ERROR for finding in findings)
    analyze(resources)
    for resource in resources:
        assert load_document(json.loads(json.dumps(resource.document))).spec == resource.spec
        assert load([("x.yaml", dump([resource]))])[0][0].spec == resource.spec


@given(st.sampled_from(sorted(KINDS)), values)
@settings(deadline=None)
def test_any_value_as_a_spec(kind: str, spec: object) -> None:
    check(kind, spec)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_any_spec_of_the_right_shape(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    check(kind, data.draw(shaped(types.type_info(KINDS[kind].spec))))


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`, \n\t01~?<=", max_size=60))
@settings(deadline=None)
def test_any_text(text: str) -> None:
    _, findings = load([("x.yaml", text)])
    assert all(finding.line >= 1 and finding.column >= 1 for finding in findings)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_characters(text: str) -> None:
    load([("x.yaml", text)])
