"""Certificates that a peer may show, and what is to become of it: the X.509 rules of SPIFFE (XV-1 to XV-15) as one table.

For any end of any connection: each case is a function of the two trust domains that the verifier knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

from tests.support.certificates import CLIENT, SERVER, Minted, TrustDomain, mint

Case = Callable[[TrustDomain, TrustDomain], Minted | None]
"""Of the own domain and a federated one, whose root is known as well."""

DAY = timedelta(days=1)


def _good(own: TrustDomain, federated: TrustDomain) -> Minted:
    return own.leaf("alice")


def _from_the_root(own: TrustDomain, federated: TrustDomain) -> Minted:
    return mint(own.root, uris=[own.id("alice")])


def _without_extended_usage(own: TrustDomain, federated: TrustDomain) -> Minted:
    return mint(own.signer, uris=[own.id("alice")], extended=None)


def _federated(own: TrustDomain, federated: TrustDomain) -> Minted:
    return federated.leaf("alice")


ACCEPTED: Mapping[str, Case] = {
    "XV-1 an SVID": _good,
    "XV-2 signed by the root": _from_the_root,
    "XV-3 without extended key usage": _without_extended_usage,
    "XV-4 of a federated domain": _federated,
}


def _leaf(own: TrustDomain, federated: TrustDomain, **odd: object) -> Minted:
    """A good one but for `odd`."""
    return mint(own.signer, **{"uris": [own.id("alice")], **odd})  # type: ignore[arg-type]


def _untrusted(own: TrustDomain, federated: TrustDomain) -> Minted:
    """Same names all the way up, other keys."""
    return TrustDomain(own.name).leaf("alice")


def _other_domain(own: TrustDomain, federated: TrustDomain) -> Minted:
    return mint(own.signer, uris=["spiffe://td3/ns/default/sa/alice"])


def _merged_bundles(own: TrustDomain, federated: TrustDomain) -> Minted:
    return mint(own.signer, uris=[federated.id("alice")])


def _two_uris(own: TrustDomain, federated: TrustDomain) -> Minted:
    return mint(own.signer, uris=[own.id("alice"), own.id("bob")])


def _workload_as_signer(own: TrustDomain, federated: TrustDomain) -> Minted:
    """An intermediate with the name of a workload."""
    signer = mint(own.root, uris=[own.id("ca")], ca=True, path_length=0, name="odd")
    return mint(signer, uris=[own.id("alice")])


def _nothing(own: TrustDomain, federated: TrustDomain) -> None:
    return None


REFUSED: Mapping[str, Case] = {
    "XV-5 an unknown CA": _untrusted,
    "XV-6 expired": partial(_leaf, begins=-2 * DAY, ends=-DAY),
    "XV-7 not yet valid": partial(_leaf, begins=DAY, ends=2 * DAY),
    "XV-8 a CA": partial(_leaf, ca=True, usages=("digital_signature",)),
    "XV-9 may sign certificates": partial(_leaf, usages=("digital_signature", "key_cert_sign")),
    "XV-10 may sign revocation lists": partial(_leaf, usages=("digital_signature", "crl_sign")),
    "XV-11 two URI SANs": _two_uris,
    "XV-12 no URI SAN": partial(_leaf, uris=(), dns=("alice.default.td1",)),
    "XV-13 a URI that is no SPIFFE ID": partial(_leaf, uris=("https://td1/ns/default/sa/alice",)),
    "XV-14 no path": partial(_leaf, uris=("spiffe://td1",)),
    "XV-15 a domain that the CA is not of": _other_domain,
    "XF-2 another known domain's name": _merged_bundles,
    "I02 NUL in the SAN": partial(_leaf, uris=("spiffe://td1/ns/default/sa/alice\0.evil",)),
    "I04 for servers only": partial(_leaf, extended=(SERVER,)),
    "I04 for clients only": partial(_leaf, extended=(CLIENT,)),
    "no digitalSignature": partial(_leaf, usages=("key_agreement",)),
    "signed by a workload": _workload_as_signer,
    "no certificate": _nothing,
}
