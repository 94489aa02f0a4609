"""Sidecar: what of the mesh a workload sees, and how much it lets in at once."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from meshlib_control.config.kinds.common import Destination, Element, UInt32
from meshlib_control.config.kinds.destination_rule import ConnectionPool
from meshlib_control.config.kinds.service_entry import LabelSelector

CaptureMode = Literal["DEFAULT", "IPTABLES", "NONE"]
TLSVersion = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]
OneOrTwo = Meta(min_length=1, max_length=2)


class SidecarPort(Element, frozen=True):
    """A port of a listener."""

    number: UInt32 = 0
    """1 to 65535."""
    protocol: str | None = None
    """Accepted as Istio does; what a port speaks is said by the service that has it."""
    name: str | None = None
    """A name for people."""
    target_port: UInt32 | None = None
    """Has no meaning here."""


class EgressListener(Element, frozen=True):
    """Hosts that may be called."""

    hosts: tuple[str, ...]
    """`namespace/host`. The namespace: a name, `*` any, `.` the workload's own, `~` none; `~name` takes away what others give.
    The host: a name, `*.suffix`, or `*`."""
    port: SidecarPort | None = None
    """Only calls to this port, which is then for these hosts alone: unless given, all ports that no other listener names."""
    bind: str | None = None
    """The address that Envoy listens on."""
    capture_mode: CaptureMode = "DEFAULT"
    """How connections reach Envoy. `DEFAULT` and `IPTABLES`: calls that the process makes through the mesh."""


class TLSCertificate(Element, frozen=True):
    """Files of one certificate."""

    server_certificate: str | None = None
    """File of the certificate."""
    private_key: str | None = None
    """File of the key."""
    ca_certificates: str | None = None
    """File of the authorities that vouch for clients."""


class ServerTLSSettings(Element, frozen=True):
    """TLS of a listener that is not the mesh's own."""

    https_redirect: bool = False
    """For gateways."""
    mode: Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"] = "PASSTHROUGH"
    """Who proves what."""
    server_certificate: str | None = None
    """File of the certificate."""
    private_key: str | None = None
    """File of the key."""
    ca_certificates: str | None = None
    """File of the authorities that vouch for clients."""
    ca_crl: str | None = None
    """File of the revocation list."""
    credential_name: str | None = None
    """Secret that holds them."""
    credential_names: Annotated[tuple[str, ...], OneOrTwo] = ()
    """Secrets that hold them."""
    ca_cert_credential_name: str | None = None
    """Secret with the authorities."""
    tls_certificates: Annotated[tuple[TLSCertificate, ...], OneOrTwo] = ()
    """Several certificates."""
    subject_alt_names: tuple[str, ...] = ()
    """Names that clients must have."""
    verify_certificate_spki: tuple[str, ...] = ()
    """Keys that clients must have."""
    verify_certificate_hash: tuple[str, ...] = ()
    """Certificates that clients must have."""
    min_protocol_version: TLSVersion = "TLS_AUTO"
    """Lowest version."""
    max_protocol_version: TLSVersion = "TLS_AUTO"
    """Highest version."""
    cipher_suites: tuple[str, ...] = ()
    """Ciphers, by OpenSSL's names."""
    ecdh_curves: tuple[str, ...] = ()
    """Groups of the key exchange."""
    insecure_skip_verify: bool | None = None
    """Do not verify clients."""


class IngressListener(Element, frozen=True):
    """A port that the workload is called on."""

    port: SidecarPort
    """Which one."""
    bind: str | None = None
    """The address that Envoy listens on."""
    capture_mode: CaptureMode = "DEFAULT"
    """How connections reach Envoy."""
    default_endpoint: str | None = None
    """Where Envoy hands requests on to."""
    tls: ServerTLSSettings | None = None
    """TLS that is not the mesh's own."""
    connection_pool: ConnectionPool | None = None
    """Limits of this port, instead of `inboundConnectionPool`."""


class SidecarOutboundTrafficPolicy(Element, frozen=True):
    """Calls to hosts that the workload does not see."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"
    """`ALLOW_ANY`: the application's own client makes the call; `REGISTRY_ONLY`: it is refused."""
    egress_proxy: Destination | None = None
    """A service that such calls go to."""


class Sidecar(Element, frozen=True):
    """What of the mesh a workload sees, and how much it lets in at once.

    The oldest one whose labels a workload has holds for it; else the oldest of its namespace without `workloadSelector`; else
    that of the root namespace.
    """

    workload_selector: LabelSelector | None = None
    """Which workloads of the namespace: all unless given."""
    ingress: tuple[IngressListener, ...] = ()
    """Ports that the workload is called on: here, their limits."""
    egress: tuple[EgressListener, ...] = ()
    """What it may call: everything that is exported to it unless given."""
    inbound_connection_pool: ConnectionPool | None = None
    """How much it lets in at once: `http.http2MaxRequests` requests in the application and waiting for it, of which
    `tcp.maxConnections` in the application, and `http.http1MaxPendingRequests` waiting. Beyond that: 503."""
    outbound_traffic_policy: SidecarOutboundTrafficPolicy | None = None
    """Calls to hosts that it does not see: the mesh's policy unless given."""
