"""Istio's samples for Bookinfo do what they say, end to end: a control service, eleven servers behind mTLS, counted pages.

The files are read from beside the checkout; samples that are not there are given here in our own words.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import pytest

from meshlib import errors
from tests.support import backends
from tests.support.bookinfo import PORT, VERSIONS, Bookinfo, Page
from tests.support.certificates import Authority
from tests.support.control import eventually
from tests.support.zero_trust import SecureMesh

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "corpora" / "bookinfo"
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not SAMPLES.is_dir(), reason="Istio's samples are not beside this checkout"),
]

YAML = {"content-type": "application/yaml"}

Shares = Mapping[str, float]
"""Of the pages that have the part at all: which share has it from which version, or failing how."""


def evenly(service: str) -> Shares:
    return dict.fromkeys(VERSIONS[service], 1 / len(VERSIONS[service]))


def only(version: str) -> Shares:
    return {version: 1.0}


@dataclass(frozen=True)
class Row:
    """A sample with what it says.  `shown`: by user and part; parts that are not named are spread over all versions."""

    sample: str
    says: str
    shown: Mapping[str, Mapping[str, Shares]] = field(default_factory=dict)
    pages: int = 40
    """For each user."""


def routed(**subsets: str) -> str:
    """VirtualServices that send all calls of each service to one subset."""
    return "".join(
        f"---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}}}\n"
        f"spec: {{hosts: [{host}], http: [{{route: [{{destination: {{host: {host}, subset: {version}}}}}]}}]}}\n"
        for host, version in subsets.items()
    )


def reviews(http: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec: {{hosts: [reviews], http: [{http}]}}
"""


def split(**weights: int) -> str:
    shares = ", ".join(
        f"{{destination: {{host: reviews, subset: {name}}}, weight: {value}}}" for name, value in weights.items()
    )
    return reviews(f"{{route: [{shares}]}}")


OWN: Mapping[str, str] = {
    "all-v1": routed(productpage="v1", reviews="v1", ratings="v1", details="v1"),
    "reviews-50-v3": split(v1=50, v3=50),
    "reviews-80-20": split(v1=80, v2=20),
    "reviews-90-10": split(v1=90, v2=10),
    "reviews-jason-v2-v3": reviews(
        "{match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: reviews, subset: v2}}]}, "
        "{route: [{destination: {host: reviews, subset: v3}}]}"
    ),
    "ratings-test-abort": """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {abort: {percentage: {value: 100.0}, httpStatus: 500}}
    route: [{destination: {host: ratings, subset: v1}}]
  - route: [{destination: {host: ratings, subset: v1}}]
""",
    "ratings-db": routed(reviews="v3", ratings="v2"),
    "ratings-mysql": routed(reviews="v3", ratings="v2-mysql"),
}

ROWS = (
    Row("destination-rule-all", "Subsets alone route nothing."),
    Row("destination-rule-all-mtls", "Mutual TLS by the mesh's certificates, which is what there is anyway."),
    Row("destination-rule-reviews", "Reviews are balanced at random.", pages=100),
    Row(
        "fault-injection-details-v1",
        "Every call of details fails with 555.",
        {"": {"details": only("555")}},
    ),
    Row("virtual-service-details-v2", "Details are those of v2.", {"": {"details": only("v2")}}),
    Row(
        "virtual-service-ratings-mysql-vm",
        "Reviews are those of v3, and its ratings come from the database of a virtual machine.",
        {"": {"reviews": only("v3"), "ratings": only("v2-mysql-vm")}},
    ),
    Row(
        "virtual-service-reviews-test-v2",
        "Jason tests v2, everybody else has v1.",
        {"": {"reviews": only("v1")}, "jason": {"reviews": only("v2")}, "jasonx": {"reviews": only("v1")}},
    ),
    Row("virtual-service-reviews-v3", "Reviews are those of v3.", {"": {"reviews": only("v3")}}),
    Row(
        "all-v1",
        "Version v1 of everything; its reviews ask for no ratings.",
        {"": {"details": only("v1"), "reviews": only("v1"), "ratings": {}}},
    ),
    Row("reviews-50-v3", "Half of the reviews are those of v3.", {"": {"reviews": {"v1": 0.5, "v3": 0.5}}}, pages=200),
    Row("reviews-80-20", "One in five reviews is one of v2.", {"": {"reviews": {"v1": 0.8, "v2": 0.2}}}, pages=200),
    Row("reviews-90-10", "One in ten reviews is one of v2.", {"": {"reviews": {"v1": 0.9, "v2": 0.1}}}, pages=200),
    Row(
        "reviews-jason-v2-v3",
        "Jason has v2, everybody else v3.",
        {"": {"reviews": only("v3")}, "jason": {"reviews": only("v2")}},
    ),
    Row(
        "ratings-test-abort",
        "Jason gets no ratings, everybody else those of v1; reviews do not break.",
        {"": {"ratings": only("v1")}, "jason": {"ratings": only("500")}},
    ),
    Row(
        "ratings-db", "Ratings come from v2, with its document database.", {"": {"reviews": only("v3"), "ratings": only("v2")}}
    ),
    Row("ratings-mysql", "Ratings come from v2 with MySQL.", {"": {"reviews": only("v3"), "ratings": only("v2-mysql")}}),
)


