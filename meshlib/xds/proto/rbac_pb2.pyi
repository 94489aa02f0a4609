from meshlib.xds.proto import core_pb2 as _core_pb2
from meshlib.xds.proto import route_pb2 as _route_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UriTemplateMatchConfig(_message.Message):
    __slots__ = ("path_template",)
    PATH_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    path_template: str
    def __init__(self, path_template: _Optional[str] = ...) -> None: ...

class Permission(_message.Message):
    __slots__ = ("and_rules", "or_rules", "any", "header", "url_path", "destination_ip", "destination_port", "metadata", "not_rule", "requested_server_name", "matcher", "uri_template")
    class Set(_message.Message):
        __slots__ = ("rules",)
        RULES_FIELD_NUMBER: _ClassVar[int]
        rules: _containers.RepeatedCompositeFieldContainer[Permission]
        def __init__(self, rules: _Optional[_Iterable[_Union[Permission, _Mapping]]] = ...) -> None: ...
    AND_RULES_FIELD_NUMBER: _ClassVar[int]
    OR_RULES_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    URL_PATH_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_IP_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    NOT_RULE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    MATCHER_FIELD_NUMBER: _ClassVar[int]
    URI_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    and_rules: Permission.Set
    or_rules: Permission.Set
    any: bool
    header: _route_pb2.HeaderMatcher
    url_path: _core_pb2.PathMatcher
    destination_ip: _core_pb2.CidrRange
    destination_port: int
    metadata: _core_pb2.MetadataMatcher
    not_rule: Permission
    requested_server_name: _core_pb2.StringMatcher
    matcher: _core_pb2.TypedExtensionConfig
    uri_template: _core_pb2.TypedExtensionConfig
    def __init__(self, and_rules: _Optional[_Union[Permission.Set, _Mapping]] = ..., or_rules: _Optional[_Union[Permission.Set, _Mapping]] = ..., any: bool = ..., header: _Optional[_Union[_route_pb2.HeaderMatcher, _Mapping]] = ..., url_path: _Optional[_Union[_core_pb2.PathMatcher, _Mapping]] = ..., destination_ip: _Optional[_Union[_core_pb2.CidrRange, _Mapping]] = ..., destination_port: _Optional[int] = ..., metadata: _Optional[_Union[_core_pb2.MetadataMatcher, _Mapping]] = ..., not_rule: _Optional[_Union[Permission, _Mapping]] = ..., requested_server_name: _Optional[_Union[_core_pb2.StringMatcher, _Mapping]] = ..., matcher: _Optional[_Union[_core_pb2.TypedExtensionConfig, _Mapping]] = ..., uri_template: _Optional[_Union[_core_pb2.TypedExtensionConfig, _Mapping]] = ...) -> None: ...

