"""What the running service says of itself: status for operators, numbers for Prometheus, readiness for orchestrators."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from meshlib_control.admin import views
from meshlib_control.admin.editing import rfc3339
from meshlib_control.admin.metrics import Family, Sample
from meshlib_control.catalog.model import CatalogSnapshot, InstanceHealth
from meshlib_control.live import LiveWorld
from meshlib_control.serve.status import ClientStatus, ServerStatus


class Health:
    """Puts together what the parts know.  `following` is the task that keeps the world up to date."""

    def __init__(
        self,
        control: views.ControlView,
        discovery: Callable[[], ServerStatus],
        live: LiveWorld,
        following: asyncio.Task[None],
        more_problems: Callable[[], list[str]] = list,
        shared_limits: Callable[[], list[views.SharedLimitView]] = list,
    ) -> None:
        self._shared_limits = shared_limits
        self._control = control
        self._more_problems = more_problems
        self._discovery = discovery
        self._live = live
        self._following = following

    def status(self) -> views.Status:
        """Everything that `meshctl status` shows."""
        server = self._discovery()
        return views.Status(
            control=self._control_now(server),
            clients=[_client_view(client) for client in server.clients],
            problems=[
                *self._live.problems,
                *self._more_problems(),
                *server.problems,
                *_refusals(server),
                *_suspicions(self._live.snapshot),
            ],
            suspicious=dict(self._live.snapshot.suspicious),
            shared_limits=self._shared_limits(),
        )

    def not_ready(self) -> str:
        """Why clients would not be served; empty when they are."""
        return "the configuration is no longer followed; see the log" if self._following.done() else ""

    def metrics(self) -> list[Family]:
        """The same as numbers."""
        server = self._discovery()
        clients = Counter(client.flavour or "unknown" for client in server.clients)
        states = Counter(
            (name, kind.state) for client in server.clients for name, kind in client.types.items() if kind.state != "NOT SENT"
        )
        snapshot = self._live.snapshot
        health = Counter(instance.health for instances in snapshot.instances.values() for instance in instances)
        return [
            _gauge("meshlib_control_clients", "Connected clients.", {("flavour", name): n for name, n in clients.items()}),
            Family(
                "meshlib_control_client_types",
                "gauge",
                "Types of resources that clients have, by state.",
                tuple(Sample(count, {"type": name, "state": state}) for (name, state), count in sorted(states.items())),
            ),
            _gauge("meshlib_control_config_revision", "Revision of the configuration that is served.", self._live.revision),
            _gauge("meshlib_control_services", "Known services.", len(self._live.world.services.hosts)),
            _gauge(
                "meshlib_control_instances",
                "Known instances, by health.",
                {("health", each.value): health[each] for each in InstanceHealth},
            ),
            _gauge(
                "meshlib_control_suspicious_services",
                "Services whose instances are kept from before.",
                len(snapshot.suspicious),
            ),
            _gauge(
                "meshlib_control_suspicious_empty",
                "1 while there is nothing to serve, but clients had something.",
                int(server.suspicious_empty),
            ),
            _gauge("meshlib_control_problems", "Problems that the status lists.", len(self.status().problems)),
            Family("meshlib_control_pushes_total", "counter", "Worlds that were published.", (Sample(self._live.published),)),
        ]

    def _control_now(self, server: ServerStatus) -> views.ControlView:
        return msgspec.structs.replace(self._control, revision=int(server.label or self._live.revision))


def _client_view(client: ClientStatus) -> views.ClientView:
    return views.ClientView(
        id=client.id,
        flavour=client.flavour,
        service=client.service,
        namespace=client.namespace,
        address=client.address,
        connected_since=rfc3339(client.connected_since),
        types={
            name: views.TypeSync(state=kind.state, sent=kind.sent, acked=kind.acked, error=kind.error)
            for name, kind in client.types.items()
        },
    )


def _refusals(server: ServerStatus) -> Iterator[str]:
    for client in server.clients:
        for name, kind in client.types.items():
            for resource, words in kind.rejected.items():
                yield f"{client.id or client.address} refused {name} {resource} and keeps what it had: {words}"


def _suspicions(snapshot: CatalogSnapshot) -> Iterator[str]:
    return (f"{host}: {why}" for host, why in sorted(snapshot.suspicious.items()))


def _gauge(name: str, text: str, value: float | dict[tuple[str, str], int]) -> Family:
    if isinstance(value, dict):
        return Family(name, "gauge", text, tuple(Sample(number, {label: of}) for (label, of), number in sorted(value.items())))
    return Family(name, "gauge", text, (Sample(value),))
