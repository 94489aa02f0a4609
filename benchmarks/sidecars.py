"""Against a pair of real Envoy sidecars with mTLS: `python -m benchmarks.sidecars [--json FILE] [--rounds N]`.

What is added, counted alike for both: for meshlib, the native call with the whole flow against the same engine on a plain
connection; for Envoy, that engine through client Envoy -> mTLS -> server Envoy against the same engine direct.  The native call
is measured twice: to a plain uvicorn (what a client gains or loses), and to one whose application carries the mesh's middleware
(both sides of the mesh, as the pair of Envoys is).  Peers are interleaved in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.harness import ROOT, Figures, Ratio, free_port, process, report, round_of, table, uvicorn
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.http.aio import AsyncPool
from meshlib.runtime.http.limits import Limits
from meshlib.runtime.http.settings import PoolSettings
from meshlib.testing import service, static_mesh
from meshlib.wire.request import encode_head

REQUESTS = {1: 1200, 32: 3200}
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
HTTP = "type.googleapis.com/envoy.extensions.filters"


def envoy_binary() -> Path:
    """On PATH, or where `make tools` puts it."""
    found = shutil.which("envoy")
    return Path(found) if found else ROOT / ".tools" / "envoy" / "bin" / "envoy"


def certificates(folder: Path) -> None:
    """ca.pem, cert.pem, key.pem: one workload certificate is enough for both ends."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(name: str, public: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench ca")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            uri = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/bench")
            builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    (folder / "ca.pem").write_bytes(
        certificate("bench ca", ca_key.public_key(), authority=True).public_bytes(serialization.Encoding.PEM)
    )
    (folder / "cert.pem").write_bytes(
        certificate("bench", key.public_key(), authority=False).public_bytes(serialization.Encoding.PEM)
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(listen: int, upstream: int, *, downstream_tls: Any = None, upstream_tls: Any = None, rbac: bool = False) -> Any:
    """One Envoy: HTTP in, HTTP out, mTLS on the side that is asked for, Istio's default retries."""
    filters: list[Any] = [{"name": "router", "typed_config": {"@type": f"{HTTP}.http.router.v3.Router"}}]
    if rbac:
        principal = {"authenticated": {"principal_name": {"prefix": "spiffe://cluster.local/"}}}
        policies = {"callers": {"permissions": [{"any": True}], "principals": [principal]}}
        filters.insert(
            0, {"name": "rbac", "typed_config": {"@type": f"{HTTP}.http.rbac.v3.RBAC", "rules": {"policies": policies}}}
        )
    route = {"cluster": "up", "timeout": "0s"}
    if upstream_tls:
        route |= {"retry_policy": {"retry_on": "connect-failure,refused-stream,unavailable,cancelled", "num_retries": 2}}  # type: ignore[dict-item]
    manager = {
        "@type": f"{HTTP}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": filters,
        "route_config": {
            "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}]
        },
    }
    chain: dict[str, Any] = {"filters": [{"name": "hcm", "typed_config": manager}]}
    cluster: dict[str, Any] = {
        "name": "up",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "up",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
        },
    }
    if downstream_tls:
        chain["transport_socket"] = {"name": "tls", "typed_config": downstream_tls}
    if upstream_tls:
        cluster["transport_socket"] = {"name": "tls", "typed_config": upstream_tls}
    return {
        "static_resources": {
            "listeners": [{"name": "in", "address": address(listen), "filter_chains": [chain]}],
            "clusters": [cluster],
        }
    }


