"""AuthorizationPolicy: Istio's rules (pkg/config/validation and pkg/config/security)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping

from meshlib_control.config import attributes
from meshlib_control.config.codes import NOT_SUPPORTED
from meshlib_control.config.kinds import AuthorizationPolicy
from meshlib_control.config.kinds.authorization_policy import Condition, From, Operation, Rule, Source, To
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate.workloads import check_target_references, check_workload_selector

DRY_RUN = "istio.io/dry-run"

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SEGMENT = re.compile(r"[A-Za-z0-9\-._~%!$&'()+,;:@=]+\Z")  # RFC 3986 pchar, without the asterisk
_DIGITS = re.compile(r"[0-9]+\Z")
_PREFIX_LENGTH = re.compile(r"(?:0|[1-9][0-9]{0,2})\Z")
_OF_PEER_OR_TOKEN = (
    "namespaces",
    "notNamespaces",
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
)

_LONGEST_IDENTITY = 400
"""Twice that, with every character escaped, leaves room in an expression of 1024 characters."""

Fault = Callable[[str], str | None]


def check_authorization_policy(spec: AuthorizationPolicy, namespace: str) -> Iterator[Problem]:
    """Istio's rules."""
    yield from under(("selector",), check_workload_selector(spec.selector))
    yield from check_target_references(spec.target_ref, spec.target_refs)
    yield from _check_action(spec)
    for index, rule in enumerate(spec.rules):
        yield from under(("rules", index), _check_rule(rule))
        if spec.action == "CUSTOM":
            yield from under(("rules", index), _check_custom_rule(rule))


def check_annotations(spec: AuthorizationPolicy, annotations: Mapping[str, str]) -> Iterator[Problem]:
    """The dry run: a boolean as Go reads it, with actions that have one."""
    value = annotations.get(DRY_RUN)
    if value is None:
        return
    if value not in _TRUE | _FALSE:
        yield Problem((DRY_RUN,), "MSH0009", f'{value!r} is neither true nor false; write {DRY_RUN}: "true"')
    elif spec.action not in ("ALLOW", "DENY"):
        yield Problem((DRY_RUN,), "MSH0160", f"{spec.action} has no dry run; only ALLOW and DENY have")


def is_dry_run(annotations: Mapping[str, str]) -> bool:
    """Whether a policy is evaluated and reported, and not enforced."""
    return annotations.get(DRY_RUN) in _TRUE


def _check_action(spec: AuthorizationPolicy) -> Iterator[Problem]:
    if spec.action != "CUSTOM":
        if spec.provider is not None:
            yield Problem(("provider",), "MSH0160", f"only CUSTOM asks a provider; {spec.action} decides by its rules alone")
        if spec.action != "ALLOW" and not spec.rules:
            message = f"{spec.action} without rules never matches and does nothing; write an empty rule {{}} for every request"
            yield Problem(("rules",), "MSH0143" if spec.action == "DENY" else "MSH0151", message)
        return
    if not spec.rules:
        yield Problem(("rules",), "MSH0143", "CUSTOM without rules never asks; write an empty rule {} to ask for every request")
    if spec.provider is None or not spec.provider.name:
        yield Problem(("provider",), "MSH0143", "CUSTOM needs provider.name: one of MeshConfig's extensionProviders")


def _check_custom_rule(rule: Rule) -> Iterator[Problem]:
    reason = "CUSTOM does not look at it; identities and tokens are the external authorizer's to judge"
    for index, item in enumerate(rule.from_ or ()):
        lists = _lists(item.source)
        for name in _OF_PEER_OR_TOKEN:
            if lists.get(name):
                yield Problem(("from", index, "source", name), "MSH0160", f"{name}: {reason}")
    for index, condition in enumerate(rule.when):
        if condition.key in ("source.namespace", "source.principal") or condition.key.startswith("request.auth."):
            yield Problem(("when", index, "key"), "MSH0160", f"{condition.key}: {reason}")


def _check_rule(rule: Rule) -> Iterator[Problem]:
    for name, items in (("from", rule.from_), ("to", rule.to)):
        if items is not None and not items:
            yield Problem((name,), "MSH0143", f"an empty list of {name} would match nothing; leave it out to match everything")
    for index, source in enumerate(rule.from_ or ()):
        yield from under(("from", index), _check_source(source))
    for index, operation in enumerate(rule.to or ()):
        yield from under(("to", index), _check_operation(operation))
    for index, condition in enumerate(rule.when):
        yield from under(("when", index), _check_condition(condition))


def _check_source(item: From) -> Iterator[Problem]:
    source = item.source
    if source is None:
        yield Problem(("source",), "MSH0143", "source is missing")
        return
    yield from under(("source",), _check_lists(source))
    if (source.service_accounts or source.not_service_accounts) and (
        source.principals or source.not_principals or source.namespaces or source.not_namespaces
    ):
        message = "serviceAccounts say namespace and account already; they exclude principals and namespaces"
        yield Problem(("source", "serviceAccounts"), "MSH0107", message)


def _check_operation(item: To) -> Iterator[Problem]:
    if item.operation is None:
        yield Problem(("operation",), "MSH0143", "operation is missing")
        return
    yield from under(("operation",), _check_lists(item.operation))


def _check_lists(element: Source | Operation) -> Iterator[Problem]:
    lists = _lists(element)
    if not any(lists.values()):
        what = "source" if isinstance(element, Source) else "operation"
        yield Problem((), "MSH0143", f"the {what} says nothing; give it a field, or leave it out to match everything")
    for name, values in lists.items():
        yield from under((name,), _check_values(values, *_FAULTS.get(name, ("", None))))


