"""Codes of findings about what rules of VirtualServices do with requests."""

from __future__ import annotations

from meshlib_control.config.code import INFO, WARNING, Code

RULES = (
    Code(
        "MSH0361",
        WARNING,
        "no such delegate",
        "A rule leads to a VirtualService without hosts that is not there. Requests go on to the next rule.",
        "Create the delegate, or correct its name and namespace.",
    ),
    Code(
        "MSH0362",
        WARNING,
        "delegate beyond the rule",
        "A rule of a delegate is not within the conditions of the rule that leads to it. Two expressions are never compared.",
        "Narrow the delegate's match, or widen that of the rule.",
    ),
    Code(
        "MSH0363", INFO, "delegate that nobody uses", "No rule leads to it.", "Name it in a rule, give it hosts, or remove it."
    ),
    Code(
        "MSH0364",
        WARNING,
        "fault for no request",
        "Istio injects a fault without a percentage into no request.",
        "Give it a percentage.",
    ),
    Code(
        "MSH0365",
        INFO,
        "retry condition without effect",
        "The condition needs something that a VirtualService cannot say.",
        "Remove it.",
    ),
    Code(
        "MSH0366",
        WARNING,
        "requests that nobody here sends",
        "With the resolution NONE the application's own transport makes the call, which does not know of the rule.",
        "Give the ServiceEntry the resolution STATIC or DNS.",
    ),
    Code(
        "MSH0367",
        INFO,
        "gRPC calls are not copied",
        "Messages of a gRPC channel are written by gRPC itself, and cannot be sent twice.",
        "Nothing, or mirror in the service itself.",
    ),
    Code(
        "MSH0368",
        WARNING,
        "any origin with credentials",
        "The origin that asks is sent back to it as the one that is allowed, and so are cookies: the same-origin rule is gone.",
        "Name the origins, or leave allowCredentials out.",
    ),
    Code("MSH0369", INFO, "no origin is allowed", "A corsPolicy without origins lets no browser in.", "Give allowOrigins."),
)
