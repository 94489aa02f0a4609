import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from meshlib.xds.proto import rlqs_pb2 as _rlqs_pb2
from meshlib.xds.proto import route_pb2 as _route_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RateLimits(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[RateLimitPolicy]
    def __init__(self, policies: _Optional[_Iterable[_Union[RateLimitPolicy, _Mapping]]] = ...) -> None: ...

class RateLimitPolicy(_message.Message):
    __slots__ = ("name", "limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    limits: _containers.RepeatedCompositeFieldContainer[RateLimit]
    def __init__(self, name: _Optional[str] = ..., limits: _Optional[_Iterable[_Union[RateLimit, _Mapping]]] = ...) -> None: ...

class RateLimit(_message.Message):
    __slots__ = ("name", "matches", "by", "token_bucket", "quota", "scope", "fallback", "dry_run", "max_buckets")
    class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LOCAL: _ClassVar[RateLimit.Scope]
        GLOBAL: _ClassVar[RateLimit.Scope]
    LOCAL: RateLimit.Scope
    GLOBAL: RateLimit.Scope
    class Period(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PERIOD_UNSPECIFIED: _ClassVar[RateLimit.Period]
        DAY: _ClassVar[RateLimit.Period]
        MONTH: _ClassVar[RateLimit.Period]
    PERIOD_UNSPECIFIED: RateLimit.Period
    DAY: RateLimit.Period
    MONTH: RateLimit.Period
    class Descriptor(_message.Message):
        __slots__ = ("attribute", "header", "claim", "constant")
        class Attribute(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            ATTRIBUTE_UNSPECIFIED: _ClassVar[RateLimit.Descriptor.Attribute]
            SERVICE: _ClassVar[RateLimit.Descriptor.Attribute]
            ROUTE: _ClassVar[RateLimit.Descriptor.Attribute]
            METHOD: _ClassVar[RateLimit.Descriptor.Attribute]
            PATH: _ClassVar[RateLimit.Descriptor.Attribute]
            CALLER: _ClassVar[RateLimit.Descriptor.Attribute]
            CALLER_NAMESPACE: _ClassVar[RateLimit.Descriptor.Attribute]
            REMOTE_ADDRESS: _ClassVar[RateLimit.Descriptor.Attribute]
        ATTRIBUTE_UNSPECIFIED: RateLimit.Descriptor.Attribute
        SERVICE: RateLimit.Descriptor.Attribute
        ROUTE: RateLimit.Descriptor.Attribute
        METHOD: RateLimit.Descriptor.Attribute
        PATH: RateLimit.Descriptor.Attribute
        CALLER: RateLimit.Descriptor.Attribute
        CALLER_NAMESPACE: RateLimit.Descriptor.Attribute
        REMOTE_ADDRESS: RateLimit.Descriptor.Attribute
        class Claim(_message.Message):
            __slots__ = ("path",)
            PATH_FIELD_NUMBER: _ClassVar[int]
            path: _containers.RepeatedScalarFieldContainer[str]
            def __init__(self, path: _Optional[_Iterable[str]] = ...) -> None: ...
        ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
        HEADER_FIELD_NUMBER: _ClassVar[int]
        CLAIM_FIELD_NUMBER: _ClassVar[int]
        CONSTANT_FIELD_NUMBER: _ClassVar[int]
        attribute: RateLimit.Descriptor.Attribute
        header: str
        claim: RateLimit.Descriptor.Claim
        constant: str
        def __init__(self, attribute: _Optional[_Union[RateLimit.Descriptor.Attribute, str]] = ..., header: _Optional[str] = ..., claim: _Optional[_Union[RateLimit.Descriptor.Claim, _Mapping]] = ..., constant: _Optional[str] = ...) -> None: ...
    class Quota(_message.Message):
        __slots__ = ("requests", "period")
        REQUESTS_FIELD_NUMBER: _ClassVar[int]
        PERIOD_FIELD_NUMBER: _ClassVar[int]
        requests: int
        period: RateLimit.Period
        def __init__(self, requests: _Optional[int] = ..., period: _Optional[_Union[RateLimit.Period, str]] = ...) -> None: ...
    class Fallback(_message.Message):
        __slots__ = ("after", "action")
        class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            ALLOW: _ClassVar[RateLimit.Fallback.Action]
            DENY: _ClassVar[RateLimit.Fallback.Action]
        ALLOW: RateLimit.Fallback.Action
        DENY: RateLimit.Fallback.Action
        AFTER_FIELD_NUMBER: _ClassVar[int]
        ACTION_FIELD_NUMBER: _ClassVar[int]
        after: _duration_pb2.Duration
        action: RateLimit.Fallback.Action
        def __init__(self, after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., action: _Optional[_Union[RateLimit.Fallback.Action, str]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BUCKET_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    MAX_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    name: str
    matches: _containers.RepeatedCompositeFieldContainer[_route_pb2.RouteMatch]
    by: _containers.RepeatedCompositeFieldContainer[RateLimit.Descriptor]
    token_bucket: _rlqs_pb2.TokenBucket
    quota: RateLimit.Quota
    scope: RateLimit.Scope
    fallback: RateLimit.Fallback
    dry_run: bool
    max_buckets: int
    def __init__(self, name: _Optional[str] = ..., matches: _Optional[_Iterable[_Union[_route_pb2.RouteMatch, _Mapping]]] = ..., by: _Optional[_Iterable[_Union[RateLimit.Descriptor, _Mapping]]] = ..., token_bucket: _Optional[_Union[_rlqs_pb2.TokenBucket, _Mapping]] = ..., quota: _Optional[_Union[RateLimit.Quota, _Mapping]] = ..., scope: _Optional[_Union[RateLimit.Scope, str]] = ..., fallback: _Optional[_Union[RateLimit.Fallback, _Mapping]] = ..., dry_run: bool = ..., max_buckets: _Optional[int] = ...) -> None: ...

class QuotaUsageReports(_message.Message):
    __slots__ = ("domain", "bucket_quota_usages", "responses_applied", "held", "leaving", "process")
    class Held(_message.Message):
        __slots__ = ("bucket_id", "tokens_per_second")
        BUCKET_ID_FIELD_NUMBER: _ClassVar[int]
        TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
        bucket_id: _rlqs_pb2.BucketId
        tokens_per_second: float
        def __init__(self, bucket_id: _Optional[_Union[_rlqs_pb2.BucketId, _Mapping]] = ..., tokens_per_second: _Optional[float] = ...) -> None: ...
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    BUCKET_QUOTA_USAGES_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_APPLIED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    domain: str
    bucket_quota_usages: _containers.RepeatedCompositeFieldContainer[_rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage]
    responses_applied: int
    held: _containers.RepeatedCompositeFieldContainer[QuotaUsageReports.Held]
    leaving: bool
    process: bytes
    def __init__(self, domain: _Optional[str] = ..., bucket_quota_usages: _Optional[_Iterable[_Union[_rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage, _Mapping]]] = ..., responses_applied: _Optional[int] = ..., held: _Optional[_Iterable[_Union[QuotaUsageReports.Held, _Mapping]]] = ..., leaving: bool = ..., process: _Optional[bytes] = ...) -> None: ...
