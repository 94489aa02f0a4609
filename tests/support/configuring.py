"""YAML text → the worlds that compile tests start from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from meshlib_control.catalog.model import CatalogSnapshot, Instance, Port, Service, registered_host
from meshlib_control.compile import World
from meshlib_control.compile.trust import Trust
from meshlib_control.config.model import ConfigResource, ConfigSet, Key
from meshlib_control.config.registry import KINDS
from meshlib_control.config.schema import Reading, read


def config_set(*texts: str) -> ConfigSet:
    """The resources of the texts, the first the oldest.  Kinds that nothing is compiled from are passed over."""
    return ConfigSet(_resources(document for text in texts for document in yaml.safe_load_all(text)))


def _resources(documents: Iterable[Any]) -> Iterable[ConfigResource]:
    for age, document in enumerate(documents):
        if not document or document["kind"] not in KINDS:
            continue
        reading = Reading()
        spec = read(KINDS[document["kind"]].spec, document.get("spec", {}), reading)
        assert not reading.problems, reading.problems
        metadata = document["metadata"]
        yield ConfigResource(
            key=Key(document["kind"], metadata.get("namespace", "default"), metadata["name"]),
            api_version=document["apiVersion"],
            spec=spec,
            document=document,
            labels=metadata.get("labels", {}),
            annotations=metadata.get("annotations", {}),
            created=age + 1,
        )


def catalog(services: Iterable[Service] = (), instances: dict[str, tuple[Instance, ...]] | None = None) -> CatalogSnapshot:
    known = {service.host: service for service in services}
    return CatalogSnapshot(services=known, instances=dict.fromkeys(known, ()) | (instances or {}))


def registered(
    name: str, *instances: Instance, namespace: str = "default", ports: tuple[Port, ...] = (Port(80),)
) -> tuple[Service, dict[str, tuple[Instance, ...]]]:
    """A service as a registration makes it, and its instances."""
    host = registered_host(name, namespace)
    return Service(host, namespace, ports), {host: instances}


INSECURE = Trust(secure=False)
"""A mesh without identities."""


def world(
    *texts: str, services: Iterable[tuple[Service, dict[str, tuple[Instance, ...]]]] = (), trust: Trust = INSECURE
) -> World:
    """Without identities unless `trust` says otherwise."""
    found = list(services)
    instances = {host: items for _, by_host in found for host, items in by_host.items()}
    return World.of(config_set(*texts), catalog([service for service, _ in found], instances), trust=trust)
