import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from meshlib.xds.proto import cluster_pb2 as _cluster_pb2
from meshlib.xds.proto import core_pb2 as _core_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterRequest(_message.Message):
    __slots__ = ("instance_id", "service", "namespace", "address", "port", "service_port", "protocol", "labels", "locality", "weight", "service_account", "mtls", "group")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LOCALITY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    MTLS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    service: str
    namespace: str
    address: str
    port: int
    service_port: int
    protocol: str
    labels: _containers.ScalarMap[str, str]
    locality: _core_pb2.Locality
    weight: int
    service_account: str
    mtls: bool
    group: str
    def __init__(self, instance_id: _Optional[str] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., service_port: _Optional[int] = ..., protocol: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., locality: _Optional[_Union[_core_pb2.Locality, _Mapping]] = ..., weight: _Optional[int] = ..., service_account: _Optional[str] = ..., mtls: bool = ..., group: _Optional[str] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("ttl", "renew_interval", "probe")
    TTL_FIELD_NUMBER: _ClassVar[int]
    RENEW_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    ttl: _duration_pb2.Duration
    renew_interval: _duration_pb2.Duration
    probe: Probe
    def __init__(self, ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., renew_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("check", "initial_delay", "port", "address")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    INITIAL_DELAY_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    check: _cluster_pb2.HealthCheck
    initial_delay: _duration_pb2.Duration
    port: int
    address: str
    def __init__(self, check: _Optional[_Union[_cluster_pb2.HealthCheck, _Mapping]] = ..., initial_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., port: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("instance_id", "ready")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    ready: bool
    def __init__(self, instance_id: _Optional[str] = ..., ready: bool = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeregisterRequest(_message.Message):
    __slots__ = ("instance_id",)
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    def __init__(self, instance_id: _Optional[str] = ...) -> None: ...

class DeregisterResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("instance_id", "clusters", "limits", "truncated")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    clusters: _containers.RepeatedCompositeFieldContainer[ClusterReport]
    limits: _containers.RepeatedCompositeFieldContainer[LimitReport]
    truncated: bool
    def __init__(self, instance_id: _Optional[str] = ..., clusters: _Optional[_Iterable[_Union[ClusterReport, _Mapping]]] = ..., limits: _Optional[_Iterable[_Union[LimitReport, _Mapping]]] = ..., truncated: bool = ...) -> None: ...

class ClusterReport(_message.Message):
    __slots__ = ("name", "endpoints", "circuit_breaker", "circuit_breaker_left", "circuit_breaker_rejected", "concurrency_limit", "concurrency_rejected", "active_requests", "active_retries", "allowed_retries", "retries", "retry_overflow", "pending_overflow", "hedges", "hedges_refused")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_BREAKER_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_BREAKER_LEFT_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_BREAKER_REJECTED_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_REJECTED_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_RETRIES_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_RETRIES_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    RETRY_OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    PENDING_OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    HEDGES_FIELD_NUMBER: _ClassVar[int]
    HEDGES_REFUSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    endpoints: _containers.RepeatedCompositeFieldContainer[EndpointReport]
    circuit_breaker: str
    circuit_breaker_left: float
    circuit_breaker_rejected: int
    concurrency_limit: int
    concurrency_rejected: int
    active_requests: int
    active_retries: int
    allowed_retries: int
    retries: int
    retry_overflow: int
    pending_overflow: int
    hedges: int
    hedges_refused: int
    def __init__(self, name: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[EndpointReport, _Mapping]]] = ..., circuit_breaker: _Optional[str] = ..., circuit_breaker_left: _Optional[float] = ..., circuit_breaker_rejected: _Optional[int] = ..., concurrency_limit: _Optional[int] = ..., concurrency_rejected: _Optional[int] = ..., active_requests: _Optional[int] = ..., active_retries: _Optional[int] = ..., allowed_retries: _Optional[int] = ..., retries: _Optional[int] = ..., retry_overflow: _Optional[int] = ..., pending_overflow: _Optional[int] = ..., hedges: _Optional[int] = ..., hedges_refused: _Optional[int] = ...) -> None: ...

class EndpointReport(_message.Message):
    __slots__ = ("address", "state", "reason", "left")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    address: str
    state: str
    reason: str
    left: float
    def __init__(self, address: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., left: _Optional[float] = ...) -> None: ...

class LimitReport(_message.Message):
    __slots__ = ("id", "side", "allowed", "limited", "would_limit")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    LIMITED_FIELD_NUMBER: _ClassVar[int]
    WOULD_LIMIT_FIELD_NUMBER: _ClassVar[int]
    id: str
    side: str
    allowed: int
    limited: int
    would_limit: int
    def __init__(self, id: _Optional[str] = ..., side: _Optional[str] = ..., allowed: _Optional[int] = ..., limited: _Optional[int] = ..., would_limit: _Optional[int] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
