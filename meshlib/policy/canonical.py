"""A raw request → the one canonical view of it that everybody uses, or a refusal.

``host`` is the Host header in lower case and without a trailing dot, which is what Istio's policies match; ``authority`` is the
same without its port.  A rule that restricts holds for either, one that grants for ``host`` alone (`readings.host_rule`): DENY
``secret.com`` covers ``Secret.COM.:8080``, ALLOW ``secret.com`` does not.  ``x-forwarded-host`` says nothing about anything.
"""

from __future__ import annotations

from meshlib.model.inbound import Inspection, Readings, Refusal, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.policy.identity_headers import FRAMING, HOP_BY_HOP, client_address, nominated, untrusted, without
from meshlib.policy.paths import PLAIN, SEGMENTS, canonical_target, has_dot_segment, readings_of
from meshlib.policy.sanity import authorities, check_headers, check_target, origin_form, trimmed

_UNKNOWN = ("", "")


def canonicalize(request: ServerRequest, normalization: PathNormalization, trusted_hops: int = 0) -> Inspection | Refusal:
    """The view that routing, policies, telemetry and the application share.  Never raises: what is odd is refused.

    `trusted_hops`: how many proxies before this process are believed what they write into ``x-forwarded-for``.
    """
    checked = check_headers(request)
    if isinstance(checked, Refusal):
        return checked
    innocent, values = checked
    hosts = authorities(request.fields[b"host"]) if not request.grpc else _UNKNOWN
    if hosts is None:
        return Refusal(400, "invalid_authority", b"Bad Request")
    target, readings = request.target, None
    if target.translate(None, PLAIN) or SEGMENTS.search(target) is not None or target[:1] != b"/":  # is_plain, without a call
        found = _canonical(request, normalization)
        if isinstance(found, Refusal):
            return found
        target, readings = found
    path, _, query = target.decode("ascii").partition("?")
    inspection = Inspection(request, path, query, hosts[1], hosts[0], target, readings)
    if values and (values[-1] <= 0x20 or values.find(b" \n") >= 0 or values.find(b"\t\n") >= 0):  # white space at an end
        request, inspection.header_changes = trimmed(request)
        inspection.request = request
    options = request.fields.get(b"connection")
    if not innocent or (options is not None and (options not in HOP_BY_HOP or len(request.fields) < len(request.headers))):
        if not FRAMING.isdisjoint(nominated(request)):
            return Refusal(400, "invalid_connection_header", b"Bad Request")
        removed = untrusted(request)
        if removed:
            inspection.request = without(request, removed)
            inspection.header_changes.update(dict.fromkeys(removed))
    if trusted_hops:
        inspection.remote_address = client_address(inspection.request, trusted_hops)
    return inspection


def _canonical(request: ServerRequest, mode: PathNormalization) -> Refusal | tuple[bytes, Readings | None]:
    origin = origin_form(request)
    if isinstance(origin, Refusal):
        return origin
    if origin == b"*":
        return origin, None
    refusal = check_target(origin)
    if refusal is not None:
        return refusal
    target = canonical_target(origin, mode)
    if target is None:
        return Refusal(400, "path_normalization_failed", b"Bad Request")
    path = target.partition(b"?")[0]
    if mode is not PathNormalization.NONE and has_dot_segment(path):
        # A step up that only those see who decode slashes: applications do, and this mode does not.
        return Refusal(400, "path_with_escaped_slashes", b"Bad Request")
    return target, readings_of(path, origin.partition(b"?")[0])
