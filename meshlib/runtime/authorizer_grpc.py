"""External authorizers over gRPC: a channel for each of their endpoints, with the mesh's identities at both ends.

A gRPC channel verifies DNS names only.  The one that it asks for here is the one that the mesh's certificate authority puts
beside each SPIFFE ID and gives to nobody else, vouched for by the roots of that ID's own trust domain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from meshlib.errors import ControlError
from meshlib.flow.server import Check
from meshlib.model.authorization import AuthorizerAnswer, BodyStart, ExternalAuthorization
from meshlib.model.cluster import UpstreamTls
from meshlib.model.endpoint import Endpoint, Health
from meshlib.model.identity import SpiffeId
from meshlib.model.snapshot import ClusterConfig, Snapshot
from meshlib.runtime.channel import OPTIONS
from meshlib.runtime.client import RESOLVE_TIMEOUT, Control
from meshlib.runtime.fork import forget_in_child, keep_for_ever
from meshlib.runtime.grpc_channels import awaited
from meshlib.runtime.identity import pem
from meshlib.runtime.tls.contexts import TlsContexts

if TYPE_CHECKING:
    import grpc

ATTEMPTS = 3
"""How many endpoints (or identities of one) are tried when none could be reached."""

_Key = tuple[str, str, str, int]  # endpoint, name of the service, identity there ("": none), generation of our own


_NOBODY = "none of its endpoints has a known identity"


class _Unusable(Exception):
    """Why no endpoint can be asked."""


class GrpcAuthorizers:
    """The channels.  All methods may be called from any thread; a forked child starts without any."""

    def __init__(self, control: Control, tls: TlsContexts | None, *, wall: Callable[[], float] = time.time) -> None:
        """`wall`: Unix seconds, which authorizers are told."""
        self._control = control
        self._tls = tls
        self._wall = wall
        self._lock = threading.Lock()
        self._channels: dict[_Key, grpc.Channel] = {}
        self._turn = count()
        forget_in_child(self)

    def ask(self, check: Check, body: BodyStart) -> AuthorizerAnswer:
        """Never raises for what goes wrong on the way: that is an answer with an `error`."""
        wanted, deadline = check.filter, _Deadline(check.filter.timeout)
        try:
            self._control.request(wanted.authority)
            self._control.wait(_answered(wanted), deadline.left(RESOLVE_TIMEOUT))
            question, error = self._question(check, body), _NOBODY
            for call in self._calls(wanted):
                try:
                    return _read(call(question, timeout=deadline.left()))
                except _rpc_error() as failure:
                    error = _words(failure)
                    if not _is_unavailable(failure):
                        break
        except (ControlError, _Unusable) as failure:
            error = str(failure)
        return AuthorizerAnswer(error=error)

    async def aask(self, check: Check, body: BodyStart) -> AuthorizerAnswer:
        """`ask` without blocking the event loop."""
        wanted, deadline = check.filter, _Deadline(check.filter.timeout)
        try:
            self._control.request(wanted.authority)
            await self._control.await_(_answered(wanted), deadline.left(RESOLVE_TIMEOUT))
            question, error = self._question(check, body), _NOBODY
            for call in self._calls(wanted):
                try:
                    return _read(await awaited(call.future(question, timeout=deadline.left())))
                except _rpc_error() as failure:
                    error = _words(failure)
                    if not _is_unavailable(failure):
                        break
        except (ControlError, _Unusable) as failure:
            error = str(failure)
        return AuthorizerAnswer(error=error)

    def close(self) -> None:
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def forget(self) -> None:
        """In a forked child: the channels stay the parent's."""
        self._lock = threading.Lock()
        keep_for_ever(self._channels)
        self._channels = {}

    def _question(self, check: Check, body: BodyStart) -> bytes:
        from meshlib.xds.check import check_request  # the protos: not before they are needed

        headers = check.dialogue.visible(check.inspection)
        return check_request(check.filter, check.inspection, headers, body, now=self._wall())

    # --- which endpoint

    def _calls(self, wanted: ExternalAuthorization) -> Iterator[Any]:
        """The Check method of one endpoint after the other.  Raises _Unusable when there is none at all."""
        from meshlib.xds.check import CHECK

        for channel in islice(self._open(wanted), ATTEMPTS):
            metadata = wanted.headers_to_add
            yield _WithMetadata(channel.unary_unary(CHECK), metadata) if metadata else channel.unary_unary(CHECK)

    def _open(self, wanted: ExternalAuthorization) -> Iterator[grpc.Channel]:
        config = _cluster(self._control.current, wanted)
        assert config.cluster is not None
        usable = [endpoint for endpoint in config.endpoints if endpoint.health in (Health.HEALTHY, Health.DEGRADED)]
        if not usable:
            raise _Unusable(f"{wanted.authority} has no healthy endpoints")
        usable.sort(key=lambda endpoint: (endpoint.priority, endpoint.health is Health.DEGRADED))
        first = [endpoint for endpoint in usable if endpoint.priority == usable[0].priority]
        turn = next(self._turn) % len(first)
        for endpoint in [*first[turn:], *first[:turn], *usable[len(first) :]]:
            tls = None if config.cluster.auto_mtls and not endpoint.mtls else config.cluster.tls
            if tls is None:
                yield self._channel(wanted, endpoint, None, "")
            else:
                for identity in sorted(tls.identities) if tls.mesh else [""]:
                    yield self._channel(wanted, endpoint, tls, identity)

    def _channel(
        self, wanted: ExternalAuthorization, endpoint: Endpoint, tls: UpstreamTls | None, identity: str
    ) -> grpc.Channel:
        generation = self._tls.generation if self._tls is not None and tls is not None and tls.mesh else 0
        key = (endpoint.key, wanted.authority, identity, generation)
        with self._lock:
            found = self._channels.get(key)
            if found is None:
                found = self._channels[key] = self._connect(wanted, endpoint, tls, identity)
                self._retire(generation)
            return found

    def _retire(self, generation: int) -> None:
        """Channels of the certificate before the last one are closed: what was asked over them has been answered by now."""
        for key in [key for key in self._channels if 0 < key[3] < generation - 1]:
            self._channels.pop(key).close()

    def _connect(
        self, wanted: ExternalAuthorization, endpoint: Endpoint, tls: UpstreamTls | None, identity: str
    ) -> grpc.Channel:
        import grpc

        options: list[tuple[str, Any]] = [*OPTIONS, ("grpc.default_authority", wanted.authority.rpartition(":")[0])]
        if tls is None:
            return grpc.insecure_channel(endpoint.key, options=options)
        if not tls.mesh:
            raise _Unusable(
                f"{wanted.authority} is outside of the mesh's identities: TLS mode SIMPLE or MUTUAL is for HTTP calls"
            )
        peer = SpiffeId.parse(identity)
        if self._tls is None or self._tls.material is None:
            raise _Unusable(f"{wanted.authority} is to be called with mTLS, and this process has no identity")
        if not peer.service_account:
            raise _Unusable(f"{identity} has no DNS name in its certificate: gRPC cannot verify it")
        material, roots = self._tls.material, self._tls.trust.roots.get(peer.trust_domain)
        if not roots:
            raise _Unusable(f"there are no roots for {identity}")
        credentials = grpc.ssl_channel_credentials(pem.encode(roots), material.key.pem(), material.chain_pem)
        name = f"{peer.service_account}.{peer.namespace}.{peer.trust_domain}"
        return grpc.secure_channel(endpoint.key, credentials, [*options, ("grpc.ssl_target_name_override", name)])


