"""The configuration of a lab: Istio's YAML, read and judged as by ``meshctl apply``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.config import REFUSES, ConfigResource, ConfigSet, Finding, Key, Severity, analyze, load
from meshlib_control.errors import ControlServiceError
from meshlib_control.files import read_files

Source = str | Path | Mapping[str, Any]
"""YAML as text, a file or a folder, or one resource as a mapping."""


class InvalidConfiguration(ControlServiceError, ValueError):
    """None of it was taken.  `findings`: everything that is wrong, the message has them all."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(["the configuration is refused:", *map(str, self.findings)]))


class Configuration:
    """What was applied, by key.  `findings`: what analysis has to say about it, which refuses nothing."""

    def __init__(self) -> None:
        self.resources: dict[Key, ConfigResource] = {}
        self._revision = 0

    def apply(self, sources: Iterable[Source], *, namespace: str) -> None:
        """Add or replace resources, all or none.  Raises InvalidConfiguration."""
        resources, findings = load([pair for source in sources for pair in _texts(source)], namespace=namespace)
        if any(finding.severity is Severity.ERROR and finding.code in REFUSES for finding in findings):
            raise InvalidConfiguration(findings)
        self._revision += 1
        for resource in resources:
            before = self.resources.get(resource.key)
            created = before.created if before is not None else self._revision
            self.resources[resource.key] = replace(resource, created=created)

    def delete(self, key: Key) -> None:
        """Raises KeyError naming what there is."""
        if key not in self.resources:
            raise KeyError(f"{key} was not applied; there are {', '.join(map(str, self.resources)) or 'none'}")
        self._revision += 1
        del self.resources[key]

    def as_set(self) -> ConfigSet:
        return ConfigSet(self.resources.values(), self._revision)

    def findings(self, catalog: CatalogSnapshot, domain: str) -> list[Finding]:
        labels = {host: [dict(one.labels) for one in instances] for host, instances in catalog.instances.items()}
        return analyze(self.as_set(), services=catalog.services.values(), instances=labels, domain=domain)


def _texts(source: Source) -> list[tuple[str, str]]:
    if isinstance(source, Path):
        return list(read_files([source], recursive=True))
    if isinstance(source, str):
        return [("", source)]
    return [("", json.dumps(source))]  # which is YAML
