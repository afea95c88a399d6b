from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MIGletMessage(_message.Message):
    __slots__ = ("connect", "command_ack", "event", "heartbeat", "error")
    CONNECT_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ACK_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    connect: ConnectRequest
    command_ack: CommandAck
    event: EventNotification
    heartbeat: Heartbeat
    error: ErrorNotification
    def __init__(self, connect: _Optional[_Union[ConnectRequest, _Mapping]] = ..., command_ack: _Optional[_Union[CommandAck, _Mapping]] = ..., event: _Optional[_Union[EventNotification, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., error: _Optional[_Union[ErrorNotification, _Mapping]] = ...) -> None: ...

class ControllerMessage(_message.Message):
    __slots__ = ("connect_ack", "command", "error")
    CONNECT_ACK_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    connect_ack: ConnectAck
    command: Command
    error: ErrorNotification
    def __init__(self, connect_ack: _Optional[_Union[ConnectAck, _Mapping]] = ..., command: _Optional[_Union[Command, _Mapping]] = ..., error: _Optional[_Union[ErrorNotification, _Mapping]] = ...) -> None: ...

class ConnectRequest(_message.Message):
    __slots__ = ("vm_id", "pool_id", "org_id", "version")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    pool_id: str
    org_id: str
    version: str
    def __init__(self, vm_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., org_id: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ConnectAck(_message.Message):
    __slots__ = ("accepted", "message", "server_version")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    message: str
    server_version: str
    def __init__(self, accepted: bool = ..., message: _Optional[str] = ..., server_version: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("id", "type", "string_params", "int_params", "bool_params", "string_array_params", "created_at")
    class StringParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class IntParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class BoolParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bool
        def __init__(self, key: _Optional[str] = ..., value: bool = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STRING_PARAMS_FIELD_NUMBER: _ClassVar[int]
    INT_PARAMS_FIELD_NUMBER: _ClassVar[int]
    BOOL_PARAMS_FIELD_NUMBER: _ClassVar[int]
    STRING_ARRAY_PARAMS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    string_params: _containers.ScalarMap[str, str]
    int_params: _containers.ScalarMap[str, int]
    bool_params: _containers.ScalarMap[str, bool]
    string_array_params: _containers.RepeatedScalarFieldContainer[str]
    created_at: int
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., string_params: _Optional[_Mapping[str, str]] = ..., int_params: _Optional[_Mapping[str, int]] = ..., bool_params: _Optional[_Mapping[str, bool]] = ..., string_array_params: _Optional[_Iterable[str]] = ..., created_at: _Optional[int] = ...) -> None: ...

class CommandAck(_message.Message):
    __slots__ = ("command_id", "success", "message", "result")
    class ResultEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    success: bool
    message: str
    result: _containers.ScalarMap[str, str]
    def __init__(self, command_id: _Optional[str] = ..., success: bool = ..., message: _Optional[str] = ..., result: _Optional[_Mapping[str, str]] = ...) -> None: ...

class EventNotification(_message.Message):
    __slots__ = ("type", "vm_id", "pool_id", "org_id", "data", "timestamp")
    class DataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    type: str
    vm_id: str
    pool_id: str
    org_id: str
    data: _containers.ScalarMap[str, str]
    timestamp: int
    def __init__(self, type: _Optional[str] = ..., vm_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., org_id: _Optional[str] = ..., data: _Optional[_Mapping[str, str]] = ..., timestamp: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("vm_id", "pool_id", "org_id", "health", "runner_state", "current_job", "timestamp", "miglet_state")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    RUNNER_STATE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_JOB_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    MIGLET_STATE_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    pool_id: str
    org_id: str
    health: VMHealth
    runner_state: RunnerState
    current_job: JobInfo
    timestamp: int
    miglet_state: str
    def __init__(self, vm_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., org_id: _Optional[str] = ..., health: _Optional[_Union[VMHealth, _Mapping]] = ..., runner_state: _Optional[_Union[RunnerState, _Mapping]] = ..., current_job: _Optional[_Union[JobInfo, _Mapping]] = ..., timestamp: _Optional[int] = ..., miglet_state: _Optional[str] = ...) -> None: ...

class VMHealth(_message.Message):
    __slots__ = ("cpu_usage_percent", "memory_usage_percent", "disk_usage_percent", "memory_total_bytes", "memory_used_bytes", "disk_total_bytes", "disk_used_bytes")
    CPU_USAGE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    DISK_USAGE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu_usage_percent: float
    memory_usage_percent: float
    disk_usage_percent: float
    memory_total_bytes: int
    memory_used_bytes: int
    disk_total_bytes: int
    disk_used_bytes: int
    def __init__(self, cpu_usage_percent: _Optional[float] = ..., memory_usage_percent: _Optional[float] = ..., disk_usage_percent: _Optional[float] = ..., memory_total_bytes: _Optional[int] = ..., memory_used_bytes: _Optional[int] = ..., disk_total_bytes: _Optional[int] = ..., disk_used_bytes: _Optional[int] = ...) -> None: ...

class RunnerState(_message.Message):
    __slots__ = ("state", "configured", "runner_name", "labels")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_FIELD_NUMBER: _ClassVar[int]
    RUNNER_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    state: str
    configured: bool
    runner_name: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[str] = ..., configured: bool = ..., runner_name: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class JobInfo(_message.Message):
    __slots__ = ("job_id", "run_id", "repository", "branch", "commit", "status", "started_at")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    run_id: str
    repository: str
    branch: str
    commit: str
    status: str
    started_at: int
    def __init__(self, job_id: _Optional[str] = ..., run_id: _Optional[str] = ..., repository: _Optional[str] = ..., branch: _Optional[str] = ..., commit: _Optional[str] = ..., status: _Optional[str] = ..., started_at: _Optional[int] = ...) -> None: ...

class ErrorNotification(_message.Message):
    __slots__ = ("code", "message", "details", "timestamp")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    details: _containers.ScalarMap[str, str]
    timestamp: int
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ..., timestamp: _Optional[int] = ...) -> None: ...
