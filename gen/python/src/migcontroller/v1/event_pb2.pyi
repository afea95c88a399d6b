import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_SOURCE_UNSPECIFIED: _ClassVar[ReportSource]
    REPORT_SOURCE_STREAM: _ClassVar[ReportSource]
    REPORT_SOURCE_HTTP: _ClassVar[ReportSource]
REPORT_SOURCE_UNSPECIFIED: ReportSource
REPORT_SOURCE_STREAM: ReportSource
REPORT_SOURCE_HTTP: ReportSource

class Event(_message.Message):
    __slots__ = ("event_id", "vm_id", "pool_id", "org_id", "type", "received_at", "occurred_at", "source", "body")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    event_id: int
    vm_id: str
    pool_id: str
    org_id: str
    type: str
    received_at: _timestamp_pb2.Timestamp
    occurred_at: _timestamp_pb2.Timestamp
    source: ReportSource
    body: _struct_pb2.Struct
    def __init__(self, event_id: _Optional[int] = ..., vm_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., org_id: _Optional[str] = ..., type: _Optional[str] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[_Union[ReportSource, str]] = ..., body: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