@pytest.fixture(scope="module")
def bookinfo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bookinfo]:
    with SecureMesh(tmp_path_factory.mktemp("town")) as town, Bookinfo(town) as running:
        yield running


@pytest.fixture
def clean(bookinfo: Bookinfo) -> Iterator[Bookinfo]:
    yield bookinfo
    bookinfo.reset()


def text_of(sample: str) -> str:
    text = OWN.get(sample) or (SAMPLES / f"{sample}.yaml").read_text()
    if "kind: DestinationRule" in text:
        return text
    return (SAMPLES / "destination-rule-all.yaml").read_text() + "\n---\n" + text


def off(pages: list[Page], part: str, shares: Shares) -> list[str]:
    """Which counts are more than three standard deviations from what they should be; with a share of 1 or 0, any."""
    seen = Counter(page[part] for page in pages if part in page)
    calls = seen.total()
    wrong = [f"{part} {version}: {seen[version]}" for version in seen if version not in shares]
    for version, share in shares.items():
        if abs(seen[version] - calls * share) > 3 * sqrt(calls * share * (1 - share)):
            wrong.append(f"{part} {version}: {seen[version]} of {calls}, not {share:.0%}")
    return wrong


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sample)
def test_a_sample_does_what_it_says(row: Row, clean: Bookinfo) -> None:
    """The sentence of its row."""
    clean.apply(text_of(row.sample))
    for user, shown in (row.shown or {"": {}}).items():
        pages = clean.pages(row.pages, user)
        wrong = [each for part in VERSIONS for each in off(pages, part, shown.get(part, evenly(part)))]
        assert not wrong, f"{row.says} Not for {user or 'visitors'}: {wrong}"


def test_only_jason_waits_for_ratings(clean: Bookinfo) -> None:
    """virtual-service-ratings-test-delay: seven seconds, for which productpage has no patience; nobody else notices."""
    clean.apply(text_of("virtual-service-ratings-test-delay"))
    clean.apply((SAMPLES / "virtual-service-reviews-test-v2.yaml").read_text())
    began = time.monotonic()
    assert [page["reviews"] for page in clean.pages(3, "jason")] == ["TimeoutExceeded"] * 3
    assert time.monotonic() - began >= 3.0
    assert Counter(page["reviews"] for page in clean.pages(30)) == {"v1": 30}
    with pytest.raises(errors.TimeoutExceeded) as raised:
        clean.visitor.request("GET", f"http://ratings:{PORT}/", headers={"end-user": "jason"}, timeout=0.2)
    assert "DI" in raised.value.flags
    assert clean.visitor.request("GET", f"http://ratings:{PORT}/", headers={"end-user": "j"}, timeout=60.0).json() == {
        "ratings": "v1"
    }


def test_a_gateway_is_refused_by_name_and_nothing_changes(clean: Bookinfo) -> None:
    """bookinfo-gateway: who lets visitors in from outside is no part of the mesh; a rule for that is never half-obeyed."""
    with clean.town.control.http() as client:
        answer = client.post("/v1/config", content=(SAMPLES / "bookinfo-gateway.yaml").read_text(), headers=YAML)
    assert answer.status_code == 422
    assert {finding["code"] for finding in answer.json()["findings"]} == {"MSH0006", "MSH0108"}
    assert Counter(page["productpage"] for page in clean.pages(20)) == {"v1": 20}


def test_rules_for_the_connections_of_databases_are_refused_by_name(clean: Bookinfo) -> None:
    """A database's protocol is not HTTP: applications connect to it by themselves, and a rule would hold for nothing."""
    rule = "spec: {hosts: [mongodb], tcp: [{match: [{port: 27017}], route: [{destination: {host: mongodb}}]}]}"
    with clean.town.control.http() as client:
        text = f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: mongodb}}\n{rule}\n"
        answer = client.post("/v1/config", content=text, headers=YAML)
    assert answer.status_code == 422
    assert [(each["code"], each["field"]) for each in answer.json()["findings"]] == [("MSH0108", "spec.tcp")]


EGRESS = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: googleapis}
spec:
  hosts: [www.googleapis.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}]
  resolution: DNS
  endpoints: [{address: 127.0.0.1, ports: {https: %(port)d, http: 1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rewrite-port-for-googleapis}
spec:
  hosts: [www.googleapis.com]
  http: [{match: [{port: 80}], route: [{destination: {host: www.googleapis.com, port: {number: 443}}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: originate-tls-for-googleapis}
spec:
  host: www.googleapis.com
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE, caCertificates: %(ca)s}}]
"""


def test_plain_calls_leave_the_mesh_encrypted(clean: Bookinfo, tmp_path: Path) -> None:
    """egress-rule-google-apis: the application says http, the rule moves it to the port for https, TLS begins in meshlib."""
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("www.googleapis.com"))
    with backends.running(["googleapis"]) as servers:
        server = servers["googleapis"]
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        clean.apply(EGRESS % {"port": server.port, "ca": authority.file})
        url = "http://www.googleapis.com/books/v1/volumes?q=isbn:0486424618"

        def answered() -> bool:
            try:
                return clean.visitor.request("GET", url, timeout=30.0).content == b"googleapis"
            except errors.RouteError:  # as long as the host is unknown
                return False

        eventually(answered, what="the way out")
        assert server.requests[-1][:2] == ("GET", "/books/v1/volumes?q=isbn:0486424618")
        assert server.requests[-1][2]["host"] == "www.googleapis.com"
