"""Host names of DNS clusters (ServiceEntry ``resolution: DNS``) -> addresses, in a thread of their own (Envoy STRICT_DNS).

Nothing waits for it: until a name has been resolved its endpoint stays as it is named, and connecting resolves it.  A name that
cannot be resolved keeps the addresses that it had.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from meshlib.model.cluster import Discovery
from meshlib.model.endpoint import Endpoint
from meshlib.model.snapshot import ClusterConfig
from meshlib.runtime.clock import SYSTEM, Clock
from meshlib.runtime.fork import forget_in_child

logger = logging.getLogger("meshlib")

RETRY_INTERVAL = 5.0
"""Seconds until a name that could not be resolved is tried again."""

Lookup = Callable[[str], Iterable[str]]


def system_lookup(host: str) -> list[str]:
    """IP addresses of `host` in the resolver's order, each once.  Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Name:
    """One host name that some cluster needs."""

    __slots__ = ("addresses", "due", "refresh")

    def __init__(self, refresh: float) -> None:
        self.addresses: tuple[str, ...] = ()
        self.refresh = refresh
        self.due = 0.0


class Resolver:
    """Keeps names resolved; `changed` is called from its thread when an answer differs from the last one."""

    def __init__(self, changed: Callable[[], None], *, lookup: Lookup = system_lookup, clock: Clock = SYSTEM) -> None:
        self._changed = changed
        self._lookup = lookup
        self._clock = clock
        self._names: dict[str, _Name] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        forget_in_child(self)

    def expand(self, config: ClusterConfig) -> ClusterConfig:
        """The cluster with an endpoint for each address of its names.  Starts to keep them resolved."""
        cluster = config.cluster
        if cluster is None or not is_dns(config):
            return config
        endpoints: list[Endpoint] = []
        for endpoint in config.endpoints:
            addresses = () if _is_address(endpoint.address) else self._addresses(endpoint.address, cluster.dns_refresh)
            if addresses:
                name = endpoint.hostname or endpoint.address
                endpoints += [replace(endpoint, address=address, hostname=name) for address in addresses]
            else:
                endpoints.append(endpoint)
        return replace(config, endpoints=tuple(endpoints))

    def keep(self, hosts: set[str]) -> None:
        """Forget the names that no cluster needs any more."""
        with self._lock:
            self._names = {host: name for host, name in self._names.items() if host in hosts}

    def close(self) -> None:
        self._closing = True
        self._wake.set()

    def forget(self) -> None:
        """In a forked child: the thread is the parent's; what it found is true here, too."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread = None

    def refresh_due(self) -> float:
        """Resolve what is due, and say in how many seconds the next one is."""
        now = self._clock.monotonic()
        with self._lock:
            due = [(host, name) for host, name in self._names.items() if name.due <= now]
        changed = [self._refresh(host, name) for host, name in due]
        if any(changed):
            self._changed()
        with self._lock:
            following = [name.due for name in self._names.values()]
        return max(min(following, default=now + 60.0) - self._clock.monotonic(), 0.0)

    def _refresh(self, host: str, name: _Name) -> bool:
        try:
            addresses = tuple(sorted(self._lookup(host)))
        except OSError as error:
            name.due = self._clock.monotonic() + RETRY_INTERVAL
            logger.warning(
                "%s cannot be resolved, %s: %s", host, "its addresses stay" if name.addresses else "no address", error
            )
            return False
        name.due = self._clock.monotonic() + name.refresh
        if not addresses or addresses == name.addresses:
            return False
        name.addresses = addresses
        return True

    def _addresses(self, host: str, refresh: float) -> tuple[str, ...]:
        with self._lock:
            name = self._names.get(host)
            if name is not None:
                return name.addresses
            self._names[host] = _Name(refresh)
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="meshlib-dns", daemon=True)
                self._thread.start()
        self._wake.set()
        return ()

    def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                pause = self.refresh_due()
            except Exception:
                logger.exception("resolving host names failed")
                pause = RETRY_INTERVAL
            self._wake.wait(pause)


def is_dns(config: ClusterConfig) -> bool:
    """Are its endpoints host names?"""
    return config.cluster is not None and config.cluster.discovery is Discovery.DNS


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
