"""Where this process is, as far as balancing depends on it: its locality, its address, the other instances of its service."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable
from functools import cached_property

from meshlib.model.endpoint import Health, Locality
from meshlib.model.request import authority_of
from meshlib.model.snapshot import Snapshot
from meshlib.policy.balancing import UNPLACED, Place
from meshlib.runtime.settings import Settings, check_address

logger = logging.getLogger("meshlib")


class Whereabouts:
    """Of a process without a service, or without settings, little is known."""

    def __init__(self, settings: Settings | None = None, ask: Callable[[str], None] | None = None) -> None:
        """`ask`: makes a destination known; used for the process's own service, once some cluster is balanced by zones."""
        self._settings = settings
        self._ask = ask
        self._asked = False
        self._service = ""
        self._locality = Locality()
        if settings is not None:
            self._locality = Locality.parse(settings.locality)
            if settings.service:
                # By its short name, which means the service of the own namespace: whichever the certificate says that is.
                self._service = authority_of(settings.service, settings.service_port or 80, "http")

    def place(self, snapshot: Snapshot) -> Place:
        """What zone-aware routing goes by.  Without the instances of this process's own service it does not take place."""
        own = snapshot.targets.get(self._service)
        if own is None:
            return Place(self._locality) if self._locality != Locality() else UNPLACED
        instances = {endpoint.key: endpoint for config in own.clusters.values() for endpoint in config.endpoints}
        return Place(self._locality, Counter(each.locality for each in instances.values() if each.health is Health.HEALTHY))

    def look_around(self, snapshot: Snapshot) -> None:
        """Ask for the own service where some cluster needs it.  Not to be called under a lock."""
        if self._asked or self._ask is None or not self._service:
            return
        configs = (config for target in snapshot.targets.values() for config in target.clusters.values())
        if any(config.cluster is not None and config.cluster.balancing.zone_aware is not None for config in configs):
            self._asked = True
            self._ask(self._service)

    @cached_property
    def address(self) -> str:
        """The address that connections of this process come from; empty when there is no telling."""
        if self._settings is None or self._settings.address:
            return self._settings.address if self._settings is not None else ""
        return _source_address(*check_address("control", self._settings.control.split(",")[0].strip()))


def _source_address(host: str, port: int) -> str:
    """The address that the system would send from; nothing is sent."""
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        logger.warning("this process's own address is not known, so calls are not placed by it: %s", error)
        return ""
