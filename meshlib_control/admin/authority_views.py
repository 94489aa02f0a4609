"""Documents of the certificate authority's API, for both of its ends."""

from __future__ import annotations

from msgspec import Struct


class RootView(Struct, frozen=True):
    """`sha256`: of the root certificate (DER), what workloads may pin.  Times in RFC 3339."""

    sha256: str
    phase: str
    since: str
    root_expires: str
    signing_expires: str
    renewable: bool  # the root's key is here, so the signing certificate renews itself


class BanView(Struct, frozen=True):
    identity: str
    time: str
    by: str = ""
    reason: str = ""


class AuthorityView(Struct, frozen=True):
    trust_domain: str
    epoch: int
    issuing: bool
    roots: list[RootView]
    bans: list[BanView]
    problems: list[str]


class BundleView(Struct, frozen=True):
    """`sha256`: of each root in `pem`, in the same order."""

    trust_domain: str
    pem: str
    sha256: list[str]


class StepRequest(Struct, frozen=True):
    """`prepare`, `activate`, `taint`, `revoke`; `restore` gives an emptied store its authority back.

    `chain`, `key`: for `prepare`, PEM files on the control service's machine, of an authority of one's own; keys are not sent.
    """

    step: str
    chain: str = ""
    key: str = ""


class BanRequest(Struct, frozen=True):
    identity: str
    reason: str = ""
    by: str = ""


class IssuedView(Struct, frozen=True):
    serial: str
    identity: str
    caller: str
    issued: str
    expires: str


class IssuedList(Struct, frozen=True):
    """The newest first."""

    certificates: list[IssuedView]


class TokenRequest(Struct, frozen=True):
    """`ttl` in seconds; `cidr`: where it may be used from; empty: anywhere."""

    service_account: str
    namespace: str = "default"
    ttl: float = 600.0
    cidr: str = ""
    author: str = ""


class TokenCreated(Struct, frozen=True):
    """The only time that the token itself is shown."""

    id: str
    token: str
    identity: str
    expires: str


class TokenView(Struct, frozen=True):
    """`used`: when, empty for not yet; `by`: from which address."""

    id: str
    identity: str
    expires: str
    cidr: str = ""
    used: str = ""
    by: str = ""


class TokenList(Struct, frozen=True):
    tokens: list[TokenView]
