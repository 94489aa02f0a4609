"""What instances say of themselves, when they lie: registrations of workloads, entries of Consul (T15)."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib_control.catalog.consul_mapping import agent_service, hosts_of, offers_of
from meshlib_control.catalog.leases import MAX_LABELS, MAX_TEXT, InvalidRegistration, Registration

ADDRESSES = {
    "10.0.0.7": True,
    "127.0.0.1": True,
    "fd00::7": True,
    "169.254.169.254": False,  # metadata services of clouds
    "fe80::1": False,
    "0.0.0.0": False,
    "::": False,
    "224.0.0.1": False,
    "ff02::1": False,
    "0x7f.1": False,
    "2130706433": False,
    "": False,
}


def registered(**changes: Any) -> Registration:
    return Registration(**{"instance_id": "i", "service": "reviews", "address": "10.0.0.7", "port": 9080, **changes})


@pytest.mark.parametrize(("address", "taken"), ADDRESSES.items())
def test_T15_addresses_of_registrations(address: str, taken: bool) -> None:
    if taken:
        assert registered(address=address).address == address
        return
    with pytest.raises(InvalidRegistration, match="address"):
        registered(address=address)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {f"k{number}": "v" for number in range(MAX_LABELS + 1)}},
        {"labels": {"k": "v" * (MAX_TEXT + 1)}},
        {"labels": {"k" * (MAX_TEXT + 1): "v"}},
        {"labels": {"": "v"}},
        {"labels": {"k": "\x1b[31m"}},
        {"labels": {"k\n": "v"}},
        {"locality": "a" * (3 * MAX_TEXT + 1)},
        {"locality": "a\nb"},
        {"protocol": "http\n"},
        {"protocol": "x" * 100},
        {"instance_id": "a\x1b"},
        {"service": "reviews.prod"},
        {"service": "*"},
        {"namespace": "default.svc"},
        {"port": 0},
        {"weight": 1 << 20},
    ],
    ids=str,
)
def test_T15_texts_and_numbers_of_registrations(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRegistration):
        registered(**changes)


def test_T15_what_is_usual_is_taken() -> None:
    labels = {"app": "reviews", "topology.kubernetes.io/zone": "eu-1a", "note": "grüße"}
    assert registered(labels=labels, locality="eu/eu-1/a", protocol="grpc", weight=3).labels == labels


def entry(**changes: Any) -> dict[str, Any]:
    service = {"ID": "1", "Service": "reviews", "Address": "10.0.0.7", "Port": 9080, "Meta": {}, "Tags": [], **changes}
    return {"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": service, "Checks": []}


@pytest.mark.parametrize(("address", "taken"), [*ADDRESSES.items(), ("reviews.internal", True), ("a b", False), ("a/b", False)])
def test_T15_addresses_of_consul(address: str, taken: bool) -> None:
    """An empty one stands for that of the node."""
    offers, problems = offers_of([entry(Address=address)], "cluster.local")
    assert [offer.instance.address for offer in offers] == ([address or "10.0.0.1"] if taken or not address else [])
    assert bool(problems) == (not taken and bool(address))


def test_T15_one_bad_entry_of_consul_hides_no_other() -> None:
    bad = [entry(Port="x"), entry(Service="a.b"), entry(Meta={"namespace": "../x"}), entry(Meta=7), {"Node": None}]
    offers, problems = offers_of([*bad, entry()], "cluster.local")
    assert (len(offers), len(problems)) == (1, len(bad))


def test_T15_labels_say_nothing_in_consul_that_the_registration_does_not() -> None:
    """Or a workload could make services of other namespaces known."""
    labels = {"namespace": "prod", "service-account": "admin", "tls-mode": "istio", "version": "v2"}
    written = agent_service("i", registered(labels=labels), ttl=1.0, deregister_after=1.0)
    assert written.tags == ("version=v2",)
    assert hosts_of(written.name, written.tags, "cluster.local") == [("reviews.default.svc.cluster.local", "default")]
