"""A raw request → the one canonical view of it that everybody uses, or a refusal."""

from __future__ import annotations

from meshlib.model.inbound import Inspection, Refusal, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.policy.sanity import check_request


def canonicalize(request: ServerRequest, normalization: PathNormalization) -> Inspection | Refusal:
    """The view that routing, policies, telemetry and the application share.  Never raises: what is odd is refused."""
    target = check_request(request)
    if isinstance(target, Refusal):
        return target
    path, _, query = target.decode("ascii").partition("?")
    host = request.fields[b"host"].decode("ascii").lower()
    return Inspection(request, path, query, host.partition(":")[0], host, target)
