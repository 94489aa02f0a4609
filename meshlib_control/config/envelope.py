"""What is around ``spec``: apiVersion, kind and metadata."""
# ruff: noqa: RUF012 - msgspec copies an empty default for every instance

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from meshlib_control.config.kinds import Element
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.registry import KINDS, Kind
from meshlib_control.config.validate import names

DEFAULT_NAMESPACE = "default"

_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
_KUBERNETES_GROUPS = frozenset({"", "apps", "batch", "autoscaling", "policy", "extensions"})
_FOREIGN_GROUPS = frozenset({"gateway.networking.k8s.io"})  # of the same domain, and not to be passed over: they route traffic

BOOKKEEPING = frozenset(
    {
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""What Kubernetes adds to the metadata of stored resources.  It says nothing about the mesh."""


class Metadata(Element, frozen=True):
    """Who a resource is."""

    name: str
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


def check_fields(document: Mapping[str, Any]) -> Iterator[Problem]:
    """The fields beside ``spec``."""
    for name in document:
        if name not in _FIELDS:
            close = get_close_matches(name, _FIELDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"a resource has {', '.join(_FIELDS[:4])}"
            yield Problem((name,), "MSH0101", f"there is no field {name}; {hint}")


def find_kind(document: Mapping[str, Any]) -> tuple[Kind | None, Problem | None]:
    """The kind of a document, or why it has none that can be read."""
    for name, example in (("apiVersion", "networking.istio.io/v1"), ("kind", "VirtualService")):
        value = document.get(name)
        if not isinstance(value, str) or not value:
            return None, Problem((name,), "MSH0005", f"{name} is missing; write it as in {name}: {example}")
    api_version, name = document["apiVersion"], document["kind"]
    kind = KINDS.get(name)
    if kind is not None:
        if api_version in kind.api_versions:
            return kind, None
        message = f"{name} is not in {api_version}; write {kind.api_versions[0]}"
        return None, Problem(("apiVersion",), "MSH0008", message)
    if _is_kubernetes(api_version):
        message = f"{api_version} {name} is Kubernetes' own and passed over; services come from the catalog or a ServiceEntry"
        return None, Problem(("kind",), "MSH0007", message)
    close = get_close_matches(name, KINDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(KINDS))}"
    message = f"this version has no kind {name}; it is refused rather than ignored; {hint}"
    return None, Problem(("kind",), "MSH0006", message)


def _is_kubernetes(api_version: str) -> bool:
    group = api_version.rpartition("/")[0]
    if group in _FOREIGN_GROUPS:
        return False
    return group in _KUBERNETES_GROUPS or group.endswith(".k8s.io")


def check_metadata(metadata: Metadata, kind: Kind) -> Iterator[Problem]:
    """Names as Kubernetes wants them."""
    fault = names.resource_name_fault(metadata.name)
    if fault:
        yield Problem(("name",), "MSH0009", fault)
    if kind.only_name:
        yield from _check_only(metadata, kind)
    elif metadata.namespace is not None:
        fault = names.namespace_fault(metadata.namespace)
        if fault:
            yield Problem(("namespace",), "MSH0009", fault)
    yield from under(("labels",), names.check_labels(metadata.labels, "MSH0009"))
    for key in metadata.annotations:
        fault = names.label_key_fault(key)
        if fault:
            yield Problem(("annotations", key), "MSH0009", fault.replace("label key", "annotation key"))


def _check_only(metadata: Metadata, kind: Kind) -> Iterator[Problem]:
    if metadata.name != kind.only_name:
        message = f"there is one {kind.name} in a mesh, and its name is {kind.only_name}"
        yield Problem(("name",), "MSH0009", message)
    if metadata.namespace not in (None, DEFAULT_NAMESPACE):
        message = f"{kind.name} holds for all namespaces; leave the namespace out"
        yield Problem(("namespace",), "MSH0009", message)
