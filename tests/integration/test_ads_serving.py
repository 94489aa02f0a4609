"""What a process that serves learns from a real discovery service: the policies of its ports, and whom to believe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from meshlib.model.listener import MtlsMode
from meshlib.model.snapshot import Snapshot
from meshlib.model.workload import Workload
from meshlib.policy.backoff import Backoff
from meshlib.runtime.ads import AdsStream
from meshlib.runtime.snapshots import SnapshotStore
from meshlib_control.catalog.model import Instance
from meshlib_control.compile import World
from meshlib_control.compile.trust import Trust
from tests.support.certificates import TrustDomain, bundles
from tests.support.configuring import INSECURE, registered, world
from tests.support.control_plane import DEADLINE, ControlPlane

OLD, NEW, PARTNER = TrustDomain(), TrustDomain(), TrustDomain("partner.test")

POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: reviews}
spec: {selector: {matchLabels: {app: reviews}}, mtls: {mode: %s}}
"""


def state(mode: str = "STRICT", *domains: TrustDomain, account: str = "reviews", trust: Trust | None = None) -> World:
    roots = {domain.name: domain.root.pem.decode() for domain in domains or (OLD,)}
    instance = Instance("1", "10.0.0.1", 80, service_account=account, mtls=True)
    return world(POLICY % mode, services=[registered("reviews", instance)], trust=trust or Trust(roots=roots))


@contextmanager
def process(control: ControlPlane, *ports: int, app: str = "reviews", identity: bool = True) -> Iterator[AdsStream]:
    workload = Workload(service=app, instance=f"{app}-1", labels={"app": app})
    quick = Backoff(initial=0.05, cap=0.2)
    stream = AdsStream(control.address, workload, SnapshotStore(), rng=Random(1), backoff=quick, trust=identity)
    try:
        for port in ports:
            stream.serve_port(port)
        yield stream
    finally:
        stream.close()


def shows(stream: AdsStream, check: Callable[[Snapshot], object]) -> None:
    assert stream.store.wait(lambda snapshot, _: bool(check(snapshot)), DEADLINE)


def mode_of(port: int = 9080) -> Callable[[Snapshot], MtlsMode | None]:
    return lambda snapshot: snapshot.inbound[port].mtls if port in snapshot.inbound else None


def test_ports_get_what_holds_for_this_workload_and_follow_changes() -> None:
    with ControlPlane(state("STRICT")) as control, process(control, 9080) as strict, process(control, 9080, app="x") as other:
        shows(strict, lambda snapshot: mode_of()(snapshot) is MtlsMode.STRICT)
        shows(other, lambda snapshot: mode_of()(snapshot) is MtlsMode.PERMISSIVE)
        strict.serve_port(9081)
        shows(strict, lambda snapshot: mode_of(9081)(snapshot) is MtlsMode.STRICT)
        control.publish(state("DISABLE"))
        shows(strict, lambda snapshot: mode_of()(snapshot) is mode_of(9081)(snapshot) is MtlsMode.DISABLE)
        assert other.store.current.inbound[9080].mtls is MtlsMode.PERMISSIVE


def test_trust_follows_the_authority() -> None:
    with ControlPlane(state("STRICT", OLD)) as control, process(control, 9080) as stream:
        shows(stream, lambda snapshot: snapshot.trust == bundles(OLD))
        control.publish(state("STRICT", NEW, PARTNER))
        shows(stream, lambda snapshot: snapshot.trust == bundles(NEW, PARTNER))


def test_trust_once_known_does_not_go_away() -> None:
    """The control service forgets its roots: nobody is believed less, and nobody more."""
    with ControlPlane(state("STRICT", OLD)) as control, process(control, 9080) as stream:
        shows(stream, lambda snapshot: snapshot.trust == bundles(OLD))
        control.publish(state("DISABLE", trust=Trust()))
        shows(stream, lambda snapshot: mode_of()(snapshot) is MtlsMode.DISABLE)
        assert stream.store.current.trust == bundles(OLD)


def test_a_mesh_without_identities() -> None:
    with ControlPlane(state("STRICT", trust=INSECURE)) as control, process(control, 9080, identity=False) as stream:
        stream.request("reviews")
        shows(stream, lambda snapshot: mode_of()(snapshot) is MtlsMode.DISABLE and "reviews" in snapshot.targets)
        (config,) = stream.store.current.targets["reviews"].clusters.values()
        assert config.cluster is not None
        assert (config.cluster.tls, stream.store.current.trust) == (None, None)


def test_who_may_answer_follows_the_instances() -> None:
    with ControlPlane(state(account="reviews")) as control, process(control) as stream:
        stream.request("reviews")
        shows(stream, lambda snapshot: _identities(snapshot) == {OLD.id("reviews")})
        control.publish(state(account="other"))
        shows(stream, lambda snapshot: _identities(snapshot) == {OLD.id("other")})


def _identities(snapshot: Snapshot) -> frozenset[str]:
    target = snapshot.targets.get("reviews")
    configs = target.clusters.values() if target else ()
    return frozenset(
        name for config in configs if config.cluster and config.cluster.tls for name in config.cluster.tls.identities
    )
