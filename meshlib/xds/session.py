"""The client's side of one delta ADS conversation, without I/O: bytes in, bytes out, time as an argument.

The owner opens a stream, sends what `connected` returns, feeds what arrives to `receive` and sends what that returns.
A stream may be lost and replaced; everything learned stays.  Rules, and where they come from:

* Cached values survive a NACK, a deletion and the loss of the stream; the trouble is recorded beside them (gRFC A88).
* In a response with bad resources, the good ones are applied and only the bad ones are refused by name (gRFC A46, A88).
* A resource that was never seen counts as missing 15 s after the request for it went out; the timer does not run for
  cached resources nor without a stream, and starts again with the next stream (gRFC A57).
* A nonce is good for one response of one stream; subscriptions that answer nothing carry none (xDS protocol, "delta").
* After a reconnect the versions at hand go out with the first request of each type, so that only news comes back.
  Resources whose newest version was refused or which were deleted are left out: what the server has now must come again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Final

from google.protobuf.message import DecodeError

from meshlib.errors import ControlError
from meshlib.model.workload import Workload
from meshlib.xds.invalid import Problem, ResourceInvalid
from meshlib.xds.node import node_message
from meshlib.xds.proto import core_pb2, discovery_pb2
from meshlib.xds.states import ResourceKey, ResourceState, Status
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET, SHORT_NAMES

__all__ = ["DOES_NOT_EXIST_AFTER", "Decode", "ProtocolViolation", "ResourceKey", "ResourceState", "Session", "Status"]

DOES_NOT_EXIST_AFTER: Final = 15.0
"""Seconds (xDS protocol, "knowing when a requested resource does not exist"; grpc-go's and Envoy's default)."""

MAX_RESPONSE: Final = 64 * 1024 * 1024
"""Bytes of one response.  The resources of a type may need several; ours are sent in parts of 3 MB."""

_MAX_ERROR_DETAIL = 8192  # characters of a NACK: it travels to the control service and into `meshctl status`
_INVALID_ARGUMENT = 3  # google.rpc.Code
# Trust first; routes last, so that what they name is on its way already.
_FIRST_REQUESTS = (SECRET, CLUSTER, ENDPOINTS, LISTENER, ROUTE)

Decode = Callable[[str, bytes], tuple[str, object]]
"""``decode(type_url, value) -> (name, value)``; raises `ResourceInvalid`."""


class ProtocolViolation(ControlError):
    """What came is not an answer that a control service may give; the stream must be ended and begun anew later."""


class _Subscription:
    """One type of resources on one stream."""

    __slots__ = ("introduced", "names")

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self.introduced = False  # the first request of this type went out on the current stream


class Session:
    """See the module.  `states` is a live view; `revision` grows whenever something in it changes."""

    def __init__(
        self, node: Workload, decode: Decode, *, instance: str = "", version: str = "", max_response: int = MAX_RESPONSE
    ) -> None:
        self._node = node_message(node, instance=instance, version=version)
        self._decode = decode
        self._max_response = max_response
        self._subscriptions: dict[str, _Subscription] = {}
        self._states: dict[ResourceKey, ResourceState] = {}
        # All deadlines are the same time away, so insertion order is order of expiry.
        self._deadlines: dict[ResourceKey, float] = {}
        self._connected = False
        self._node_sent = False
        self.states: Mapping[ResourceKey, ResourceState] = MappingProxyType(self._states)
        self.revision = 0
        self.ambient_error = ""  # why there is no stream; cleared by the first response of the next one
        self.problems: tuple[str, ...] = ()  # what was refused of the newest response, in words
        self.answered = False  # the current (or last) stream brought a response: its end is not an error (gRFC A57)

    def want(self, wanted: Mapping[str, AbstractSet[str]], now: float) -> list[bytes]:
        """Replace what is subscribed to by `wanted`: names by type URL.  Returns the requests to send.

        States of names that are no longer wanted are dropped.
        """
        requests = []
        for type_url in [*wanted, *(known for known in self._subscriptions if known not in wanted)]:
            names = frozenset(wanted.get(type_url, ()))
            subscription = self._subscriptions.setdefault(type_url, _Subscription())
            added, dropped = names - subscription.names, subscription.names - names
            if not added and not dropped:
                continue
            subscription.names = names
            for name in dropped:
                del self._states[type_url, name]
                self._deadlines.pop((type_url, name), None)
            for name in added:
                self._states[type_url, name] = ResourceState(Status.REQUESTED, updated_at=now)
            self.revision += 1
            if not self._connected:
                continue
            self._await_answers(type_url, added, now)
            if subscription.introduced:
                requests.append(self._request(type_url, subscribe=added, unsubscribe=dropped))
            elif names:
                requests.append(self._introduce(type_url, subscription))
        return requests

    def connected(self, now: float) -> list[bytes]:
        """A new stream is there.  Returns the first requests of every type, with the versions that are cached."""
        self._connected, self._node_sent, self.answered = True, False, False
        self._deadlines.clear()
        ordered = [*_FIRST_REQUESTS, *(other for other in self._subscriptions if other not in _FIRST_REQUESTS)]
        requests = []
        for type_url in ordered:
            subscription = self._subscriptions.get(type_url)
            if subscription is None:
                continue
            subscription.introduced = False
            if not subscription.names:  # an empty first request would mean "everything"
                continue
            requests.append(self._introduce(type_url, subscription))
            self._await_answers(type_url, subscription.names, now)
        return requests

    def disconnected(self, now: float, reason: str) -> None:
        """The stream is gone.  What is cached stays; timers stop."""
        self._connected = False
        self._deadlines.clear()
        self.ambient_error = reason

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Take one response in.  Returns its ACK or NACK.  Raises `ProtocolViolation`, with nothing changed."""
        if len(data) > self._max_response:
            raise ProtocolViolation(f"a response of {len(data)} bytes, at most {self._max_response} are accepted")
        try:
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
        except DecodeError as error:
            raise ProtocolViolation(f"{len(data)} bytes that are not a DeltaDiscoveryResponse: {error}") from error
        self.answered, self.ambient_error = True, ""
        subscription = self._subscriptions.get(response.type_url)
        if subscription is None:
            self.problems = (f"{response.type_url!r} was not asked for",)
            return [self._request(response.type_url, nonce=response.nonce, error=self.problems[0])]
        self.problems = tuple(self._apply(response, subscription.names, now))
        for name in response.removed_resources:
            if name in subscription.names:
                self._removed((response.type_url, name), now)
        return [self._request(response.type_url, nonce=response.nonce, error="; ".join(self.problems))]

    def next_timer(self) -> float | None:
        """When `tick` is due, on the clock of `now`; None: not before something else happens."""
        return next(iter(self._deadlines.values()), None)

    def tick(self, now: float) -> None:
        """Let the timers that are due expire."""
        for key, deadline in list(self._deadlines.items()):
            if deadline > now:
                return
            del self._deadlines[key]
            error = f"{_short(key[0])} {key[1]}: the control service gave no answer within {DOES_NOT_EXIST_AFTER:g} s"
            self._set(key, ResourceState(Status.TIMEOUT, error=error, updated_at=now))

    def _apply(self, response: discovery_pb2.DeltaDiscoveryResponse, names: frozenset[str], now: float) -> list[str]:
        """Apply what is good; returns what is wrong with the rest."""
        problems: list[str] = []
        seen: set[str] = set()
        for resource in response.resources:
            name = resource.name
            if name not in names:  # unsubscribed while it was on its way
                continue
            key = (response.type_url, name)
            if name in seen:
                twice = ResourceInvalid(name, response.type_url, (Problem("name", repr(name), "once in a response"),))
                problems.append(self._refused(key, str(twice), now))
                continue
            seen.add(name)
            state = self._states[key]
            if state.status is Status.ACKED and resource.version and resource.version == state.version:
                continue  # the same again; also a heartbeat, which has no body
            try:
                value = self._decoded(response.type_url, resource)
            except ResourceInvalid as error:
                problems.append(self._refused(key, str(error), now))
            else:
                self._deadlines.pop(key, None)
                self._set(key, ResourceState(Status.ACKED, value, resource.version, updated_at=now))
        return problems

    def _decoded(self, type_url: str, resource: discovery_pb2.Resource) -> object:
        if resource.resource.type_url != type_url:
            problem = Problem("resource.type_url", repr(resource.resource.type_url), repr(type_url))
            raise ResourceInvalid(resource.name, type_url, (problem,))
        try:
            name, value = self._decode(type_url, resource.resource.value)
        except ResourceInvalid:
            raise
        except Exception as error:
            # A resource that our own code trips over must not take the others, or the stream, with it.
            problem = Problem("", f"{type(error).__name__}: {error}", "a resource that this version of meshlib can read")
            raise ResourceInvalid(resource.name, type_url, (problem,)) from error
        if name != resource.name:
            raise ResourceInvalid(resource.name, type_url, (Problem("name", repr(name), repr(resource.name)),))
        return value

    def _refused(self, key: ResourceKey, error: str, now: float) -> str:
        state = self._states[key]
        self._deadlines.pop(key, None)
        self._set(key, ResourceState(Status.NACKED, state.value, state.version, error, now))
        return error

    def _removed(self, key: ResourceKey, now: float) -> None:
        state = self._states[key]
        self._deadlines.pop(key, None)
        error = f"{_short(key[0])} {key[1]}: the control service says that it does not exist"
        self._set(key, ResourceState(Status.DOES_NOT_EXIST, state.value, state.version, error, now))

    def _set(self, key: ResourceKey, state: ResourceState) -> None:
        self._states[key] = state
        self.revision += 1

    def _await_answers(self, type_url: str, names: Iterable[str], now: float) -> None:
        for name in names:
            if self._states[type_url, name].status is Status.REQUESTED:
                self._deadlines[type_url, name] = now + DOES_NOT_EXIST_AFTER

    def _introduce(self, type_url: str, subscription: _Subscription) -> bytes:
        subscription.introduced = True
        states = ((name, self._states[type_url, name]) for name in subscription.names)
        versions = {name: state.version for name, state in states if state.status is Status.ACKED and state.version}
        return self._request(type_url, subscribe=subscription.names, versions=versions)

    def _request(
        self,
        type_url: str,
        *,
        subscribe: Iterable[str] = (),
        unsubscribe: Iterable[str] = (),
        versions: Mapping[str, str] = MappingProxyType({}),
        nonce: str = "",
        error: str = "",
    ) -> bytes:
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url,
            resource_names_subscribe=sorted(subscribe),
            resource_names_unsubscribe=sorted(unsubscribe),
            initial_resource_versions=versions,
            response_nonce=nonce,
        )
        if error:
            request.error_detail.CopyFrom(core_pb2.Status(code=_INVALID_ARGUMENT, message=error[:_MAX_ERROR_DETAIL]))
        if not self._node_sent:
            request.node.CopyFrom(self._node)
            self._node_sent = True
        return request.SerializeToString()


def _short(type_url: str) -> str:
    return SHORT_NAMES.get(type_url, type_url)
