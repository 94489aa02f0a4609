"""What Consul said last about a service, as bytes in the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from meshlib_control.catalog.model import Instance, InstanceHealth
from meshlib_control.catalog.offers import Offer

SAVED = "catalog/consul/"


def saved_key(name: str) -> str:
    """Consul's names are free text, keys are not."""
    return SAVED + hashlib.sha256(name.encode()).hexdigest()[:40]


def saved_bytes(name: str, offers: Sequence[Offer]) -> bytes:
    return json.dumps({"name": name, "offers": [_plain(offer) for offer in offers]}, sort_keys=True).encode()


def read_saved(value: bytes) -> tuple[str, tuple[Offer, ...]]:
    """An empty name for what cannot be read: it is only a memory, and never worth an error."""
    try:
        content = json.loads(value)
        return str(content["name"]), tuple(_offer(fields) for fields in content["offers"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return "", ()


def _plain(offer: Offer) -> dict[str, Any]:
    fields = asdict(offer)
    fields["instance"]["health"] = offer.instance.health.value
    return fields


def _offer(fields: dict[str, Any]) -> Offer:
    instance = fields["instance"]
    return Offer(**{**fields, "instance": Instance(**{**instance, "health": InstanceHealth(instance["health"])})})
