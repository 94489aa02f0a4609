"""Leases of registered instances, as a state machine: `step(table, event, now) -> table`.  Pure.

A lease belongs to the replica of the control service that heard last from its instance: the owner renews it in memory
and lets it expire.  Other replicas take its word, as long as they see the owner's heartbeat in the store.  So a renewal
costs no write, and no two clocks are ever compared.

A lease that ends leaves a mark behind for a while: LEFT (deregistered: gone at once, and on purpose) or EXPIRED (vanished:
the guard against accidents may keep it).  An instance that is missing without a mark was lost by the store.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from meshlib_control.errors import CatalogError

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
MAX_LABELS = 64
MAX_TEXT = 253
"""Characters of a label's key or value: Kubernetes' limit of a key, generous for a value."""

_EMPTY: Mapping[str, str] = MappingProxyType({})


class InvalidRegistration(CatalogError):
    """A registration that cannot be served; says which field, and what was expected."""


class UnknownInstance(CatalogError):
    """There is no lease of this instance: it has to register again."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A process announces a port that it serves; the fields of registry.proto's RegisterRequest, defaults applied."""

    instance_id: str
    service: str
    address: str
    port: int
    namespace: str = "default"
    service_port: int = 0  # the port that callers name; 0: not said
    protocol: str = "http"
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    locality: str = ""  # "region/zone/sub_zone"
    weight: int = 1
    service_account: str = ""
    mtls: bool = False  # the port speaks the mesh's mTLS
    ports: Mapping[str, int] = field(default_factory=dict)  # name of a ServiceEntry's port -> the instance's

    def __post_init__(self) -> None:
        for name in ("service", "namespace", "protocol"):
            object.__setattr__(self, name, str(getattr(self, name)).lower())
        object.__setattr__(self, "namespace", self.namespace or "default")
        object.__setattr__(self, "protocol", self.protocol or "http")
        object.__setattr__(self, "weight", self.weight or 1)
        object.__setattr__(self, "labels", dict(self.labels))
        object.__setattr__(self, "ports", dict(self.ports))
        self._check()

    def _check(self) -> None:
        wrong = None
        if not 0 < len(self.instance_id.encode()) <= 253 or not self.instance_id.isprintable():
            wrong = f"instance_id {self.instance_id[:64]!r}: expected 1 to 253 bytes of printable text"
        elif not _LABEL.fullmatch(self.service):
            wrong = f"service {self.service[:64]!r}: expected a DNS label, as in 'reviews'"
        elif not _LABEL.fullmatch(self.namespace):
            wrong = f"namespace {self.namespace[:64]!r}: expected a DNS label, as in 'default'"
        elif not is_instance_address(self.address):
            wrong = f"address {self.address[:64]!r}: expected an IP address that callers can connect to"
        elif not _LABEL.fullmatch(self.protocol):
            wrong = f"protocol {self.protocol[:64]!r}: expected a name, as in 'http'"
        elif problem := _odd_text(self.labels, self.locality):
            wrong = problem
        elif not 0 < self.port < 65536:
            wrong = f"port {self.port}: expected 1 to 65535"
        elif not 0 <= self.service_port < 65536:
            wrong = f"service_port {self.service_port}: expected 1 to 65535, or 0"
        elif not 0 < self.weight <= 128 * 1024:
            wrong = f"weight {self.weight}: expected 1 to 131072"
        if wrong:
            raise InvalidRegistration(f"registration of {self.instance_id[:64]!r} refused: {wrong}")


class Standing(Enum):
    UP = "up"
    LEFT = "left"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Record:
    """What replicas share of a lease, through the store."""

    registration: Registration
    owner: str
    ready: bool = True
    standing: Standing = Standing.UP


@dataclass(frozen=True, slots=True)
class Lease:
    """`until`, on this replica's clock: when it expires, or when its mark is forgotten; infinite when another owns it."""

    record: Record
    until: float


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds; `silent_after` is how many heartbeats in a row an owner may miss."""

    ttl: float = 15.0
    renew_interval: float = 5.0
    remember: float = 300.0
    silent_after: int = 3


@dataclass(frozen=True, slots=True)
class Beat:
    """A replica's heartbeat as the store has it: a revision that grows while it lives, and whether it said goodbye."""

    revision: int
    left: bool = False
    missed: int = 0


@dataclass(frozen=True, slots=True)
class LeaseTable:
    """All that one replica knows, by instance id."""

    me: str
    terms: Terms = Terms()
    leases: Mapping[str, Lease] = field(default_factory=dict)
    beats: Mapping[str, Beat] = field(default_factory=dict)
    ticked: float = -math.inf


@dataclass(frozen=True, slots=True)
class Register:
    registration: Registration


@dataclass(frozen=True, slots=True)
class Renew:
    instance_id: str
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Deregister:
    instance_id: str