class Principal(_message.Message):
    __slots__ = ("and_ids", "or_ids", "any", "authenticated", "source_ip", "direct_remote_ip", "remote_ip", "header", "url_path", "metadata", "filter_state", "not_id")
    class Set(_message.Message):
        __slots__ = ("ids",)
        IDS_FIELD_NUMBER: _ClassVar[int]
        ids: _containers.RepeatedCompositeFieldContainer[Principal]
        def __init__(self, ids: _Optional[_Iterable[_Union[Principal, _Mapping]]] = ...) -> None: ...
    class Authenticated(_message.Message):
        __slots__ = ("principal_name",)
        PRINCIPAL_NAME_FIELD_NUMBER: _ClassVar[int]
        principal_name: _core_pb2.StringMatcher
        def __init__(self, principal_name: _Optional[_Union[_core_pb2.StringMatcher, _Mapping]] = ...) -> None: ...
    AND_IDS_FIELD_NUMBER: _ClassVar[int]
    OR_IDS_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    DIRECT_REMOTE_IP_FIELD_NUMBER: _ClassVar[int]
    REMOTE_IP_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    URL_PATH_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    FILTER_STATE_FIELD_NUMBER: _ClassVar[int]
    NOT_ID_FIELD_NUMBER: _ClassVar[int]
    and_ids: Principal.Set
    or_ids: Principal.Set
    any: bool
    authenticated: Principal.Authenticated
    source_ip: _core_pb2.CidrRange
    direct_remote_ip: _core_pb2.CidrRange
    remote_ip: _core_pb2.CidrRange
    header: _route_pb2.HeaderMatcher
    url_path: _core_pb2.PathMatcher
    metadata: _core_pb2.MetadataMatcher
    filter_state: _core_pb2.FilterStateMatcher
    not_id: Principal
    def __init__(self, and_ids: _Optional[_Union[Principal.Set, _Mapping]] = ..., or_ids: _Optional[_Union[Principal.Set, _Mapping]] = ..., any: bool = ..., authenticated: _Optional[_Union[Principal.Authenticated, _Mapping]] = ..., source_ip: _Optional[_Union[_core_pb2.CidrRange, _Mapping]] = ..., direct_remote_ip: _Optional[_Union[_core_pb2.CidrRange, _Mapping]] = ..., remote_ip: _Optional[_Union[_core_pb2.CidrRange, _Mapping]] = ..., header: _Optional[_Union[_route_pb2.HeaderMatcher, _Mapping]] = ..., url_path: _Optional[_Union[_core_pb2.PathMatcher, _Mapping]] = ..., metadata: _Optional[_Union[_core_pb2.MetadataMatcher, _Mapping]] = ..., filter_state: _Optional[_Union[_core_pb2.FilterStateMatcher, _Mapping]] = ..., not_id: _Optional[_Union[Principal, _Mapping]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("permissions", "principals")
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    permissions: _containers.RepeatedCompositeFieldContainer[Permission]
    principals: _containers.RepeatedCompositeFieldContainer[Principal]
    def __init__(self, permissions: _Optional[_Iterable[_Union[Permission, _Mapping]]] = ..., principals: _Optional[_Iterable[_Union[Principal, _Mapping]]] = ...) -> None: ...

class RBAC(_message.Message):
    __slots__ = ("action", "policies")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ALLOW: _ClassVar[RBAC.Action]
        DENY: _ClassVar[RBAC.Action]
        LOG: _ClassVar[RBAC.Action]
    ALLOW: RBAC.Action
    DENY: RBAC.Action
    LOG: RBAC.Action
    class PoliciesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Policy
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...
    ACTION_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    action: RBAC.Action
    policies: _containers.MessageMap[str, Policy]
    def __init__(self, action: _Optional[_Union[RBAC.Action, str]] = ..., policies: _Optional[_Mapping[str, Policy]] = ...) -> None: ...

class HttpRBAC(_message.Message):
    __slots__ = ("rules", "rules_stat_prefix", "shadow_rules", "shadow_rules_stat_prefix")
    RULES_FIELD_NUMBER: _ClassVar[int]
    RULES_STAT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    SHADOW_RULES_FIELD_NUMBER: _ClassVar[int]
    SHADOW_RULES_STAT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    rules: RBAC
    rules_stat_prefix: str
    shadow_rules: RBAC
    shadow_rules_stat_prefix: str
    def __init__(self, rules: _Optional[_Union[RBAC, _Mapping]] = ..., rules_stat_prefix: _Optional[str] = ..., shadow_rules: _Optional[_Union[RBAC, _Mapping]] = ..., shadow_rules_stat_prefix: _Optional[str] = ...) -> None: ...

class HttpRBACPerRoute(_message.Message):
    __slots__ = ("rbac",)
    RBAC_FIELD_NUMBER: _ClassVar[int]
    rbac: HttpRBAC
    def __init__(self, rbac: _Optional[_Union[HttpRBAC, _Mapping]] = ...) -> None: ...

class NetworkRBAC(_message.Message):
    __slots__ = ("rules", "shadow_rules", "shadow_rules_stat_prefix", "stat_prefix")
    RULES_FIELD_NUMBER: _ClassVar[int]
    SHADOW_RULES_FIELD_NUMBER: _ClassVar[int]
    SHADOW_RULES_STAT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    STAT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    rules: RBAC
    shadow_rules: RBAC
    shadow_rules_stat_prefix: str
    stat_prefix: str
    def __init__(self, rules: _Optional[_Union[RBAC, _Mapping]] = ..., shadow_rules: _Optional[_Union[RBAC, _Mapping]] = ..., shadow_rules_stat_prefix: _Optional[str] = ..., stat_prefix: _Optional[str] = ...) -> None: ...
