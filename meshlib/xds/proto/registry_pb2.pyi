import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from meshlib.xds.proto import cluster_pb2 as _cluster_pb2
from meshlib.xds.proto import core_pb2 as _core_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
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
