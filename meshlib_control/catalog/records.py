"""Leases' records as bytes in the store."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields

from meshlib_control.catalog.leases import InvalidRegistration, Record, Registration, Standing

PREFIX = "registry/"
HEARTBEATS = "replicas/"


def record_key(instance_id: str) -> str:
    """Instance ids are free text, keys are not."""
    return PREFIX + hashlib.sha256(instance_id.encode()).hexdigest()[:40]


def record_bytes(record: Record) -> bytes:
    registration = {each.name: getattr(record.registration, each.name) for each in fields(Registration)}
    content = {"registration": registration, "owner": record.owner, "ready": record.ready}
    return json.dumps(content | {"standing": record.standing.value}, sort_keys=True).encode()


def read_record(value: bytes) -> Record | None:
    """None for what is no record: one bad value must not hide the others."""
    try:
        content = json.loads(value)
        registration = Registration(**content["registration"])
        return Record(registration, str(content["owner"]), bool(content["ready"]), Standing(content["standing"]))
    except (KeyError, TypeError, ValueError, InvalidRegistration):
        return None