class _WithMetadata:
    """A method that is always called with the same metadata."""

    def __init__(self, method: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._method = method
        self._metadata = metadata

    def __call__(self, question: bytes, *, timeout: float | None) -> Any:
        return self._method(question, timeout=timeout, metadata=self._metadata)

    def future(self, question: bytes, *, timeout: float | None) -> Any:
        return self._method.future(question, timeout=timeout, metadata=self._metadata)


class _Deadline:
    """`timeout` seconds from now; 0: never."""

    def __init__(self, timeout: float) -> None:
        self._at = time.monotonic() + timeout if timeout else None

    def left(self, most: float | None = None) -> Any:
        """Seconds, at most `most`; None without any limit."""
        if self._at is None:
            return most
        left = max(self._at - time.monotonic(), 0.0)
        return left if most is None else min(left, most)


def _answered(wanted: ExternalAuthorization) -> Callable[[Snapshot], bool]:
    authority = wanted.authority
    return lambda snapshot: authority in snapshot.targets or authority in snapshot.broken or authority in snapshot.absent


def _cluster(snapshot: Snapshot, wanted: ExternalAuthorization) -> ClusterConfig:
    target = snapshot.targets.get(wanted.authority)
    if target is None:
        known = snapshot.broken.get(wanted.authority) or snapshot.absent.get(wanted.authority)
        raise _Unusable(f"{wanted.authority}: {known or 'the control service has not said where it is'}")
    config = target.clusters.get(wanted.cluster) or next(iter(target.clusters.values()), None)
    if config is None or config.cluster is None:
        raise _Unusable(f"{wanted.authority}: {config.error if config is not None else 'it has no cluster'}")
    return config


def _read(answer: bytes) -> AuthorizerAnswer:
    from meshlib.xds.check import read_check_response

    return read_check_response(answer)


def _rpc_error() -> type[Exception]:
    import grpc

    found: type[Exception] = grpc.RpcError
    return found


def _words(failure: Any) -> str:
    return f"{failure.code().name}: {failure.details()}"


def _is_unavailable(failure: Any) -> bool:
    import grpc

    return bool(failure.code() is grpc.StatusCode.UNAVAILABLE)
