"""Issuers whose JWTs prove who a workload is: what an operator writes in the file of ``--jwt-issuers``.

    issuers:
    - issuer: https://kubernetes.default.svc.cluster.local
      audiences: [istio-ca]                     # the default
      jwks: {file: /etc/mesh/jwks.json}         # or {url: https://...}, or {inline: '{"keys": [...]}'}
      claims:                                   # each has to match, whole, for the token to say anything
        sub: "system:serviceaccount:{namespace}:{service_account}"
    - issuer: https://token.actions.githubusercontent.com
      audiences: [mesh]
      jwks: {url: https://token.actions.githubusercontent.com/.well-known/jwks}
      claims:
        repository: "acme/{service_account}"
        /job/environment: production            # a JSON pointer (RFC 6901) reaches into nested claims
      namespace: ci                             # what the claims do not say is said here

What a placeholder stands for is checked as a namespace or a service account: no claim can smuggle in another segment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import yaml

from meshlib_control.ca.claims import PLACEHOLDERS, ClaimPattern
from meshlib_control.ca.errors import IdentityRefused, IssuersInvalid

DEFAULT_AUDIENCE = "istio-ca"
DEFAULT_SUBJECT = "system:serviceaccount:{namespace}:{service_account}"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones only: who can check a token must not be able to make one."""
MAX_LIFETIME = 3600.0
LEEWAY = 60.0
MAX_FILE = 1 << 20

