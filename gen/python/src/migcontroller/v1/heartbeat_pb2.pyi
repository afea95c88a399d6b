import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from migcontroller.v1 import event_pb2 as _event_pb2
from migcontroller.v1 import vm_pb2 as _vm_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HeartbeatRecord(_message.Message):
    __slots__ = ("vm_id", "pool_id", "org_id", "received_at", "sent_at", "source", "session_epoch", "status", "runner", "current_job", "health", "body")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RUNNER_FIELD_NUMBER: _ClassVar[int]
    CURRENT_JOB_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    vm_id: str
    pool_id: str
    org_id: str
    received_at: _timestamp_pb2.Timestamp
    sent_at: _timestamp_pb2.Timestamp
    source: _event_pb2.ReportSource
    session_epoch: int
    status: str
    runner: _vm_pb2.Runner
    current_job: _vm_pb2.Job
    health: _vm_pb2.Health
    body: _struct_pb2.Struct
    def __init__(self, vm_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., org_id: _Optional[str] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sent_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[_Union[_event_pb2.ReportSource, str]] = ..., session_epoch: _Optional[int] = ..., status: _Optional[str] = ..., runner: _Optional[_Union[_vm_pb2.Runner, _Mapping]] = ..., current_job: _Optional[_Union[_vm_pb2.Job, _Mapping]] = ..., health: _Optional[_Union[_vm_pb2.Health, _Mapping]] = ..., body: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
