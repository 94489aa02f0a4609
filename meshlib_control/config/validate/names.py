"""Names and their syntax: hosts, labels, ports, headers, addresses.  The predicates answer with what is wrong, or None."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping

from meshlib_control.config.problems import Problem

_LABEL = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?\Z")
_WILDCARD_LABEL = re.compile(r"(?:\*|(?:\*|\*-)?[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?)\Z")
_KEY_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
_RESOURCE_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_HEADER = re.compile(r"[-_A-Za-z0-9]+\Z")
_CLAIM = re.compile(r"@request\.auth\.claims(?:\..+|(?:\[[^\[\]]+\])+)\Z")
_LONGEST_HOST = 255
_LONGEST_LABEL = 63


def is_dns_label(text: str) -> bool:
    """RFC 1123, upper case allowed."""
    return len(text) <= _LONGEST_LABEL and bool(_LABEL.match(text))


def is_ip(text: str) -> bool:
    """Whether it is an address literal, IPv4 or IPv6, without brackets and zone."""
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def fqdn_fault(name: str) -> str | None:
    """What keeps `name` from being a DNS name.  One trailing dot is fine."""
    return _length_fault(name) or _labels_fault(name, name)


def host_fault(name: str) -> str | None:
    """As `fqdn_fault`, with a wildcard allowed in the first label: ``*.example.com``, ``*-east.example.com``, ``*``."""
    fault = _length_fault(name)
    if fault:
        return fault
    first, dot, rest = name.partition(".")
    if len(first) > _LONGEST_LABEL or not _WILDCARD_LABEL.match(first):
        return f"{name!r} is not a host name: {_about_label(first)}"
    return _labels_fault(rest, name) if dot else None


def _length_fault(name: str) -> str | None:
    if not name:
        return "the host is empty"
    if len(name) > _LONGEST_HOST:
        return f"the host has {len(name)} characters; at most {_LONGEST_HOST} are allowed"
    return None


def _labels_fault(rest: str, name: str) -> str | None:
    labels = rest.split(".")
    if labels[-1].lstrip("+-").isdecimal():
        return f"{name!r} is not a host name: its last label is a number"
    if labels[-1] == "" and len(labels) > 1:
        labels.pop()
    for label in labels:
        if not is_dns_label(label):
            return f"{name!r} is not a host name: {_about_label(label)}"
    return None


def _about_label(label: str) -> str:
    if not label:
        return "it has an empty label"
    if len(label) > _LONGEST_LABEL:
        return f"the label {label[:20]}... has {len(label)} characters; at most {_LONGEST_LABEL} are allowed"
    if "*" in label:
        return "a wildcard may only be the start of the first label"
    return f"the label {label!r} may have letters, digits and inner dashes only"


def hosts_overlap(one: str, other: str) -> bool:
    """Whether some name is matched by both; either may start with ``*``."""
    if one.startswith("*") and other.startswith("*"):
        shorter, longer = sorted((one[1:], other[1:]), key=len)
        return longer.endswith(shorter)
    if one.startswith("*"):
        return other.endswith(one[1:])
    if other.startswith("*"):
        return one.endswith(other[1:])
    return one == other


def host_is_within(name: str, of: str) -> bool:
    """Whether `of` matches everything that `name` does."""
    if not of.startswith("*"):
        return name == of
    if name.startswith("*"):
        return len(name) >= len(of) and name[1:].endswith(of[1:])
    return name.endswith(of[1:])


def resource_name_fault(name: str) -> str | None:
    """Kubernetes' rule for names: a DNS subdomain in lower case."""
    if len(name) <= 253 and _RESOURCE_NAME.match(name):
        return None
    return f"{name!r} is not a name: lower-case letters, digits, inner dashes and dots, at most 253 characters"


def namespace_fault(name: str) -> str | None:
    """Kubernetes' rule for namespaces: a DNS label in lower case."""
    if _NAMESPACE.match(name):
        return None
    return f"{name!r} is not a namespace: lower-case letters, digits and inner dashes, at most {_LONGEST_LABEL} characters"


