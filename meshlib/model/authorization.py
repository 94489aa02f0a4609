"""Who may do what: Envoy's RBAC as values, and the question to an external authorizer.

The tree keeps Envoy's meaning node by node; `meshlib.policy.authorization` makes predicates of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Union

from meshlib.model.route import HeaderMatch, StringMatch


@dataclass(frozen=True, slots=True)
class AllOf:
    """Envoy ``and_rules``, ``and_ids``; of nothing: true."""

    of: tuple[Matcher, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Envoy ``or_rules``, ``or_ids``; of nothing: false."""

    of: tuple[Matcher, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Envoy ``not_rule``, ``not_id``."""

    of: Matcher


@dataclass(frozen=True, slots=True)
class Always:
    """Envoy ``any``."""


@dataclass(frozen=True, slots=True)
class Header:
    """A request header, or ``:authority``, ``:method``, ``:path``."""

    match: HeaderMatch


@dataclass(frozen=True, slots=True)
class UrlPath:
    """The canonical path, without query."""

    match: StringMatch


@dataclass(frozen=True, slots=True)
class UriTemplate:
    """Envoy's ``uri_template``: ``*`` is one segment, ``**`` zero or more of them at the end."""

    template: str


@dataclass(frozen=True, slots=True)
class DestinationPort:
    port: int


class Address(Enum):
    """Which address of a request."""

    DESTINATION = "destination_ip"
    DIRECT_REMOTE = "direct_remote_ip"  # the socket's other end
    REMOTE = "remote_ip"  # the client, as trusted hops have forwarded it


@dataclass(frozen=True, slots=True)
class IpBlock:
    which: Address
    cidr: str  # "10.0.0.0/8", "::1/128"


@dataclass(frozen=True, slots=True)
class RequestedServerName:
    """SNI; "" without TLS."""

    match: StringMatch


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The verified peer's SPIFFE ID.  No match: any TLS connection with a verified peer."""

    match: StringMatch | None = None


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """On one value of the dynamic metadata: exactly one of the fields is set (Envoy ``ValueMatcher``)."""

    string: StringMatch | None = None
    one_of: ValueMatch | None = None  # the value is a list, and any element matches
    any_of: tuple[ValueMatch, ...] = ()
    present: bool | None = None  # False matches nothing (Envoy's own reading)
    boolean: bool | None = None
    number: float | None = None
    null: bool = False


@dataclass(frozen=True, slots=True)
class MetadataMatch:
    """Dynamic metadata: what other filters found out, claims of the token above all.  What is missing matches nothing."""

    filter: str  # "envoy.filters.http.jwt_authn"
    path: tuple[str, ...]  # ("payload", "iss")
    value: ValueMatch
    invert: bool = False


Matcher = Union[  # noqa: UP007  # the names are resolved later: the types refer to each other
    AllOf,
    AnyOf,
    Not,
    Always,
    Header,
    UrlPath,
    UriTemplate,
    DestinationPort,
    IpBlock,
    RequestedServerName,
    Authenticated,
    MetadataMatch,
]


class Action(Enum):
    """What it means that a policy matches."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    LOG = "LOG"  # Istio's AUDIT


@dataclass(frozen=True, slots=True)
class RbacPolicy:
    """Matches when one of its permissions and one of its principals do."""

    name: str  # "ns[foo]-policy[httpbin]-rule[0]"
    permission: Matcher
    principal: Matcher


@dataclass(frozen=True, slots=True)
class Rbac:
    """Policies in the order of their names; the first that matches is the one that is told.

    No policies at all: ALLOW denies everything, DENY nothing.
    """

    action: Action
    policies: tuple[RbacPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class RbacFilter:
    """Envoy's HTTP RBAC filter.  `rules` None: nothing is enforced.

    `shadow` is evaluated first and never enforced (dry run, and the condition of an external authorizer); its result is
    put into the metadata ``envoy.filters.http.rbac`` under `shadow_prefix`.
    """

    name: str
    rules: Rbac | None = None
    shadow: Rbac | None = None
    shadow_prefix: str = ""


@dataclass(frozen=True, slots=True)
class ExternalAuthorization:
    """Envoy's ``ext_authz`` filter (Istio's action CUSTOM).  Times in seconds, sizes in bytes.

    Asked only when `condition` holds.  Exactly one of `http_uri` and `grpc_authority` is set.
    """

    name: str
    cluster: str  # of the authorizer, a target of the mesh: "outbound|9000||ext-authz.foo.svc.cluster.local"
    authority: str  # "ext-authz.foo.svc.cluster.local:9000"
    grpc: bool = False
    path_prefix: str = ""  # HTTP: before the original path
    timeout: float = 600.0
    fail_open: bool = False
    status_on_error: int = 403
    condition: MetadataMatch | None = None
    max_request_bytes: int = 0  # 0: the body is not sent
    allow_partial_message: bool = False
    pack_as_bytes: bool = False
    allowed_headers: tuple[StringMatch, ...] = ()  # sent to the authorizer; gRPC: empty sends all
    headers_to_add: tuple[tuple[str, str], ...] = ()
    upstream_headers: tuple[StringMatch, ...] = ()  # of the authorizer's answer, on allow, to the application
    client_headers: tuple[StringMatch, ...] = ()  # of the authorizer's answer, on deny, to the client; empty: all
    client_headers_on_success: tuple[StringMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """What an authorizer wants of a header.  `append`: to the value that is there, in one line, with a comma."""

    name: str  # lower case
    value: bytes
    how: Literal["set", "append", "add_if_absent", "set_if_present"] = "set"


@dataclass(frozen=True, slots=True)
class AuthorizerAnswer:
    """What an external authorizer said.  `error`: why there is no answer that counts; then nothing else does.

    `headers` are for the request when it is allowed, and for the client when it is denied.
    """

    allowed: bool = False
    status: int = 403  # of the denial
    body: bytes = b""
    headers: tuple[HeaderEdit, ...] = ()
    headers_to_remove: tuple[str, ...] = ()
    response_headers: tuple[tuple[bytes, bytes], ...] = ()  # for the client, of an allowed request
    query_to_set: tuple[tuple[str, str], ...] = ()
    query_to_remove: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class BodyStart:
    """As much of a request's body as was read before an authorizer was asked; `complete`: there is no more."""

    data: bytes = b""
    complete: bool = True


NO_BODY = BodyStart()
