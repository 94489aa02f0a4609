"""The structs are Istio's schema, field for field."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from msgspec import inspect as types

from meshlib_control.config.registry import KINDS
from tests.unit.config.support import CORPORA

SCHEMAS = CORPORA / "istio-crds.yaml"
ISTIO_KINDS = [
    "DestinationRule",
    "ProxyConfig",
    "ServiceEntry",
    "Sidecar",
    "VirtualService",
    "WorkloadEntry",
    "WorkloadGroup",
]


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    if not SCHEMAS.exists():
        pytest.skip("Istio's schemas are not here")
    found = {}
    for crd in yaml.load_all(SCHEMAS.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        names = [version["name"] for version in crd["spec"]["versions"]]
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        found[crd["spec"]["names"]["kind"]] = (crd["spec"]["group"], names, schema)
    return found


@pytest.mark.parametrize("kind", ISTIO_KINDS)
def test_fields_types_and_limits(kind: str, schemas: dict[str, Any]) -> None:
    group, versions, schema = schemas[kind]
    assert (KINDS[kind].group, set(KINDS[kind].versions)) == (group, set(versions))
    assert list(differences(schema, types.type_info(KINDS[kind].spec), kind)) == []


def differences(schema: dict[str, Any], info: types.Type, path: str) -> Any:
    """Where a struct says something else than the schema."""
    extra: dict[str, Any] = {}
    while isinstance(info, types.Metadata | types.UnionType):
        if isinstance(info, types.Metadata):
            extra, info = info.extra or {}, info.type
        else:
            info = next(item for item in info.types if not isinstance(item, types.NoneType))
    if "properties" in schema:
        yield from struct_differences(schema, info, path)
    elif schema["type"] == "array":
        assert isinstance(info, types.VarTupleType), path
        if info.max_length != schema.get("maxItems"):
            yield path, "maxItems"
        yield from differences(schema["items"], info.item_type, f"{path}[]")
    elif isinstance(schema.get("additionalProperties"), dict):
        assert isinstance(info, types.DictType), path
        if info.max_length != schema.get("maxProperties"):
            yield path, "maxProperties"
        yield from differences(schema["additionalProperties"], info.value_type, f"{path}{{}}")
    else:
        yield from scalar_differences(schema, info, extra, path)


def struct_differences(schema: dict[str, Any], info: types.Type, path: str) -> Any:
    assert isinstance(info, types.StructType), path
    fields = {field.encode_name: field for field in info.fields}
    if set(fields) != set(schema["properties"]):
        yield path, set(fields) ^ set(schema["properties"])
    if {name for name, field in fields.items() if field.required} != set(schema.get("required", ())):
        yield path, "required"
    groups = {group for group in exclusive(schema) if len(group) > 1}
    if {frozenset(group) for group in info.cls.at_most_one} != groups:  # type: ignore[attr-defined]
        yield path, groups
    for name in fields.keys() & schema["properties"].keys():
        yield from differences(schema["properties"][name], fields[name].type, f"{path}.{name}")


def exclusive(schema: dict[str, Any]) -> Any:
    for one in [schema, *schema.get("allOf", ())]:
        if "oneOf" in one:
            yield frozenset(name for option in one["oneOf"] for name in option.get("required", ()))


def scalar_differences(schema: dict[str, Any], info: types.Type, extra: dict[str, Any], path: str) -> Any:
    if "enum" in schema:
        assert isinstance(info, types.LiteralType), path
        if set(info.values) != set(schema["enum"]):
            yield path, schema["enum"]
        return
    wanted = {"integer": types.IntType, "number": types.FloatType, "boolean": types.BoolType, "string": types.StrType}
    rules = [rule["rule"] for rule in schema.get("x-kubernetes-validations", ())]
    if extra.get("format") == "duration":
        at_least = any("duration('1ms')" in rule for rule in rules)
        assert isinstance(info, types.FloatType), path
        if (info.ge == 0.001) != at_least:
            yield path, rules
    elif not isinstance(info, wanted[schema["type"]]):
        yield path, schema["type"]
    elif isinstance(info, types.IntType | types.FloatType):  # type: ignore[unreachable]  # mypy trusts the lookup too much
        if "minimum" in schema and info.ge != schema["minimum"]:
            yield path, "minimum"
        if "maximum" in schema and info.le != schema["maximum"]:
            yield path, "maximum"
    elif isinstance(info, types.StrType) and info.max_length != schema.get("maxLength"):
        yield path, "maxLength"
