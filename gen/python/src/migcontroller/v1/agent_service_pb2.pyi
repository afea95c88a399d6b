import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportEventRequest(_message.Message):
    __slots__ = ("vm_id", "event")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    event: _struct_pb2.Struct
    def __init__(self, vm_id: _Optional[str] = ..., event: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ReportEventResponse(_message.Message):
    __slots__ = ("status", "acknowledged", "vm_id", "pool_id", "org_id", "message", "timestamp", "registration_token", "expires_at", "runner_url", "runner_group", "labels")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    RUNNER_URL_FIELD_NUMBER: _ClassVar[int]
    RUNNER_GROUP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    status: str
    acknowledged: bool
    vm_id: str
    pool_id: str
    org_id: str
    message: str
    timestamp: _timestamp_pb2.Timestamp
    registration_token: str
    expires_at: _timestamp_pb2.Timestamp
    runner_url: str
    runner_group: str
    labels: _struct_pb2.ListValue
    def __init__(self, status: _Optional[str] = ..., acknowledged: bool = ..., vm_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., org_id: _Optional[str] = ..., message: _Optional[str] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., registration_token: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., runner_url: _Optional[str] = ..., runner_group: _Optional[str] = ..., labels: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ...) -> None: ...

class ReportHeartbeatRequest(_message.Message):
    __slots__ = ("vm_id", "heartbeat")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    heartbeat: _struct_pb2.Struct
    def __init__(self, vm_id: _Optional[str] = ..., heartbeat: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ReportHeartbeatResponse(_message.Message):
    __slots__ = ("status", "vm_id", "message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    vm_id: str
    message: str
    def __init__(self, status: _Optional[str] = ..., vm_id: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class PollCommandsRequest(_message.Message):
    __slots__ = ("vm_id",)
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    def __init__(self, vm_id: _Optional[str] = ...) -> None: ...

class PollCommandsResponse(_message.Message):
    __slots__ = ("commands", "vm_id")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[PolledCommand]
    vm_id: str
    def __init__(self, commands: _Optional[_Iterable[_Union[PolledCommand, _Mapping]]] = ..., vm_id: _Optional[str] = ...) -> None: ...

class PolledCommand(_message.Message):
    __slots__ = ("id", "type", "parameters", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    parameters: _struct_pb2.Struct
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., parameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RequestRegistrationTokenRequest(_message.Message):
    __slots__ = ("vm_id", "org_id", "pool_id", "runner_group", "labels")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    RUNNER_GROUP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    org_id: str
    pool_id: str
    runner_group: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, vm_id: _Optional[str] = ..., org_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., runner_group: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class RequestRegistrationTokenResponse(_message.Message):
    __slots__ = ("registration_token", "expires_at", "runner_url", "runner_group", "labels")
    REGISTRATION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    RUNNER_URL_FIELD_NUMBER: _ClassVar[int]
    RUNNER_GROUP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    registration_token: str
    expires_at: _timestamp_pb2.Timestamp
    runner_url: str
    runner_group: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, registration_token: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., runner_url: _Optional[str] = ..., runner_group: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...