@contextlib.contextmanager
def sidecars(application: int) -> Iterator[tuple[int, list[int]]]:
    """(port of the client's sidecar, process ids of both)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates(folder)
        common = {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(folder / "cert.pem")},
                    "private_key": {"filename": str(folder / "key.pem")},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(folder / "ca.pem")}},
        }
        server_tls = {
            "@type": f"{TLS}DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": common,
        }
        client_tls = {"@type": f"{TLS}UpstreamTlsContext", "common_tls_context": common}
        inbound, outbound = free_port(), free_port()
        (folder / "server.json").write_text(json.dumps(bootstrap(inbound, application, downstream_tls=server_tls, rbac=True)))
        (folder / "client.json").write_text(json.dumps(bootstrap(outbound, inbound, upstream_tls=client_tls)))
        command = [str(envoy_binary()), "--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"]
        with (
            process([*command, str(folder / "server.json")], inbound) as server,
            process([*command, str(folder / "client.json")], outbound) as client,
        ):
            yield outbound, [server.pid, client.pid]


class Engine:
    """The bare engine on a plain connection: what both sides are counted from."""

    def __init__(self, port: int) -> None:
        self._pool = AsyncPool(Endpoint("127.0.0.1", port), PoolSettings.of(Cluster("bench"), Limits()))

    async def call(self) -> None:
        head = encode_head("GET", "/x", (), authority="reviews", body_length=0)
        response = await self._pool.send(head, b"", whole=True)  # as the native call does
        await response.read()

    def close(self) -> None:
        self._pool.close()


async def measure(
    direct: int, meshed: int, proxied: int, pids: dict[str, list[int]], rounds: int
) -> dict[tuple[str, int], Figures]:
    mesh = static_mesh(service("reviews", [f"127.0.0.1:{meshed}"]), service("plain", [f"127.0.0.1:{direct}"]))
    engine, sidecar = Engine(direct), Engine(proxied)
    peers = {
        "engine, direct": engine.call,
        "native call, client side": lambda: mesh.arequest("GET", "http://plain/x"),
        "native call, both sides": lambda: mesh.arequest("GET", "http://reviews/x"),
        "engine, Envoy pair with mTLS": sidecar.call,
    }
    figures: dict[tuple[str, int], Figures] = {}
    for concurrency, requests in REQUESTS.items():
        for peer in peers.values():
            await round_of(peer, 128, concurrency, [], Figures())
        for _ in range(rounds):
            for name, peer in peers.items():
                await round_of(peer, requests, concurrency, pids[name], figures.setdefault((name, concurrency), Figures()))
    engine.close()
    sidecar.close()
    await mesh.aclose_loop()
    mesh.close()
    await asyncio.sleep(0)
    return figures


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--rounds", type=int, default=7)
    options = arguments.parse_args()
    if not envoy_binary().exists():
        raise SystemExit("Envoy is neither on PATH nor in .tools; run `make tools`")
    os.environ.pop("MESHLIB_SERVICE", None)
    with (
        uvicorn() as (plain, plain_pid),
        uvicorn("benchmarks.app:meshed") as (meshed, meshed_pid),
        sidecars(plain) as (proxied, proxies),
    ):
        pids = {
            "engine, direct": [plain_pid],
            "native call, client side": [plain_pid],
            "native call, both sides": [meshed_pid],
            "engine, Envoy pair with mTLS": [plain_pid, *proxies],
        }
        figures = uvloop.run(measure(plain, meshed, proxied, pids, options.rounds))
    print("against a pair of Envoy sidecars (level: in flight)")
    details = table({f"{name} @{level}": found for (name, level), found in figures.items()})

    def median(name: str, level: int, figure: str) -> float:
        return figures[name, level].median(figure)

    base = median("engine, direct", 1, "p50")
    client = max(median("native call, client side", 1, "p50") - base, 0.0)
    both = max(median("native call, both sides", 1, "p50") - base, 0.0)
    theirs = median("engine, Envoy pair with mTLS", 1, "p50") - base
    cpu = {
        level: median("native call, both sides", level, "cpu") / median("engine, Envoy pair with mTLS", level, "cpu")
        for level in REQUESTS
    }
    print(f"    added at the median: client {client * 1e6:.0f} µs, both {both * 1e6:.0f} µs, Envoy pair {theirs * 1e6:.0f} µs")
    ratios = [
        Ratio("added latency, native call / Envoy pair, 1 in flight", client / theirs, 0.1, at_least=False),
        Ratio("added latency, with the server's middleware / Envoy pair", both / theirs, 0.1, at_least=False),
        Ratio("total CPU per request, both sides / Envoy pair, 1 in flight", cpu[1], 0.5, at_least=False),
        Ratio("total CPU per request, both sides / Envoy pair, 32 in flight", cpu[32], 0.5, at_least=False),
    ]
    report("sidecars", ratios, details, options.json)


if __name__ == "__main__":
    main()
