"""Resources to YAML that reads back as the same values, the same text every time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from meshlib_control.config.model import ConfigResource
from meshlib_control.config.registry import KINDS
from meshlib_control.config.schema import canonical


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # which of the two depends on the machine
    """Quotes what any YAML version might not take for text, and never uses aliases."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?0o?[0-7_]+\Z"), list("-+0"))


def dump(resources: Iterable[ConfigResource]) -> str:
    """One document for each resource, in the order given."""
    return "---\n".join(dump_document(resource.document) for resource in resources)


def dump_document(document: Mapping[str, Any]) -> str:
    """A stored document as YAML: fields in the order of the kind, labels and the like by name."""
    ordered = {name: document[name] for name in ("apiVersion", "kind") if name in document}
    if "metadata" in document:
        ordered["metadata"] = _metadata(document["metadata"])
    kind = KINDS.get(str(document.get("kind")))
    if "spec" in document:
        ordered["spec"] = canonical(kind.spec, document["spec"]) if kind else document["spec"]
    text: str = yaml.dump(ordered, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=False)
    return text


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    ordered = {name: metadata[name] for name in ("name", "namespace") if name in metadata}
    for name in ("labels", "annotations"):
        if metadata.get(name):
            ordered[name] = dict(sorted(metadata[name].items()))
    return ordered
