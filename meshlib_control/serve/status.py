"""Who is connected, what it was sent, what it took and what it refused: for `meshctl status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from meshlib.xds.types import SHORT_NAMES
from meshlib_control.serve.session import Session, Subscription

MAX_REJECTED = 100
"""Refused resources of one type that are listed, so that no client makes everybody's status long."""

SyncState = Literal["SYNCED", "STALE", "NACK", "NOT SENT"]
"""Istio's words (`istioctl proxy-status`), and NACK."""


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type of resources of one client."""

    state: SyncState
    subscribed: int  # names; -1: everything
    sent: str = ""  # version
    acked: str = ""
    error: str = ""  # the client's own words, of the newest refusal
    rejected: Mapping[str, str] = field(default_factory=dict)  # resource -> what the client said
    held_back: int = 0  # resources that the client has and this control service does not know (yet)


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """One stream.  `connected_since` is POSIX time."""

    id: str
    flavour: str
    service: str
    namespace: str
    address: str
    protocol: str  # "delta" or "sotw"
    connected_since: float
    types: Mapping[str, TypeStatus]  # by short name: LDS, RDS, CDS, EDS


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """`suspicious_empty`: there has been nothing to serve since the start, and clients say that there was before."""

    clients: tuple[ClientStatus, ...]
    suspicious_empty: bool
    problems: tuple[str, ...]  # what an operator should look at, in words
    label: str = ""  # of the world that the clients' states are about; a newer one may still wait for the debounce


def client_status(session: Session, *, address: str, connected_since: float) -> ClientStatus:
    """What one stream is like."""
    node = session.node
    return ClientStatus(
        id=node.id if node else "",
        flavour=node.flavour if node else "",
        service=node.service if node else "",
        namespace=node.namespace if node else "",
        address=address,
        protocol="delta" if session.dialect.says_removed else "sotw",
        connected_since=connected_since,
        types={
            SHORT_NAMES.get(type_url, type_url): _type_status(subscription)
            for type_url, subscription in session.subscriptions.items()
        },
    )


def _type_status(subscription: Subscription) -> TypeStatus:
    rejected = dict(islice(subscription.rejected.items(), MAX_REJECTED))
    return TypeStatus(
        state=_state(subscription),
        subscribed=-1 if subscription.wildcard else len(subscription.names),
        sent=subscription.sent,
        acked=subscription.acked,
        error=next(reversed(subscription.rejected.values()), ""),
        rejected=rejected,
        held_back=len(subscription.held_back),
    )


def _state(subscription: Subscription) -> SyncState:
    if subscription.rejected:
        return "NACK"
    if not subscription.is_settled:
        return "STALE"
    # A client that came back with everything in its newest version is in sync without a single response.
    has_something = subscription.sent or subscription.names or subscription.wildcard
    return "SYNCED" if has_something else "NOT SENT"
