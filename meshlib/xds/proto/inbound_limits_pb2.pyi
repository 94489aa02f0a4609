from google.protobuf import wrappers_pb2 as _wrappers_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InboundLimits(_message.Message):
    __slots__ = ("max_requests", "max_active", "max_pending")
    MAX_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    MAX_PENDING_FIELD_NUMBER: _ClassVar[int]
    max_requests: _wrappers_pb2.UInt32Value
    max_active: _wrappers_pb2.UInt32Value
    max_pending: _wrappers_pb2.UInt32Value
    def __init__(self, max_requests: _Optional[_Union[_wrappers_pb2.UInt32Value, _Mapping]] = ..., max_active: _Optional[_Union[_wrappers_pb2.UInt32Value, _Mapping]] = ..., max_pending: _Optional[_Union[_wrappers_pb2.UInt32Value, _Mapping]] = ...) -> None: ...
