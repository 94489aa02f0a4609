"""The server's side of one ADS stream, without I/O: requests in, responses out.

A stream never has a queue.  Per type it has the set of names whose newest version the client has not been sent; a response
is made from that set at the moment when it can be written, so a slow client gets the latest state and nothing in between.
One response per type is un-ACKed at a time.

Order (xDS protocol, "eventual consistency considerations"; make before break):

* CDS, EDS, LDS, RDS.
* LDS and RDS wait while a CDS response is un-ACKed: Envoy ACKs it when the new clusters are warm.  EDS never waits for
  CDS, because it is what the warming waits for.
* Clusters and assignments that are gone are told of once LDS and RDS have nothing to say and nothing un-ACKed.
* Envoy warms a changed cluster until its assignment comes, up to 15 s, also when that did not change: it is sent again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from meshlib.xds.proto import core_pb2
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from meshlib_control.compile.names import INBOUND_PREFIX
from meshlib_control.compile.node import Flavour, Node
from meshlib_control.serve.cache import TYPES, Packed, ScopeResources
from meshlib_control.serve.dialects import WILDCARD, BadRequest, Dialect, Request
from meshlib_control.serve.settling import Settling

MAX_RESPONSE = 3_000_000
"""Bytes of resources in one response: grpcio clients refuse messages above 4 MB, and loop."""

MAX_NAMES = 100_000
"""Subscriptions of one type on one stream."""

MAX_NAME = 1024
"""Characters of a name: twice what the longest host with a subset has."""

MAX_TYPES = 16
"""Types on one stream, with those that nobody here knows."""

MAX_SERVED = 64
"""Inbound listeners on one stream: each costs all policies of its workload, and no process serves so many ports."""

_ONLY_WILDCARD = frozenset((WILDCARD,))
_NAMERS = (LISTENER, ROUTE)  # what refers to clusters

Bind = Callable[[core_pb2.Node], tuple[Node, ScopeResources]]
"""Who is it, and what may it see."""


@dataclass(slots=True)
class Subscription:
    """One type on one stream."""

    type_url: str
    wildcard: bool = False
    explicit: bool = False  # a name or "*" was asked for, so an empty list no longer means "everything"
    names: frozenset[str] = frozenset()  # shared with other clients that subscribe to the same
    dirty: set[str] = field(default_factory=set)  # the newest version was not sent yet
    held_back: set[str] = field(default_factory=set)  # the client has a version, and we should not take it away (yet)
    greet: bool = False  # the next response goes out even if there is nothing in it
    nonce: str = ""  # of the un-ACKed response
    in_flight: tuple[str, ...] = ()  # the names in it
    sent: str = ""  # version, for people
    acked: str = ""
    rejected: dict[str, str] = field(default_factory=dict)  # name -> what the client said

    @property
    def is_settled(self) -> bool:
        """Nothing to send, nothing un-ACKed."""
        return not (self.dirty or self.greet or self.nonce)


class Session:
    """See the module.  After `receive`, `changed` or `release`, write what `next_response` returns until it is None."""

    def __init__(self, dialect: Dialect, bind: Bind, settling: Settling, *, label: Callable[[], str] = lambda: "") -> None:
        self.dialect = dialect
        self.node: Node | None = None
        self.resources: ScopeResources | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self._ordered: list[Subscription] = []
        self._bind = bind
        self._settling = settling
        self._label = label  # what the versions of responses begin with: the revision of the configuration
        self._responses = 0

    def receive(self, data: bytes) -> None:
        """Take one request in.  Raises `BadRequest`."""
        request = self.dialect.read(data)
        resources = self._bound(request)
        if not request.type_url:
            raise BadRequest("a request without type_url, which ADS requires")
        subscription = self.subscriptions.get(request.type_url)
        self._check_size(subscription, request)
        is_first = subscription is None
        if subscription is None:
            subscription = self.subscriptions[request.type_url] = Subscription(request.type_url)
            self._ordered = sorted(self.subscriptions.values(), key=_position)
        if request.nonce:
            _acknowledge(subscription, request)
        if not is_first and request.versions:
            request = replace(request, versions={})  # only a stream's first request of a type says what the client has
        if request.names is not None:
            self._replace(resources, subscription, request)
        elif is_first and not request.subscribe and not request.unsubscribe:
            self._subscribe_all(resources, subscription, request)
        else:
            self._change(resources, subscription, request)

    def changed(self, type_url: str, names: AbstractSet[str]) -> bool:
        """The content of `names` is not what it was.  Says whether that concerns this client."""
        subscription = self.subscriptions.get(type_url)
        if subscription is None or self.resources is None:
            return False
        concerned = names if subscription.wildcard else names & subscription.names
        if not concerned:
            return False
        for name in concerned:
            if name in subscription.held_back and self._holds_back(self.resources, type_url, name):
                continue
            subscription.held_back.discard(name)
            subscription.dirty.add(name)
        return bool(subscription.dirty)

    def release(self) -> bool:
        """The settle period is over.  Says whether something was held back."""
        held_back = False
        for subscription in self.subscriptions.values():
            held_back = held_back or bool(subscription.held_back)
            subscription.greet = subscription.greet or WILDCARD in subscription.held_back
            subscription.dirty |= subscription.held_back - {WILDCARD}
            subscription.held_back.clear()
        return held_back

    def move(self, resources: ScopeResources) -> None:
        """The client's scope is another one now: everything it has is sent again."""
        old = self.resources
        if old is None or old is resources:
            return
        self.resources = resources
        resources.clients += 1
        for subscription in self.subscriptions.values():
            type_url = subscription.type_url
            before = set(subscription.names)
            subscription.names = resources.subscribe(type_url, subscription.names)
            if subscription.wildcard:
                resources.subscribe_all(type_url)
                before.update(old.everything(type_url))
                before.update(resources.everything(type_url))
                subscription.greet = True
            subscription.dirty |= before - subscription.held_back
        self._let_go(old)

    def close(self) -> None:
        """The stream is gone."""
        if self.resources is not None:
            self._let_go(self.resources)
            self.resources = None
        self.subscriptions.clear()
        self._ordered = []

    def next_response(self) -> bytes | None:
        """The next response to write; None: nothing to say for now."""
        for subscription in self._ordered:
            if subscription.nonce or not (subscription.dirty or subscription.greet):
                continue
            if subscription.type_url in _NAMERS and self._is_open(CLUSTER):
                continue
            response = self._respond(subscription)
            if response is not None:
                return response
        return None

    def _bound(self, request: Request) -> ScopeResources:
        if self.resources is None:
            if request.node is None:
                raise BadRequest("the first request of a stream must say who asks (`node`)")
            self.node, self.resources = self._bind(request.node)
            self.resources.clients += 1
        return self.resources

    def _check_size(self, subscription: Subscription | None, request: Request) -> None:
        """Before any of it costs anything.  Raises `BadRequest`."""
        if subscription is None and len(self.subscriptions) >= MAX_TYPES:
            raise BadRequest(f"more than {MAX_TYPES} types of resources on one stream")
        asked = request.subscribe if request.names is None else request.names
        had = subscription.names if subscription is not None and request.names is None else frozenset[str]()
        if len(asked) + len(had) > MAX_NAMES and len((had | asked) - request.unsubscribe) > MAX_NAMES:
            raise BadRequest(f"more than {MAX_NAMES} names of {request.type_url}")
        if any(len(name) > MAX_NAME for name in asked):
            raise BadRequest(f"a name of {request.type_url} with more than {MAX_NAME} characters")
        if request.type_url == LISTENER and _served(asked) and _served((had | asked) - request.unsubscribe) > MAX_SERVED:
            raise BadRequest(f"more than {MAX_SERVED} inbound listeners on one stream")

    def _let_go(self, resources: ScopeResources) -> None:
        for subscription in self.subscriptions.values():
            resources.unsubscribe(subscription.type_url, subscription.names)
            if subscription.wildcard:
                resources.unsubscribe_all(subscription.type_url)
        resources.clients -= 1

    def _change(self, resources: ScopeResources, subscription: Subscription, request: Request) -> None:
        """What a delta request subscribes to and unsubscribes from."""
        if not request.subscribe and not request.unsubscribe:
            return
        if WILDCARD in request.subscribe and not subscription.wildcard:
            self._subscribe_all(resources, subscription, request)
        self._subscribe(resources, subscription, request, request.subscribe - _ONLY_WILDCARD)
        self._unsubscribe(resources, subscription, request.unsubscribe - _ONLY_WILDCARD)
        if WILDCARD in request.unsubscribe:
            self._unsubscribe_all(resources, subscription)
        subscription.explicit = subscription.explicit or bool(request.subscribe)

    def _replace(self, resources: ScopeResources, subscription: Subscription, request: Request) -> None:
        """The complete subscription that a state-of-the-world request states."""
        names = request.names or frozenset()
        subscription.explicit = subscription.explicit or bool(names)
        wildcard = WILDCARD in names or not subscription.explicit
        names -= _ONLY_WILDCARD
        if wildcard and not subscription.wildcard:
            self._subscribe_all(resources, subscription, request)
        elif subscription.wildcard and not wildcard:
            self._unsubscribe_all(resources, subscription)
        if names != subscription.names:
            self._subscribe(resources, subscription, request, names - subscription.names)
            self._unsubscribe(resources, subscription, subscription.names - names)

    def _subscribe(
        self, resources: ScopeResources, subscription: Subscription, request: Request, names: frozenset[str]
    ) -> None:
        if not names:
            return
        before = subscription.names
        wanted = before | names if before else names
        subscription.names = resources.subscribe(subscription.type_url, wanted, instead_of=before)
        self._offer(resources, subscription, request, subscription.names if not before else subscription.names & names)

    def _subscribe_all(self, resources: ScopeResources, subscription: Subscription, request: Request) -> None:
        resources.subscribe_all(subscription.type_url)
        subscription.wildcard = True
        subscription.greet = True  # Envoy waits for the first answer of CDS and LDS, whatever is in it
        known = set(resources.everything(subscription.type_url))
        self._offer(resources, subscription, request, known | (request.versions.keys() - _ONLY_WILDCARD))
        if WILDCARD in request.versions and self._settling.holds_back_listings(self._flavour):
            subscription.held_back.add(WILDCARD)

    def _unsubscribe(self, resources: ScopeResources, subscription: Subscription, names: frozenset[str]) -> None:
        dropped = names & subscription.names
        if not dropped:
            return
        before = subscription.names
        subscription.names = resources.subscribe(subscription.type_url, before - dropped, instead_of=before)
        subscription.held_back -= dropped
        for name in dropped:
            subscription.rejected.pop(name, None)
        if subscription.wildcard:
            subscription.dirty |= dropped  # the client must learn whether "everything" still has them
        else:
            subscription.dirty -= dropped

    def _unsubscribe_all(self, resources: ScopeResources, subscription: Subscription) -> None:
        if not subscription.wildcard:
            return
        subscription.wildcard = subscription.greet = False
        subscription.dirty &= subscription.names
        subscription.held_back &= subscription.names
        resources.unsubscribe_all(subscription.type_url)

    def _offer(self, resources: ScopeResources, subscription: Subscription, request: Request, names: AbstractSet[str]) -> None:
        """The client asks for `names`: which does it have already, with which should it be left, which are to be sent?"""
        claimed = request.versions
        outdated = resources.outdated(subscription.type_url, names, claimed)
        if claimed and outdated and self._settling.active:
            for name in list(outdated):
                has_one = name in claimed or WILDCARD in claimed
                if has_one and self._holds_back(resources, subscription.type_url, name):
                    outdated.discard(name)
                    subscription.held_back.add(name)
        subscription.dirty |= outdated

    @property
    def _flavour(self) -> Flavour:
        return self.node.flavour if self.node is not None else "meshlib"

    def _holds_back(self, resources: ScopeResources, type_url: str, name: str) -> bool:
        return self._settling.holds_back(resources.get(type_url, name), self._flavour)

    def _is_open(self, type_url: str) -> bool:
        subscription = self.subscriptions.get(type_url)
        return subscription is not None and bool(subscription.nonce)

    def _may_break(self) -> bool:
        """Has whoever names clusters let go of those that are gone?"""
        namers = (self.subscriptions.get(type_url) for type_url in _NAMERS)
        return all(namer is None or namer.is_settled for namer in namers)

    def _respond(self, subscription: Subscription) -> bytes | None:
        assert self.resources is not None
        type_url = subscription.type_url
        if type_url in self.dialect.complete_types:
            return self._respond_completely(self.resources, subscription)
        batch, gone = self._next_batch(self.resources, subscription)
        if not batch and not gone and not subscription.greet:
            return None
        handled = [packed.name for packed in batch] + gone
        subscription.dirty = subscription.dirty.difference(handled)  # a new set: one that was large never shrinks
        self._warm(type_url, (packed.name for packed in batch))
        return self._encode(subscription, batch, gone, handled)

    def _next_batch(self, resources: ScopeResources, subscription: Subscription) -> tuple[list[Packed], list[str]]:
        """As many of the dirty resources as fit into one response, and the names to report as gone."""
        type_url = subscription.type_url
        may_break = type_url in _NAMERS or self._may_break()
        batch: list[Packed] = []
        gone: list[str] = []
        size = 0
        for name in subscription.dirty:
            packed = resources.get(type_url, name)
            if (packed is None or packed.empty) and resources.is_pending(name):
                continue  # a catalog is being asked: "there is none" would fail the calls that wait for the answer
            if packed is None:
                if may_break:
                    gone.append(name)
                continue
            size += len(packed.any) + len(name)
            if batch and size > MAX_RESPONSE:
                break
            batch.append(packed)
        return batch, gone

    def _respond_completely(self, resources: ScopeResources, subscription: Subscription) -> bytes | None:
        """State-of-the-world CDS and LDS: everything that exists, since what is left out is deleted."""
        type_url = subscription.type_url
        if subscription.held_back:
            return None
        names = set(subscription.names)
        if subscription.wildcard:
            names.update(resources.everything(type_url))
        found = {name: resources.get(type_url, name) for name in names}
        kept: dict[str, Packed] = {}
        if type_url == CLUSTER and not self._may_break():
            for name in subscription.dirty:
                retired = None if found.get(name) is not None else resources.retired(type_url, name)
                if retired is not None:
                    kept[name] = retired
        pending = {name for name in subscription.dirty if found.get(name) is None and resources.is_pending(name)}
        changed = subscription.dirty - kept.keys() - pending
        if not changed and not subscription.greet:
            return None
        subscription.dirty -= changed
        self._warm(type_url, changed)
        batch = [packed for packed in found.values() if packed is not None] + list(kept.values())
        return self._encode(subscription, batch, [], sorted(changed))

    def _warm(self, type_url: str, clusters: Iterable[str]) -> None:
        endpoints = self.subscriptions.get(ENDPOINTS)
        if type_url != CLUSTER or endpoints is None or self._flavour != "envoy":
            return
        endpoints.dirty.update(name for name in clusters if name in endpoints.names and name not in endpoints.held_back)

    def _encode(self, subscription: Subscription, batch: list[Packed], gone: list[str], handled: list[str]) -> bytes | None:
        if not (batch or subscription.greet or self.dialect.says_removed or self._says_all(subscription)):
            return None  # RDS and EDS of the world's state cannot say that something is not there
        self._responses += 1
        digest = hashlib.blake2b("".join(sorted(packed.version for packed in batch)).encode(), digest_size=4).hexdigest()
        subscription.nonce = str(self._responses)
        label = self._label()
        subscription.sent = f"{label}/{digest}" if label else digest
        subscription.in_flight = tuple(handled)
        subscription.greet = False
        frames = [self.dialect.frame(packed) for packed in batch]
        return self.dialect.response(subscription.type_url, subscription.nonce, frames, gone, subscription.sent)

    def _says_all(self, subscription: Subscription) -> bool:
        return subscription.type_url in self.dialect.complete_types


def _position(subscription: Subscription) -> int:
    return TYPES.index(subscription.type_url) if subscription.type_url in TYPES else len(TYPES)


def _served(names: Iterable[str]) -> int:
    return sum(name.startswith(INBOUND_PREFIX) for name in names)


def _mentions(text: str, name: str) -> bool:
    """Is `name` in `text` as a word of its own ("reviews:80", not the beginning of "reviews:8080")?"""
    return re.search(rf"(?<![\w.|-]){re.escape(name)}(?![\w|]|[.:-]\w)", text) is not None


def _acknowledge(subscription: Subscription, request: Request) -> None:
    if request.nonce != subscription.nonce:
        return  # stale: it answers a response that was followed by another one
    subscription.nonce = ""
    if not request.error:
        subscription.acked = subscription.sent
        for name in subscription.in_flight:
            subscription.rejected.pop(name, None)
    else:
        named = [name for name in subscription.in_flight if _mentions(request.error, name)]
        for name in subscription.in_flight:
            subscription.rejected.pop(name, None)
        # A client that names none refuses all.
        subscription.rejected.update(dict.fromkeys(named or subscription.in_flight or (WILDCARD,), request.error))
    subscription.in_flight = ()
