"""Real Envoy on the real discovery service: trust, modes and identities change while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from meshlib_control.catalog.model import Instance
from meshlib_control.compile import World
from meshlib_control.compile.inbound import proxy_listener_name
from meshlib_control.compile.listeners import PROXY_LISTENER
from meshlib_control.compile.trust import Trust
from tests.integration.test_ads_clients import AnyPort
from tests.support import backends, envoy, mtlsclient
from tests.support.certificates import Minted, TrustDomain
from tests.support.configuring import registered, world
from tests.support.control_plane import ControlPlane, until

pytestmark = pytest.mark.envoy

OLD, NEW = TrustDomain(), TrustDomain()
"""One trust domain before and after its root was replaced."""

MODE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: %s}}
"""


def state(*domains: TrustDomain, mode: str = "STRICT", instance: Instance | None = None) -> World:
    roots = "".join(domain.root.pem.decode() for domain in domains)
    services = [registered("reviews", *([instance] if instance else []))]
    return world(MODE % mode, services=services, trust=Trust(roots={"cluster.local": roots}))


@dataclass
class Sidecar:
    control: ControlPlane
    process: envoy.Envoy
    application: backends.Backend

    def status(self, leaf: Minted | None) -> int:
        """Of a request to what the sidecar protects, with a certificate or in plaintext; 0: refused."""
        port = self.process.listener_port(proxy_listener_name(9080))
        tls = mtlsclient.context(leaf, [OLD.root, NEW.root]) if leaf else None
        try:
            with mtlsclient.Client(port, tls) as client:
                return client.ask("/").status
        except mtlsclient.Rejected:
            return 0

    def call(self, host: str) -> int:
        """Status of a call that goes out through the sidecar."""
        with httpx.Client(trust_env=False, timeout=20.0) as client:
            address = f"http://127.0.0.1:{self.process.listener_port(PROXY_LISTENER)}/"
            return client.get(address, headers={"host": host}).status_code

    def types(self) -> dict[str, str]:
        return {name: kind.state for client in self.control.status().clients for name, kind in client.types.items()}


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    certificate, key = OLD.leaf("reviews").write(tmp_path, "workload")
    tls = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    secrets = tmp_path / "sds.yaml"
    secrets.write_text(json.dumps({"resources": [{"@type": kind, "name": "default", "tls_certificate": tls}]}))
    with backends.running(["reviews"]) as servers, ControlPlane(compile_with=AnyPort()) as control:
        bootstrap = envoy.ads_bootstrap(control.port, delta=request.param)
        ports = [f"9080:{servers['reviews'].port}"]
        bootstrap["node"]["metadata"] = {"NAMESPACE": "default", "PORTS": ports, "IDENTITY_FILE": str(secrets)}
        control.publish(state(OLD))
        with envoy.running(bootstrap, tmp_path / "envoy") as process:
            yield Sidecar(control, process, servers["reviews"])


def test_trust_and_modes_change(sidecar: Sidecar) -> None:
    old, new = OLD.leaf("alice"), NEW.leaf("alice")
    sidecar.process.until(lambda: sidecar.status(old) == 200, "the first answer")
    assert (sidecar.status(new), sidecar.status(None)) == (0, 0)
    until(lambda: set(sidecar.types().values()) == {"SYNCED"}, "everything ACKed")
    assert "SDS" in sidecar.types()
    sidecar.control.publish(state(OLD, NEW))
    sidecar.process.until(lambda: sidecar.status(new) == 200, "trust in the new root")
    assert sidecar.status(old) == 200
    sidecar.control.publish(state(NEW))
    sidecar.process.until(lambda: sidecar.status(old) == 0, "the end of trust in the old root")
    assert sidecar.status(new) == 200
    sidecar.control.publish(state(NEW, mode="PERMISSIVE"))
    sidecar.process.until(lambda: sidecar.status(None) == 200, "plaintext")
    assert sidecar.status(new) == 200
    sidecar.control.publish(state(NEW))
    sidecar.process.until(lambda: sidecar.status(None) == 0, "the end of plaintext")
    assert sidecar.status(new) == 200
    assert "NACK" not in sidecar.types().values()


def test_who_may_answer_follows_the_instances(sidecar: Sidecar) -> None:
    """The sidecar calls itself.  A changed cluster waits neither for its endpoints nor for its secrets."""
    port = sidecar.process.listener_port(proxy_listener_name(9080))

    def instance(account: str) -> Instance:
        return Instance("1", "127.0.0.1", port, service_account=account, mtls=True)

    sidecar.control.publish(state(OLD, instance=instance("reviews")))
    sidecar.process.until(lambda: sidecar.call("reviews") == 200, "the first answer")
    before = sidecar.process.stat("cluster_manager.cluster_modified")
    sidecar.control.publish(state(OLD, instance=instance("ratings")))
    sidecar.process.until(lambda: sidecar.call("reviews") == 503, "another identity")
    assert sidecar.process.stat("cluster_manager.cluster_modified") > before
    sidecar.control.publish(state(OLD, instance=instance("reviews")))
    sidecar.process.until(lambda: sidecar.call("reviews") == 200, "the identity that it has")
    assert sidecar.process.stat("cluster.outbound|80||reviews.default.svc.cluster.local.init_fetch_timeout") == 0
    assert "NACK" not in sidecar.types().values()
