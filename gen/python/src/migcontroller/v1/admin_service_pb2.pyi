import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from migcontroller.v1 import access_pb2 as _access_pb2
from migcontroller.v1 import command_pb2 as _command_pb2
from migcontroller.v1 import event_pb2 as _event_pb2
from migcontroller.v1 import heartbeat_pb2 as _heartbeat_pb2
from migcontroller.v1 import vm_pb2 as _vm_pb2
from miglet.commands import commands_pb2 as _commands_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_LEVEL_UNSPECIFIED: _ClassVar[LogLevel]
    LOG_LEVEL_DEBUG: _ClassVar[LogLevel]
    LOG_LEVEL_INFO: _ClassVar[LogLevel]
    LOG_LEVEL_WARN: _ClassVar[LogLevel]
    LOG_LEVEL_ERROR: _ClassVar[LogLevel]
LOG_LEVEL_UNSPECIFIED: LogLevel
LOG_LEVEL_DEBUG: LogLevel
LOG_LEVEL_INFO: LogLevel
LOG_LEVEL_WARN: LogLevel
LOG_LEVEL_ERROR: LogLevel

class SendCommandRequest(_message.Message):
    __slots__ = ("vm_id", "command", "ttl", "ack_timeout", "wait", "max_deliveries", "reason")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    ACK_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    MAX_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    command: _commands_pb2.Command
    ttl: _duration_pb2.Duration
    ack_timeout: _duration_pb2.Duration
    wait: _duration_pb2.Duration
    max_deliveries: int
    reason: str
    def __init__(self, vm_id: _Optional[str] = ..., command: _Optional[_Union[_commands_pb2.Command, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ack_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_deliveries: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class SendCommandResponse(_message.Message):
    __slots__ = ("command",)
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    command: _command_pb2.CommandRecord
    def __init__(self, command: _Optional[_Union[_command_pb2.CommandRecord, _Mapping]] = ...) -> None: ...

class GetCommandRequest(_message.Message):
    __slots__ = ("command_id",)
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    def __init__(self, command_id: _Optional[str] = ...) -> None: ...

class GetCommandResponse(_message.Message):
    __slots__ = ("command",)
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    command: _command_pb2.CommandRecord
    def __init__(self, command: _Optional[_Union[_command_pb2.CommandRecord, _Mapping]] = ...) -> None: ...

class ListCommandsRequest(_message.Message):
    __slots__ = ("vm_id", "states", "type", "page_size", "page_token")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    states: _containers.RepeatedScalarFieldContainer[_command_pb2.CommandState]
    type: str
    page_size: int
    page_token: str
    def __init__(self, vm_id: _Optional[str] = ..., states: _Optional[_Iterable[_Union[_command_pb2.CommandState, str]]] = ..., type: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCommandsResponse(_message.Message):
    __slots__ = ("commands", "next_page_token")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[_command_pb2.CommandRecord]
    next_page_token: str
    def __init__(self, commands: _Optional[_Iterable[_Union[_command_pb2.CommandRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelCommandRequest(_message.Message):
    __slots__ = ("command_id", "reason")
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    reason: str
    def __init__(self, command_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelCommandResponse(_message.Message):
    __slots__ = ("command",)
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    command: _command_pb2.CommandRecord
    def __init__(self, command: _Optional[_Union[_command_pb2.CommandRecord, _Mapping]] = ...) -> None: ...

class GetVMRequest(_message.Message):
    __slots__ = ("vm_id",)
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    def __init__(self, vm_id: _Optional[str] = ...) -> None: ...

class GetVMResponse(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: _vm_pb2.VM
    def __init__(self, vm: _Optional[_Union[_vm_pb2.VM, _Mapping]] = ...) -> None: ...

class ListVMsRequest(_message.Message):
    __slots__ = ("pool_id", "org_id", "connected", "status", "page_size", "page_token")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    org_id: str
    connected: bool
    status: str
    page_size: int
    page_token: str
    def __init__(self, pool_id: _Optional[str] = ..., org_id: _Optional[str] = ..., connected: bool = ..., status: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListVMsResponse(_message.Message):
    __slots__ = ("vms", "next_page_token")
    VMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vms: _containers.RepeatedCompositeFieldContainer[_vm_pb2.VM]
    next_page_token: str
    def __init__(self, vms: _Optional[_Iterable[_Union[_vm_pb2.VM, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("vm_id", "type", "since", "until", "page_size", "page_token")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    type: str
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, vm_id: _Optional[str] = ..., type: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "next_page_token")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    next_page_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListHeartbeatsRequest(_message.Message):
    __slots__ = ("vm_id", "page_size", "page_token")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    page_size: int
    page_token: str
    def __init__(self, vm_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListHeartbeatsResponse(_message.Message):
    __slots__ = ("heartbeats", "next_page_token")
    HEARTBEATS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    heartbeats: _containers.RepeatedCompositeFieldContainer[_heartbeat_pb2.HeartbeatRecord]
    next_page_token: str
    def __init__(self, heartbeats: _Optional[_Iterable[_Union[_heartbeat_pb2.HeartbeatRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchFleetRequest(_message.Message):
    __slots__ = ("cursor", "vm_id")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    vm_id: str
    def __init__(self, cursor: _Optional[str] = ..., vm_id: _Optional[str] = ...) -> None: ...

class WatchFleetResponse(_message.Message):
    __slots__ = ("cursor", "changed_at", "vm", "command", "event", "removed_vm_id")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_VM_ID_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    changed_at: _timestamp_pb2.Timestamp
    vm: _vm_pb2.VM
    command: _command_pb2.CommandRecord
    event: _event_pb2.Event
    removed_vm_id: str
    def __init__(self, cursor: _Optional[str] = ..., changed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., vm: _Optional[_Union[_vm_pb2.VM, _Mapping]] = ..., command: _Optional[_Union[_command_pb2.CommandRecord, _Mapping]] = ..., event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ..., removed_vm_id: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "started_at", "live_sessions", "goroutines", "log_level", "log_level_reverts_at", "configured_log_level")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    LIVE_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    GOROUTINES_FIELD_NUMBER: _ClassVar[int]
    LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    LOG_LEVEL_REVERTS_AT_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    version: str
    started_at: _timestamp_pb2.Timestamp
    live_sessions: int
    goroutines: int
    log_level: LogLevel
    log_level_reverts_at: _timestamp_pb2.Timestamp
    configured_log_level: LogLevel
    def __init__(self, version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., live_sessions: _Optional[int] = ..., goroutines: _Optional[int] = ..., log_level: _Optional[_Union[LogLevel, str]] = ..., log_level_reverts_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., configured_log_level: _Optional[_Union[LogLevel, str]] = ...) -> None: ...

class SetLogLevelRequest(_message.Message):
    __slots__ = ("level", "duration", "reason")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    level: LogLevel
    duration: _duration_pb2.Duration
    reason: str
    def __init__(self, level: _Optional[_Union[LogLevel, str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class SetLogLevelResponse(_message.Message):
    __slots__ = ("level", "previous_level", "configured_level", "reverts_at")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_LEVEL_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_LEVEL_FIELD_NUMBER: _ClassVar[int]
    REVERTS_AT_FIELD_NUMBER: _ClassVar[int]
    level: LogLevel
    previous_level: LogLevel
    configured_level: LogLevel
    reverts_at: _timestamp_pb2.Timestamp
    def __init__(self, level: _Optional[_Union[LogLevel, str]] = ..., previous_level: _Optional[_Union[LogLevel, str]] = ..., configured_level: _Optional[_Union[LogLevel, str]] = ..., reverts_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