def label_key_fault(key: str) -> str | None:
    """``name`` or ``prefix.example.com/name``."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _RESOURCE_NAME.match(prefix.lower())):
        return f"{key!r} is not a label key: what stands before the slash is not a DNS name"
    if _KEY_NAME.match(name):
        return None
    return (
        f"{key!r} is not a label key: letters, digits and inner dashes, dots, underscores, at most {_LONGEST_LABEL} characters"
    )


def check_labels(labels: Mapping[str, str], code: str = "MSH0129") -> Iterator[Problem]:
    """Keys and values of labels."""
    for key, value in labels.items():
        fault = label_key_fault(key)
        if fault:
            yield Problem((key,), code, fault)
        if not _LABEL_VALUE.match(value):
            allowed = f"letters, digits and inner dashes, dots, underscores, at most {_LONGEST_LABEL} characters"
            yield Problem((key,), code, f"{value!r} is not a label value: {allowed}")


def check_port(number: int) -> Iterator[Problem]:
    """1 to 65535."""
    if not 1 <= number <= 65535:
        yield Problem((), "MSH0125", f"{number} is not a port; ports are 1 to 65535")


def header_name_fault(name: str) -> str | None:
    """Of a header that is matched."""
    if not name:
        return "the header's name is empty"
    if not _HEADER.match(name):
        return f"{name!r} is not a header name: letters, digits, dashes and underscores only"
    return None


def is_claim(name: str) -> bool:
    """Whether a "header" stands for a JWT claim: ``@request.auth.claims.group``."""
    return bool(_CLAIM.match(name))


def address_fault(text: str) -> str | None:
    """What keeps it from being an address or a network in CIDR notation."""
    try:
        if "/" in text:
            ipaddress.ip_network(text, strict=False)
        else:
            ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is not an IP address or a network such as 10.0.0.0/8"
    return None


def check_gateway_names(names: Collection[str]) -> Iterator[Problem]:
    """``mesh``, ``name``, ``namespace/name`` or the old form ``name.namespace.svc.cluster.local``."""
    for index, name in enumerate(names):
        namespace, slash, gateway = name.partition("/")
        if not slash:
            fault = fqdn_fault(name)
            if fault:
                yield Problem((index,), "MSH0130", f"{name!r} is not the name of a gateway: write mesh, name or namespace/name")
            elif "." in name:
                old = name.split(".")
                yield Problem((index,), "MSH0150", f"{name} is the old form; write {old[1]}/{old[0]}")
        elif not is_dns_label(namespace) or not is_dns_label(gateway):
            yield Problem((index,), "MSH0130", f"{name!r} is not namespace/name; wildcards are not allowed")


def check_export_to(export_to: tuple[str, ...], namespace: str, *, allow_none: bool = False) -> Iterator[Problem]:
    """``.``, ``*`` or namespaces; `allow_none`: also ``~``, nobody (ServiceEntry)."""
    seen: set[str] = set()
    for index, entry in enumerate(export_to):
        target = namespace if entry == "." else entry
        if target in seen:
            also = f" (. stands for {namespace})" if entry == "." or "." in export_to else ""
            yield Problem((index,), "MSH0128", f"{entry} is already in the list{also}")
        seen.add(target)
        if entry == "~" and not allow_none:
            yield Problem((index,), "MSH0128", "~ (nobody) is for ServiceEntry only")
        elif entry not in (".", "*", "~") and not is_dns_label(entry):
            yield Problem((index,), "MSH0128", f"{entry!r} is neither . (this namespace) nor * (all) nor a namespace's name")
    if len(seen) > 1:
        for special, meaning in (("*", "everybody"), ("~", "nobody")):
            if special in seen:
                message = f"{special} means {meaning} and must stand alone"
                yield Problem((export_to.index(special),), "MSH0128", message)
