"""Headers that speak of identities or steer proxies, and that nobody outside may set.

Who sent a request is proved by its connection's certificate alone.  What a client writes about that is taken out before any
policy looks, and never reaches the application: ``x-forwarded-client-cert`` (Envoy's SANITIZE), what Envoy tells itself
(``cleanInternalHeaders``: no address counts as internal), everything in ``x-mesh-``, and whatever the client nominated in
``connection``, so that nobody can make one reader see a header and another one not (RFC 9110 section 7.6.1).
"""

from __future__ import annotations

import ipaddress

from meshlib.model.inbound import ServerRequest

PREFIX = b"x-mesh-"

UNTRUSTED = frozenset(
    {
        b"x-forwarded-client-cert",
        b"x-envoy-internal",
        b"x-envoy-external-address",
        b"x-envoy-ip-tags",
        b"x-envoy-original-path",
        b"x-envoy-original-host",
        b"x-envoy-original-url",
        b"x-envoy-original-dst-host",
        b"x-envoy-decorator-operation",
        b"x-envoy-downstream-service-cluster",
        b"x-envoy-downstream-service-node",
        b"x-envoy-peer-metadata",
        b"x-envoy-peer-metadata-id",
        b"x-envoy-force-trace",
        b"x-envoy-hedge-on-per-try-timeout",
        b"x-envoy-max-retries",
        b"x-envoy-retry-on",
        b"x-envoy-retry-grpc-on",
        b"x-envoy-retriable-header-names",
        b"x-envoy-retriable-status-codes",
        b"x-envoy-upstream-alt-stat-name",
        b"x-envoy-upstream-rq-timeout-alt-response",
        b"x-envoy-upstream-rq-timeout-ms",
        b"x-envoy-upstream-rq-per-try-timeout-ms",
    }
)
"""Not ``x-envoy-attempt-count`` and ``x-envoy-expected-rq-timeout-ms``: callers set them, and they can only shorten things."""

HOP_BY_HOP = frozenset({b"close", b"keep-alive", b"upgrade", b"te", b"trailer", b"http2-settings", b"proxy-connection"})
"""What a client may nominate: it means the connection, and servers deal with it."""

FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
"""What no request can do without, nominated or not."""


def is_untrusted(name: bytes) -> bool:
    """Whether a header of this name says what only proxies and certificates may say."""
    return name in UNTRUSTED or name.startswith(PREFIX)


def nominated(request: ServerRequest) -> frozenset[bytes]:
    """Names that the request calls hop-by-hop though they are not."""
    options = b",".join(value for name, value in request.headers if name == b"connection").lower().split(b",")
    return frozenset(option.strip() for option in options) - HOP_BY_HOP - {b""}


def untrusted(request: ServerRequest) -> frozenset[bytes]:
    """Names of the headers of this request that are not to be seen by anybody."""
    fields = request.fields
    found = {name for name in fields if is_untrusted(name)}
    return frozenset(found | nominated(request).intersection(fields))


def without(request: ServerRequest, names: frozenset[bytes]) -> ServerRequest:
    """The request with some headers gone."""
    return request.with_headers([pair for pair in request.headers if pair[0] not in names])


def client_address(request: ServerRequest, trusted_hops: int) -> str:
    """Where the request comes from: the last of `trusted_hops` proxies, counted from here, wrote it into ``x-forwarded-for``.

    Empty when there are none, when the header is too short for that many, or when what is there is no address: then the
    connection's other end is all that is known (Envoy's ``use_remote_address`` with ``xff_num_trusted_hops``).
    """
    if trusted_hops <= 0:
        return ""
    values = b",".join(value for name, value in request.headers if name == b"x-forwarded-for").split(b",")
    if len(values) < trusted_hops:
        return ""
    text = values[-trusted_hops].strip().decode("latin-1")
    try:
        return str(ipaddress.ip_address(text)) if "%" not in text else ""
    except ValueError:
        return ""
