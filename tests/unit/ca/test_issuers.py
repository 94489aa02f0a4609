"""The file of JWT issuers, and what its templates make of claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib_control.ca.claims import ClaimPattern
from meshlib_control.ca.errors import IdentityRefused, IssuersInvalid
from meshlib_control.ca.issuers import IssuerSettings, KeySetSource, read_issuers

GOOD = """
issuers:
- issuer: https://kubernetes.default.svc.cluster.local
  jwks: {file: keys.json}
- issuer: https://ci.example.test
  audiences: [mesh, other]
  jwks: {url: https://ci.example.test/keys}
  claims:
    repository: "acme/{service_account}"
    /job/environment: production
  namespace: ci
  allowedNamespaces: [ci]
  algorithms: [RS256]
  maxLifetime: 600
  leeway: 5
"""


def read(tmp_path: Path, text: str) -> tuple[IssuerSettings, ...]:
    (tmp_path / "issuers.yaml").write_text(text)
    return read_issuers(tmp_path / "issuers.yaml")


def test_issuers_are_read(tmp_path: Path) -> None:
    kubernetes, ci = read(tmp_path, GOOD)
    assert kubernetes == IssuerSettings(
        "https://kubernetes.default.svc.cluster.local", KeySetSource(file=tmp_path / "keys.json")
    )
    assert kubernetes.audiences == ("istio-ca",)
    assert ci == IssuerSettings(
        issuer="https://ci.example.test",
        jwks=KeySetSource(url="https://ci.example.test/keys"),
        audiences=("mesh", "other"),
        claims=(ClaimPattern("repository", "acme/{service_account}"), ClaimPattern("/job/environment", "production")),
        namespace="ci",
        allowed_namespaces=frozenset({"ci"}),
        algorithms=("RS256",),
        max_lifetime=600.0,
        leeway=5.0,
    )


ISSUER = "issuers:\n- issuer: https://a.test\n  jwks: {url: https://a.test/keys}\n"


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("", "", "expected a mapping"),
        ("issuers: {", "", "is no YAML"),
        ("issuers: []", "issuers", "expected a list of issuers"),
        ("issuer: x", "issuer", "unknown; expected one of issuers"),
        ("issuers: [x]", r"issuers\[0\]", "expected a mapping"),
        ("issuers:\n- jwks: {url: https://a.test}\n", r"issuers\[0\].issuer", "expected a text"),
        ("issuers:\n- issuer: https://a.test\n", r"issuers\[0\].jwks", "expected a mapping"),
        ("issuers:\n- issuer: a\n  jwks: {}\n", r"issuers\[0\].jwks", "exactly one of file, url and inline"),
        ("issuers:\n- issuer: a\n  jwks: {file: a, url: b}\n", r"issuers\[0\].jwks", "exactly one of"),
        ("issuers:\n- issuer: a\n  jwks: {uri: a}\n", r"issuers\[0\].jwks.uri", "unknown; expected one of file, inline, url"),
        ("issuers:\n- issuer: a\n  jwks: {url: http://a.test}\n", r"issuers\[0\].jwks.url", "expected https://"),
        (ISSUER + "  audience: x\n", r"issuers\[0\].audience", "unknown; expected one of"),
        (ISSUER + "  audiences: x\n", r"issuers\[0\].audiences", "expected a list of texts"),
        (ISSUER + "  audiences: []\n", r"issuers\[0\].audiences", "expected a list of texts"),
        (ISSUER + "  audiences: [1]\n", r"issuers\[0\].audiences\[0\]", "expected a text"),
        (ISSUER + "  algorithms: [HS256]\n", r"issuers\[0\].algorithms", "'HS256' is not one of RS256"),
        (ISSUER + "  algorithms: [none]\n", r"issuers\[0\].algorithms", "'none' is not one of"),
        (ISSUER + "  maxLifetime: forever\n", r"issuers\[0\].maxLifetime", "expected seconds"),
        (ISSUER + "  maxLifetime: 86401\n", r"issuers\[0\].maxLifetime", "from 0 to 86400"),
        (ISSUER + "  leeway: 61\n", r"issuers\[0\].leeway", "from 0 to 60"),
        (ISSUER + "  leeway: true\n", r"issuers\[0\].leeway", "expected seconds"),
        (ISSUER + "  claims: {sub: 'ns:{namespace}'}\n", r"issuers\[0\].serviceAccount", "no claim says it"),
        (ISSUER + "  claims: {sub: 'sa:{service_account}'}\n", r"issuers\[0\].namespace", "no claim says it"),
        (ISSUER + "  claims: {}\n  namespace: a\n  serviceAccount: b\n", r"issuers\[0\].claims", "at least one claim"),
        (ISSUER + "  claims: {sub: '{namespace}{service_account}'}\n", r"issuers\[0\].claims.sub", "kept apart by text"),
        (ISSUER + "  claims: {sub: '{service_account}-{namespace}'}\n", r"issuers\[0\].claims.sub", "kept apart by text"),
        (ISSUER + "  claims: {sub: '{pod}'}\n", r"issuers\[0\].claims.sub", "{pod} is unknown"),
        (ISSUER + "  claims: {sub: '{namespace}:{namespace}'}\n", r"issuers\[0\].claims.sub", "there twice"),
        (ISSUER + "  claims: {sub: '{namespace'}\n", r"issuers\[0\].claims.sub", "a brace without its other one"),
        (ISSUER + "  claims: {sub: 1}\n", r"issuers\[0\].claims.sub", "expected a text"),
        (ISSUER + "  claims: {sub: x}\n  namespace: A/b\n  serviceAccount: c\n", r"issuers\[0\].namespace", "is no namespace"),
        (ISSUER + ISSUER.partition("\n")[2], r"issuers\[1\].issuer", "is there twice"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_file_and_field(tmp_path: Path, text: str, where: str, why: str) -> None:
    with pytest.raises(IssuersInvalid, match=rf"issuers\.yaml(, {where})?\): .*{why}(?s:.*)Correct the file"):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IssuersInvalid, match=r"missing\.yaml.*No such file"):
        read_issuers(tmp_path / "missing.yaml")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(IssuersInvalid, match="larger than"):
        read(tmp_path, "#" * (1 << 20) + "\n" + ISSUER)


KUBERNETES = IssuerSettings("k8s", KeySetSource(inline="x"))
NESTED = IssuerSettings(
    "k8s",
    KeySetSource(inline="x"),
    claims=(
        ClaimPattern("/kubernetes.io/namespace", "{namespace}"),
        ClaimPattern("/kubernetes.io/serviceaccount/name", "{service_account}"),
        ClaimPattern("sub", "system:serviceaccount:{namespace}:{service_account}"),
    ),
)


def test_claims_name_a_workload() -> None:
    assert KUBERNETES.names_in({"sub": "system:serviceaccount:default:reviews"}) == ("default", "reviews")
    assert KUBERNETES.names_in({"sub": "system:serviceaccount:default:re.views-2"}) == ("default", "re.views-2")


def test_claims_that_agree_name_a_workload() -> None:
    claims = {
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "reviews"}},
        "sub": "system:serviceaccount:default:reviews",
    }
    assert NESTED.names_in(claims) == ("default", "reviews")
    with pytest.raises(IdentityRefused, match="says another namespace"):
        NESTED.names_in({**claims, "sub": "system:serviceaccount:admin:reviews"})


INJECTIONS = [
    "system:serviceaccount:default:../admin",
    "system:serviceaccount:default/sa/admin:reviews",
    "system:serviceaccount:default:reviews/",
    "system:serviceaccount:default:reviews:admin",
    "system:serviceaccount:default:",
    "system:serviceaccount::reviews",
    "system:serviceaccount:default:reviews\n",
    "\nsystem:serviceaccount:default:reviews",
    "system:serviceaccount:default:reviews\x00",
    "system:serviceaccount:default:Reviews",
    "system:serviceaccount:default:rev iews",
    "system:serviceaccount:default:rеviews",  # noqa: RUF001 - a Cyrillic letter, on purpose
    "system:serviceaccount:.:..",
    "system:serviceaccount:default:%2e%2e",
    "system:serviceaccount:default.admin:reviews",
    "system:serviceaccount:default:-reviews",
    "system:serviceaccount:default:reviews.",
    "system:serviceaccount:" + "a" * 64 + ":reviews",
    "xsystem:serviceaccount:default:reviews",
    "systemXserviceaccount:default:reviews",
    "ns/../admin",
    "",
]


@pytest.mark.parametrize("subject", INJECTIONS)
def test_T03_claim_injection(subject: str) -> None:
    with pytest.raises(IdentityRefused):
        KUBERNETES.names_in({"sub": subject})


@pytest.mark.parametrize("value", [None, 1, True, ["system:serviceaccount:default:reviews"], {"a": "b"}])
def test_T03_a_claim_that_is_no_text_says_nothing(value: object) -> None:
    with pytest.raises(IdentityRefused):
        KUBERNETES.names_in({"sub": value})


def test_a_json_pointer_reaches_into_claims() -> None:
    pattern = ClaimPattern("/a~1b/c~0d", "x")
    assert pattern.value_in({"a/b": {"c~d": "x"}}) == "x"
    others: list[dict[str, object]] = [{}, {"a/b": "x"}, {"a/b": {}}, {"a/b": ["x"]}]
    for claims in others:
        assert pattern.value_in(claims) is None


def test_namespaces_may_be_limited() -> None:
    limited = IssuerSettings("k8s", KeySetSource(inline="x"), allowed_namespaces=frozenset({"default"}))
    assert limited.names_in({"sub": "system:serviceaccount:default:a"}) == ("default", "a")
    with pytest.raises(IdentityRefused, match="is not among the allowed ones"):
        limited.names_in({"sub": "system:serviceaccount:kube-system:a"})