def _lists(element: Source | Operation | None) -> dict[str, tuple[str, ...]]:
    """The lists of an element by their names in YAML."""
    if element is None:
        return {}
    fields = zip(element.__struct_fields__, element.__struct_encode_fields__, strict=True)
    return {encoded: getattr(element, name) for name, encoded in fields}


def _check_values(values: tuple[str, ...], code: str, fault: Fault | None) -> Iterator[Problem]:
    for index, value in enumerate(values):
        if not value:
            yield Problem((index,), "MSH0143", "the value is empty; * stands for any value that is not")
        elif fault is not None and (message := fault(value)):
            yield Problem((index,), code, message)


def _check_condition(condition: Condition) -> Iterator[Problem]:
    fault = attributes.attribute_fault(condition.key)
    if fault:
        yield Problem(("key",), "MSH0124", fault)
    elif unreadable := attributes.unreadable_header(condition.key):
        yield Problem(("key",), NOT_SUPPORTED, unreadable)
    elif not condition.values and not condition.not_values:
        yield Problem(("values",), "MSH0143", f"neither values nor notValues say what {condition.key} should be")
    of_key = _FAULTS_OF_KEY.get(condition.key, ("", None))
    for name, values in (("values", condition.values), ("notValues", condition.not_values)):
        yield from under((name,), _check_values(values, *of_key))


def identity_fault(text: str) -> str | None:
    """An expression is made of it, whose length has a limit."""
    if len(text) > _LONGEST_IDENTITY:
        return f"{len(text)} characters; at most {_LONGEST_IDENTITY} are compared"
    return None


def port_fault(text: str) -> str | None:
    if _DIGITS.match(text) and int(text) <= 65535:
        return None
    return f"{text!r} is not a port; ports are numbers up to 65535, without wildcards"


def address_fault(text: str) -> str | None:
    """As strict as Go: no zones, and the length of a prefix is a plain number."""
    address, slash, length = text.partition("/")
    try:
        parsed = ipaddress.ip_address(address) if "%" not in address else None
    except ValueError:
        parsed = None
    if parsed is None or (slash and (not _PREFIX_LENGTH.match(length) or int(length) > parsed.max_prefixlen)):
        return f"{text!r} is neither an IP address nor a network such as 10.0.0.0/8"
    return None


def account_fault(text: str) -> str | None:
    namespace, slash, account = text.rpartition("/")
    if len(text) > _LONGEST_IDENTITY:
        return identity_fault(text)
    if "*" in text:
        return f"{text!r}: service accounts are compared whole, without wildcards; use principals for those"
    if "/" in namespace or not account or (slash and not namespace):
        return f"{text!r} is not a service account; write namespace/name, or name for the policy's own namespace"
    return None


def trust_domain_fault(text: str) -> str | None:
    if len(text) > _LONGEST_IDENTITY:
        return identity_fault(text)
    if text.count("*") > 1:
        return f"{text!r} has more than one asterisk; a trust domain may have one"
    if "/" in text:
        return f"{text!r} is not a trust domain; write it without spiffe:// and path"
    return None


def path_fault(text: str) -> str | None:
    """Templates: whole segments only, ``{**}`` the last of them, nothing else that is special beside them."""
    is_template = "{*}" in text or "{**}" in text
    if is_template and (not text.startswith("/") or "//" in text):
        return f"{text!r}: a path with {{*}} or {{**}} starts with a slash and has no empty segments"
    seen_rest = False
    for segment in text.strip("/").split("/"):
        if segment in ("{*}", "{**}"):
            if seen_rest:
                return f"{text!r}: after {{**}}, which takes any number of segments, no other template may come"
            seen_rest = segment == "{**}"
        elif "{" in segment or "}" in segment:
            return f"{text!r}: braces are for {{*}} and {{**}}, each a segment of its own"
        elif is_template and "*" in segment:
            return f"{text!r}: a path with {{*}} or {{**}} has no other wildcards"
        elif is_template and not _SEGMENT.match(segment):
            return f"{text!r}: {segment!r} is not a segment of a path"
    return None


_FAULTS: Mapping[str, tuple[str, Fault]] = {
    **dict.fromkeys(("principals", "notPrincipals", "namespaces", "notNamespaces"), ("MSH0105", identity_fault)),
    "ipBlocks": ("MSH0135", address_fault),
    "notIpBlocks": ("MSH0135", address_fault),
    "remoteIpBlocks": ("MSH0135", address_fault),
    "notRemoteIpBlocks": ("MSH0135", address_fault),
    "serviceAccounts": ("MSH0124", account_fault),
    "notServiceAccounts": ("MSH0124", account_fault),
    "trustDomains": ("MSH0124", trust_domain_fault),
    "notTrustDomains": ("MSH0124", trust_domain_fault),
    "ports": ("MSH0125", port_fault),
    "notPorts": ("MSH0125", port_fault),
    "paths": ("MSH0124", path_fault),
    "notPaths": ("MSH0124", path_fault),
}

_FAULTS_OF_KEY: Mapping[str, tuple[str, Fault]] = {
    **dict.fromkeys(attributes.ADDRESSES, ("MSH0135", address_fault)),
    **dict.fromkeys(("source.principal", "source.namespace"), ("MSH0105", identity_fault)),
    "destination.port": ("MSH0125", port_fault),
    "source.serviceAccount": ("MSH0124", account_fault),
    "source.trustDomain": ("MSH0124", trust_domain_fault),
}
