import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from meshlib.xds.proto import core_pb2 as _core_pb2
from meshlib.xds.proto import route_pb2 as _route_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClusterResilience(_message.Message):
    __slots__ = ("circuit_breaker", "adaptive_concurrency", "hedging")
    CIRCUIT_BREAKER_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    HEDGING_FIELD_NUMBER: _ClassVar[int]
    circuit_breaker: CircuitBreaker
    adaptive_concurrency: AdaptiveConcurrency
    hedging: Hedging
    def __init__(self, circuit_breaker: _Optional[_Union[CircuitBreaker, _Mapping]] = ..., adaptive_concurrency: _Optional[_Union[AdaptiveConcurrency, _Mapping]] = ..., hedging: _Optional[_Union[Hedging, _Mapping]] = ...) -> None: ...

class CircuitBreaker(_message.Message):
    __slots__ = ("failure_percent", "min_requests", "window", "open_duration", "max_open_duration", "half_open_requests")
    FAILURE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MIN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    OPEN_DURATION_FIELD_NUMBER: _ClassVar[int]
    MAX_OPEN_DURATION_FIELD_NUMBER: _ClassVar[int]
    HALF_OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    failure_percent: float
    min_requests: int
    window: _duration_pb2.Duration
    open_duration: _duration_pb2.Duration
    max_open_duration: _duration_pb2.Duration
    half_open_requests: int
    def __init__(self, failure_percent: _Optional[float] = ..., min_requests: _Optional[int] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., open_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_open_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., half_open_requests: _Optional[int] = ...) -> None: ...

class AdaptiveConcurrency(_message.Message):
    __slots__ = ("sample_aggregate_percentile", "max_concurrency_limit", "concurrency_update_interval", "min_rtt")
    class MinimumRTT(_message.Message):
        __slots__ = ("interval", "fixed_value", "request_count", "jitter", "min_concurrency", "buffer")
        INTERVAL_FIELD_NUMBER: _ClassVar[int]
        FIXED_VALUE_FIELD_NUMBER: _ClassVar[int]
        REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
        JITTER_FIELD_NUMBER: _ClassVar[int]
        MIN_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
        BUFFER_FIELD_NUMBER: _ClassVar[int]
        interval: _duration_pb2.Duration
        fixed_value: _duration_pb2.Duration
        request_count: int
        jitter: float
        min_concurrency: int
        buffer: float
        def __init__(self, interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., fixed_value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_count: _Optional[int] = ..., jitter: _Optional[float] = ..., min_concurrency: _Optional[int] = ..., buffer: _Optional[float] = ...) -> None: ...
    SAMPLE_AGGREGATE_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_UPDATE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MIN_RTT_FIELD_NUMBER: _ClassVar[int]
    sample_aggregate_percentile: float
    max_concurrency_limit: int
    concurrency_update_interval: _duration_pb2.Duration
    min_rtt: AdaptiveConcurrency.MinimumRTT
    def __init__(self, sample_aggregate_percentile: _Optional[float] = ..., max_concurrency_limit: _Optional[int] = ..., concurrency_update_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., min_rtt: _Optional[_Union[AdaptiveConcurrency.MinimumRTT, _Mapping]] = ...) -> None: ...

class Hedging(_message.Message):
    __slots__ = ("delay", "percentile", "max_requests", "budget_percent")
    DELAY_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_PERCENT_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    percentile: float
    max_requests: int
    budget_percent: float
    def __init__(self, delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., percentile: _Optional[float] = ..., max_requests: _Optional[int] = ..., budget_percent: _Optional[float] = ...) -> None: ...

class ServerResilience(_message.Message):
    __slots__ = ("adaptive_concurrency", "load_shedding")
    ADAPTIVE_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    LOAD_SHEDDING_FIELD_NUMBER: _ClassVar[int]
    adaptive_concurrency: AdaptiveConcurrency
    load_shedding: LoadShedding
    def __init__(self, adaptive_concurrency: _Optional[_Union[AdaptiveConcurrency, _Mapping]] = ..., load_shedding: _Optional[_Union[LoadShedding, _Mapping]] = ...) -> None: ...

class LoadShedding(_message.Message):
    __slots__ = ("max_concurrency", "priorities", "trusted_principals", "trusted_namespaces", "retry_after")
    class Match(_message.Message):
        __slots__ = ("request", "principals", "namespaces")
        REQUEST_FIELD_NUMBER: _ClassVar[int]
        PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
        NAMESPACES_FIELD_NUMBER: _ClassVar[int]
        request: _route_pb2.RouteMatch
        principals: _containers.RepeatedCompositeFieldContainer[_core_pb2.StringMatcher]
        namespaces: _containers.RepeatedCompositeFieldContainer[_core_pb2.StringMatcher]
        def __init__(self, request: _Optional[_Union[_route_pb2.RouteMatch, _Mapping]] = ..., principals: _Optional[_Iterable[_Union[_core_pb2.StringMatcher, _Mapping]]] = ..., namespaces: _Optional[_Iterable[_Union[_core_pb2.StringMatcher, _Mapping]]] = ...) -> None: ...
    class Priority(_message.Message):
        __slots__ = ("urgency", "matches")
        URGENCY_FIELD_NUMBER: _ClassVar[int]
        MATCHES_FIELD_NUMBER: _ClassVar[int]
        urgency: int
        matches: _containers.RepeatedCompositeFieldContainer[LoadShedding.Match]
        def __init__(self, urgency: _Optional[int] = ..., matches: _Optional[_Iterable[_Union[LoadShedding.Match, _Mapping]]] = ...) -> None: ...
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    PRIORITIES_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    max_concurrency: _wrappers_pb2.UInt32Value
    priorities: _containers.RepeatedCompositeFieldContainer[LoadShedding.Priority]
    trusted_principals: _containers.RepeatedCompositeFieldContainer[_core_pb2.StringMatcher]
    trusted_namespaces: _containers.RepeatedCompositeFieldContainer[_core_pb2.StringMatcher]
    retry_after: _duration_pb2.Duration
    def __init__(self, max_concurrency: _Optional[_Union[_wrappers_pb2.UInt32Value, _Mapping]] = ..., priorities: _Optional[_Iterable[_Union[LoadShedding.Priority, _Mapping]]] = ..., trusted_principals: _Optional[_Iterable[_Union[_core_pb2.StringMatcher, _Mapping]]] = ..., trusted_namespaces: _Optional[_Iterable[_Union[_core_pb2.StringMatcher, _Mapping]]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
