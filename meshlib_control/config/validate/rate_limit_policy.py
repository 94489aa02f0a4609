"""RateLimitPolicy: what makes sense on which side, and what can be counted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshlib_control.config.attributes import claim_path
from meshlib_control.config.kinds import HTTPMatchRequest
from meshlib_control.config.kinds.rate_limit_policy import RateLimit, RateLimitDescriptor, RateLimitFallback, RateLimitPolicy
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.durations import check_durations
from meshlib_control.config.validate.http_routes import check_match
from meshlib_control.config.validate.workloads import check_workload_selector

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_OF_CALLS = frozenset({"SERVICE", "ROUTE"})
_OF_REQUESTS = frozenset({"CALLER", "CALLER_NAMESPACE", "REMOTE_ADDRESS"})
_CALLERS_OWN = ("port", "source_labels", "gateways", "source_namespace", "scheme")
"""Conditions about who calls and how he addresses a service: known where calls are made."""

_FALLBACK = RateLimitFallback()


def check_rate_limit_policy(spec: RateLimitPolicy, namespace: str) -> Iterator[Problem]:
    """For calls or for workloads, and every limit by itself."""
    if spec.host is None and spec.selector is None:
        message = "the policy is for nothing: give it a host (calls are limited) or a selector (served requests are)"
        yield Problem(("host",), "MSH0143", message)
    if spec.host is not None:
        fault = names.host_fault(spec.host)
        if fault or spec.host == "*":
            yield Problem(("host",), "MSH0121", fault or "* would limit every call to everything together; name a host")
        yield from under(("exportTo",), names.check_export_to(spec.export_to, namespace))
    elif spec.export_to:
        yield Problem(("exportTo",), "MSH0137", "exportTo is about callers of a host; the selector chooses workloads")
    yield from under(("selector",), check_workload_selector(spec.selector))
    taken: set[str] = set()
    for index, limit in enumerate(spec.limits):
        yield from under(("limits", index), _check_limit(limit, of_calls=spec.host is not None))
        if limit.name in taken:
            yield Problem(("limits", index, "name"), "MSH0137", f"another limit of this policy is called {limit.name}")
        taken.add(limit.name)


def _check_limit(limit: RateLimit, *, of_calls: bool) -> Iterator[Problem]:
    if not _NAME.match(limit.name):
        message = f"{limit.name!r} is not a limit's name: letters, digits and inner '.', '_' and '-'"
        yield Problem(("name",), "MSH0137", message)
    yield from _check_size(limit)
    yield from check_durations(limit)
    if limit.fallback != _FALLBACK and limit.scope == "LOCAL" and limit.quota is None:
        yield Problem(("fallback",), "MSH0151", "a LOCAL limit asks nobody, so it needs no fallback")
    for index, descriptor in enumerate(limit.by):
        yield from under(("by", index), _check_descriptor(descriptor, of_calls=of_calls))
    for index, match in enumerate(limit.match):
        yield from under(("match", index), _check_match(match, of_calls=of_calls))


def _check_size(limit: RateLimit) -> Iterator[Problem]:
    if limit.quota is not None:
        for name, given in (("tokens", limit.tokens), ("burst", limit.burst)):
            if given is not None:
                yield Problem((name,), "MSH0137", f"{name} and quota exclude each other; write two limits, both hold")
    elif limit.tokens is None:
        yield Problem(("tokens",), "MSH0143", "the limit has no size: give it tokens, or a quota")


def _check_descriptor(descriptor: RateLimitDescriptor, *, of_calls: bool) -> Iterator[Problem]:
    given = (descriptor.attribute, descriptor.header, descriptor.claim, descriptor.constant)
    if all(value is None for value in given):
        yield Problem((), "MSH0143", "it counts by nothing: give it an attribute, header, claim or constant")
    if descriptor.header is not None:
        fault = names.header_name_fault(descriptor.header)
        if fault:
            yield Problem(("header",), "MSH0126", fault)
    if of_calls and (descriptor.attribute in _OF_REQUESTS or descriptor.claim is not None):
        name = "claim" if descriptor.claim is not None else "attribute"
        message = "who sends a request is known where it is served: limit the workloads, with a selector instead of a host"
        yield Problem((name,), "MSH0137", message)
    if not of_calls and descriptor.attribute in _OF_CALLS:
        message = f"{descriptor.attribute} is known where calls are made: a caller could write any Host; use host, or PATH"
        yield Problem(("attribute",), "MSH0137", message)
    if descriptor.claim is not None and not all(claim_path(_in_brackets(descriptor.claim))):
        yield Problem(("claim",), "MSH0137", f"{descriptor.claim!r} names no claim: write sub, or [realm][role]")


def _check_match(match: HTTPMatchRequest, *, of_calls: bool) -> Iterator[Problem]:
    yield from check_match(match)
    if match.stat_prefix:
        yield Problem(("statPrefix",), "MSH0151", "limits have names of their own; statPrefix does nothing here")
    if of_calls:
        return
    for name in _CALLERS_OWN:
        if getattr(match, name):
            field = "".join(part.title() if index else part for index, part in enumerate(name.split("_")))
            message = f"{field} is about the caller's side; where requests are served, match identities with by or policies"
            yield Problem((field,), "MSH0137", message)


def claim_names(claim: str) -> tuple[str, ...]:
    """The names that lead to a claim."""
    return claim_path(_in_brackets(claim))


def _in_brackets(claim: str) -> str:
    return claim if claim.startswith("[") else f"[{claim}]"
