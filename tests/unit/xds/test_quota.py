"""RLQS on the wire."""

from __future__ import annotations

from math import inf, nan

import pytest

from meshlib.model.rate_limit import Abandon, Assignment, Blanket, TokenBucket, Usage
from meshlib.xds.proto import rlqs_pb2
from meshlib.xds.quota import Malformed, Reports, decode_reports, decode_response, encode_reports, encode_response

ID = (("meshlib.limit", "all"), ("meshlib.policy", "default/p"))


def test_reports_are_read_as_they_were_written() -> None:
    usages = [Usage(ID, 1.5, 7, 3, held=2.5), Usage(ID[:1], 1.0, 0, 0)]
    reports = Reports(usages, 4, leaving=True, process=b"1234")
    assert decode_reports(encode_reports(reports)) == reports


def test_any_service_of_rlqs_reads_them() -> None:
    message = rlqs_pb2.RateLimitQuotaUsageReports.FromString(encode_reports(Reports([Usage(ID, 0.0, 7, 3, held=1.0)], 4)))
    (usage,) = message.bucket_quota_usages
    assert (message.domain, dict(usage.bucket_id.bucket)) == ("meshlib", dict(ID))
    assert (usage.num_requests_allowed, usage.num_requests_denied) == (7, 3)
    assert usage.time_elapsed.nanos > 0  # a strict server wants more than zero


@pytest.mark.parametrize("strategy", ["ALLOW_ALL", "DENY_ALL", None, TokenBucket(3, 0.25, 9)])
@pytest.mark.parametrize("ttl", [None, 5.0])
def test_assignments_are_read_as_they_were_written(strategy: Blanket | TokenBucket | None, ttl: float | None) -> None:
    actions: list[Assignment | Abandon] = [Assignment(ID, ttl, strategy), Abandon(ID)]
    assert decode_response(encode_response(actions)) == actions


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_reports(data)
    with pytest.raises(Malformed):
        decode_response(data)


def test_a_usage_without_a_bucket_is_refused() -> None:
    with pytest.raises(Malformed):
        decode_reports(encode_reports(Reports([Usage((), 1.0, 1, 1)])))


@pytest.mark.parametrize("held", [nan, inf])
def test_a_share_that_is_no_number_is_refused(held: float) -> None:
    """Every comparison with it is false: it would pass through all that sums shares up."""
    with pytest.raises(Malformed, match="finite"):
        decode_reports(encode_reports(Reports([Usage(ID, 1.0, 1, 1, held=held)])))