_FIELDS = {
    "issuer", "audiences", "jwks", "claims", "namespace", "serviceAccount", "allowedNamespaces", "algorithms", "maxLifetime",
    "leeway",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeySetSource:
    """Where the issuer's keys (JWKS, RFC 7517) are: exactly one of the three."""

    file: Path | None = None
    url: str = ""
    inline: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """One issuer.  `namespace` and `service_account`: what its claims do not say.  Times in seconds.

    `max_lifetime`: a token that is good for longer is refused, whoever signed it; `leeway`: between its clock and ours.
    """

    issuer: str
    jwks: KeySetSource
    audiences: tuple[str, ...] = (DEFAULT_AUDIENCE,)
    claims: tuple[ClaimPattern, ...] = (ClaimPattern("sub", DEFAULT_SUBJECT),)
    namespace: str = ""
    service_account: str = ""
    allowed_namespaces: frozenset[str] = frozenset()  # empty: all
    algorithms: tuple[str, ...] = ALGORITHMS
    max_lifetime: float = MAX_LIFETIME
    leeway: float = LEEWAY

    def names_in(self, claims: Mapping[str, object]) -> tuple[str, str]:
        """Namespace and service account.  Raises `IdentityRefused` when the claims do not say exactly one of each."""
        found = {"namespace": self.namespace, "service_account": self.service_account}
        for each in self.claims:
            value = each.value_in(claims)
            match = each.pattern.fullmatch(value) if isinstance(value, str) else None
            if match is None:
                raise IdentityRefused(f"claim {each.claim} is not {each.template!r}")
            for name, part in match.groupdict().items():
                if found[name] not in ("", part):
                    raise IdentityRefused(f"claim {each.claim} says another {name} than others")
                found[name] = part
        namespace, service_account = found["namespace"], found["service_account"]
        if self.allowed_namespaces and namespace not in self.allowed_namespaces:
            raise IdentityRefused(f"namespace {namespace!r} is not among the allowed ones of this issuer")
        return namespace, service_account


def read_issuers(path: Path) -> tuple[IssuerSettings, ...]:
    """Raises `IssuersInvalid` that names the file and the field."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            raise _Field("", f"it is larger than {MAX_FILE} bytes")
        document = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _issuers(document, path.parent)
    except OSError as error:
        _invalid(path, "", error.strerror or str(error))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        _invalid(path, "", f"it is no YAML: {error}")
    except _Field as error:
        _invalid(path, error.where, error.why)


class _Field(Exception):
    """A field that cannot be used."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(where, why)
        self.where = where
        self.why = why


def _issuers(document: object, folder: Path) -> tuple[IssuerSettings, ...]:
    content = _mapping(document, "")
    _known(content, {"issuers"}, "")
    found = content.get("issuers")
    if not isinstance(found, list) or not found:
        raise _Field("issuers", "expected a list of issuers")
    issuers = tuple(
        _issuer(_mapping(each, f"issuers[{index}]"), f"issuers[{index}]", folder) for index, each in enumerate(found)
    )
    for index, each in enumerate(issuers):
        if each.issuer in {before.issuer for before in issuers[:index]}:
            raise _Field(f"issuers[{index}].issuer", f"{each.issuer} is there twice")
    return issuers


def _issuer(content: Mapping[str, object], where: str, folder: Path) -> IssuerSettings:
    _known(content, _FIELDS, where)
    claims = _claims(content.get("claims", {"sub": DEFAULT_SUBJECT}), f"{where}.claims")
    settings = IssuerSettings(
        issuer=_text(content.get("issuer"), f"{where}.issuer"),
        jwks=_source(_mapping(content.get("jwks"), f"{where}.jwks"), f"{where}.jwks", folder),
        audiences=_texts(content.get("audiences", [DEFAULT_AUDIENCE]), f"{where}.audiences"),
        claims=claims,
        namespace=_text(content.get("namespace", ""), f"{where}.namespace", empty=True),
        service_account=_text(content.get("serviceAccount", ""), f"{where}.serviceAccount", empty=True),
        allowed_namespaces=frozenset(_texts(content["allowedNamespaces"], f"{where}.allowedNamespaces"))
        if "allowedNamespaces" in content
        else frozenset(),
        algorithms=_algorithms(content.get("algorithms", list(ALGORITHMS)), f"{where}.algorithms"),
        max_lifetime=_seconds(content.get("maxLifetime", MAX_LIFETIME), f"{where}.maxLifetime", most=86400.0),
        leeway=_seconds(content.get("leeway", LEEWAY), f"{where}.leeway", most=LEEWAY),
    )
    _check_complete(settings, where)
    return settings


def _check_complete(settings: IssuerSettings, where: str) -> None:
    """Every token that matches has to say one namespace and one service account."""
    named = {name for each in settings.claims for name in each.pattern.groupindex}
    for name, key in (("namespace", "namespace"), ("service_account", "serviceAccount")):
        fixed = getattr(settings, name)
        if name not in named and not fixed:
            raise _Field(f"{where}.{key}", f"no claim says it with {{{name}}}, so it has to be given here")
        if fixed and not re.fullmatch(PLACEHOLDERS[name], fixed):
            raise _Field(f"{where}.{key}", f"{fixed!r} is no {name.replace('_', ' ')}: expected lower-case DNS labels")
    if not settings.claims:
        raise _Field(f"{where}.claims", "at least one claim has to be matched, else every token of the issuer is everybody")


def _claims(content: object, where: str) -> tuple[ClaimPattern, ...]:
    patterns = []
    for claim, template in _mapping(content, where).items():
        try:
            patterns.append(ClaimPattern(claim, _text(template, f"{where}.{claim}")))
        except ValueError as error:
            raise _Field(f"{where}.{claim}", str(error)) from error
    return tuple(patterns)


def _source(content: Mapping[str, object], where: str, folder: Path) -> KeySetSource:
    _known(content, {"file", "url", "inline"}, where)
    if len(content) != 1:
        raise _Field(where, "expected exactly one of file, url and inline")
    ((kind, value),) = content.items()
    text = _text(value, f"{where}.{kind}")
    if kind == "url":
        if not text.startswith("https://"):
            raise _Field(f"{where}.url", "expected https://: whoever can change the keys can be anybody")
        return KeySetSource(url=text)
    return KeySetSource(file=folder / text) if kind == "file" else KeySetSource(inline=text)


def _algorithms(content: object, where: str) -> tuple[str, ...]:
    names = _texts(content, where)
    for name in names:
        if name not in ALGORITHMS:
            raise _Field(where, f"{name!r} is not one of {', '.join(ALGORITHMS)}")
    return names


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _Field(where, "expected a mapping")
    return value


def _known(content: Mapping[str, object], fields: set[str], where: str) -> None:
    for key in content:
        if key not in fields:
            raise _Field(f"{where}.{key}".lstrip("."), f"unknown; expected one of {', '.join(sorted(fields))}")


def _text(value: object, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or (not value and not empty):
        raise _Field(where, "expected a text")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _Field(where, "expected a list of texts")
    return tuple(_text(each, f"{where}[{index}]") for index, each in enumerate(value))


def _seconds(value: object, where: str, *, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise _Field(where, f"expected seconds, from 0 to {most:g}")
    return float(value)


def _invalid(path: Path, where: str, why: str) -> NoReturn:
    raise IssuersInvalid(
        "the JWT issuers cannot be used",
        where=f"{path}, {where}" if where else str(path),
        why=why,
        next_step="Correct the file of --jwt-issuers.",
    )