@dataclass(frozen=True, slots=True)
class Stored:
    """All records of the store."""

    records: Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """All heartbeats of the store, read just now.  Not sent while the store cannot be read: silence then proves nothing."""

    beats: Mapping[str, Beat]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed, with the renewals since the last one that told nothing new: when, by instance id.

    Expected at least twice in a renew interval; a longer gap means that this process did not run.
    """

    renewed: Mapping[str, float] = field(default_factory=dict)


Event = Register | Renew | Deregister | Stored | Heartbeats | Tick


def step(table: LeaseTable, event: Event, now: float) -> LeaseTable:
    """Raises `UnknownInstance` for the renewal of a lease that is not there."""
    match event:
        case Register(registration):
            return _with(table, registration.instance_id, Record(registration, table.me), now)
        case Renew(instance_id, ready):
            return _renewed(table, instance_id, ready=ready, now=now)
        case Deregister(instance_id):
            lease = table.leases.get(instance_id)
            if lease is None or lease.record.standing is Standing.LEFT:
                return table
            return _with(table, instance_id, replace(lease.record, owner=table.me, standing=Standing.LEFT), now)
        case Stored(records):
            return _stored(table, records, now)
        case Heartbeats(beats):
            return _adopted(_counted(table, beats), now)
        case Tick(renewed):
            return _expired(table, renewed, now)


def changed_records(before: Mapping[str, Lease], after: Mapping[str, Lease]) -> list[str]:
    """Instances that came, went, or whose record differs; renewals change leases, not records."""
    changed = [name for name, lease in after.items() if (known := before.get(name)) is not lease and not _same(known, lease)]
    return changed + [name for name in before if name not in after]


def _same(known: Lease | None, lease: Lease) -> bool:
    return known is not None and (known.record is lease.record or known.record == lease.record)


def _renewed(table: LeaseTable, instance_id: str, *, ready: bool, now: float) -> LeaseTable:
    lease = table.leases.get(instance_id)
    if lease is None or lease.record.standing is Standing.LEFT:
        raise UnknownInstance(f"instance {instance_id!r} is not registered, or was deregistered; register it again")
    # One that had expired and renews was only cut off: it is back.
    record = replace(lease.record, owner=table.me, ready=ready, standing=Standing.UP)
    return _with(table, instance_id, record, now)


def _stored(table: LeaseTable, records: Mapping[str, Record], now: float) -> LeaseTable:
    leases = {}
    for instance_id, record in records.items():
        known = table.leases.get(instance_id)
        if known is not None and (known.record is record or known.record == record):
            leases[instance_id] = known
        else:
            leases[instance_id] = Lease(record, _until(table, record, now))
    for instance_id, lease in table.leases.items():
        # What we answer for and the store does not have, it has lost, or not yet got: it gets it again.
        if instance_id not in leases and lease.record.owner == table.me:
            leases[instance_id] = lease
    return replace(table, leases=leases)


def _counted(table: LeaseTable, beats: Mapping[str, Beat]) -> LeaseTable:
    owners = {lease.record.owner for lease in table.leases.values()} - {table.me}
    counted = {}
    for owner in owners | (beats.keys() - {table.me}):
        known, beat = table.beats.get(owner), beats.get(owner)
        if beat is None:
            counted[owner] = Beat(0, missed=(known.missed if known else 0) + 1)
        elif known is not None and known.revision == beat.revision:
            counted[owner] = replace(beat, missed=known.missed + 1)
        else:
            counted[owner] = beat
    return replace(table, beats=counted)


def _adopted(table: LeaseTable, now: float) -> LeaseTable:
    """Leases of an owner that left or fell silent become ours, with a full time to live for their instances to find us."""
    gone = {owner for owner, beat in table.beats.items() if beat.left or beat.missed >= table.terms.silent_after}
    leases = dict(table.leases)
    for instance_id, lease in table.leases.items():
        if lease.record.owner in gone:
            record = replace(lease.record, owner=table.me)
            leases[instance_id] = Lease(record, _until(table, record, now))
    return replace(table, leases=leases)


def _expired(table: LeaseTable, renewed: Mapping[str, float], now: float) -> LeaseTable:
    gap = now - table.ticked
    # Nobody could renew while this process stood still.
    stalled = gap if table.terms.renew_interval < gap < math.inf else 0.0
    leases = {}
    for instance_id, lease in table.leases.items():
        if lease.record.owner == table.me:
            lease = _prolonged(table, lease, stalled, renewed.get(instance_id))
        if lease.until > now:
            leases[instance_id] = lease
        elif lease.record.standing is Standing.UP:
            record = replace(lease.record, standing=Standing.EXPIRED)
            leases[instance_id] = Lease(record, _until(table, record, now))
    return replace(table, leases=leases, ticked=now)


def _prolonged(table: LeaseTable, lease: Lease, stalled: float, renewed: float | None) -> Lease:
    until = lease.until + stalled
    if renewed is not None and lease.record.standing is Standing.UP:
        until = max(until, renewed + table.terms.ttl)
    return lease if until == lease.until else replace(lease, until=until)


def _with(table: LeaseTable, instance_id: str, record: Record, now: float) -> LeaseTable:
    return replace(table, leases={**table.leases, instance_id: Lease(record, _until(table, record, now))})


def _until(table: LeaseTable, record: Record, now: float) -> float:
    if record.owner != table.me:
        return math.inf
    return now + (table.terms.ttl if record.standing is Standing.UP else table.terms.remember)


def is_instance_address(text: str) -> bool:
    """Of IP addresses, one that a process can have: link-local ones are those of a cloud's metadata service (T15)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_link_local or address.is_multicast)


def _odd_text(labels: Mapping[str, str], locality: str) -> str:
    """What is wrong with them, if anything is."""
    if len(labels) > MAX_LABELS:
        return f"{len(labels)} labels: expected at most {MAX_LABELS}"
    for key, value in labels.items():
        if not 0 < len(key) <= MAX_TEXT or len(value) > MAX_TEXT or not (key + value).isprintable():
            return f"label {key[:64]!r}: expected printable text of at most {MAX_TEXT} characters"
    if len(locality) > 3 * MAX_TEXT or not locality.isprintable():
        return f"locality {locality[:64]!r}: expected region/zone/sub_zone of at most {MAX_TEXT} printable characters each"
    return ""
