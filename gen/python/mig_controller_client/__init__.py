"""Client of the MIG Controller.

`connect` and `connect_async` open a connection. Every message and enum of the schema is
here too, so that one import is enough:

    import mig_controller_client as mig

    with mig.connect("http://localhost:8080") as controller:
        print(controller.admin.get_server_info(mig.GetServerInfoRequest()).version)
"""

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType

from migcontroller.v1.access_pb2 import (
    AuditEvent,
    AuthMethod,
    Principal,
    Requirement,
    Role,
    Token,
)
from migcontroller.v1.access_service_pb2 import (
    CreateTokenRequest,
    CreateTokenResponse,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    ListTokensRequest,
    ListTokensResponse,
    RevokeTokenRequest,
    RevokeTokenResponse,
    WhoAmIRequest,
    WhoAmIResponse,
)
from migcontroller.v1.admin_service_pb2 import (
    CancelCommandRequest,
    CancelCommandResponse,
    GetCommandRequest,
    GetCommandResponse,
    GetServerInfoRequest,
    GetServerInfoResponse,
    GetVMRequest,
    GetVMResponse,
    ListCommandsRequest,
    ListCommandsResponse,
    ListEventsRequest,
    ListEventsResponse,
    ListHeartbeatsRequest,
    ListHeartbeatsResponse,
    ListVMsRequest,
    ListVMsResponse,
    LogLevel,
    SendCommandRequest,
    SendCommandResponse,
    SetLogLevelRequest,
    SetLogLevelResponse,
    WatchFleetRequest,
    WatchFleetResponse,
)
from migcontroller.v1.agent_service_pb2 import (
    PollCommandsRequest,
    PollCommandsResponse,
    PolledCommand,
    ReportEventRequest,
    ReportEventResponse,
    ReportHeartbeatRequest,
    ReportHeartbeatResponse,
    RequestRegistrationTokenRequest,
    RequestRegistrationTokenResponse,
)
from migcontroller.v1.command_pb2 import (
    CommandRecord,
    CommandState,
)
from migcontroller.v1.error_pb2 import (
    ErrorDetail,
    ErrorReason,
)
from migcontroller.v1.event_pb2 import (
    Event,
    ReportSource,
)
from migcontroller.v1.heartbeat_pb2 import (
    HeartbeatRecord,
)
from migcontroller.v1.vm_pb2 import (
    Health,
    Job,
    Machine,
    Registration,
    RegistrationFailure,
    RegistrationState,
    Runner,
    VM,
)
from migcontroller.v1.waiting_pb2 import (
    Waiting,
)
from miglet.commands.commands_pb2 import (
    Command,
    CommandAck,
    ConnectAck,
    ConnectRequest,
    ControllerMessage,
    ErrorNotification,
    EventNotification,
    Heartbeat,
    JobInfo,
    MIGletMessage,
    RunnerState,
    VMHealth,
)

from ._connection import (
    DEFAULT_ADDRESS,
    AsyncController,
    Controller,
    connect,
    connect_async,
)
from ._errors import error_detail
from ._streams import aclosing

TERMINAL_STATES = frozenset(
    {
        CommandState.COMMAND_STATE_SUCCEEDED,
        CommandState.COMMAND_STATE_FAILED,
        CommandState.COMMAND_STATE_TIMED_OUT,
        CommandState.COMMAND_STATE_EXPIRED,
        CommandState.COMMAND_STATE_CANCELLED,
    }
)
"""The states that a command ends in. It stays in the one it reached."""

__all__ = [
    "AsyncController",
    "AuditEvent",
    "AuthMethod",
    "CancelCommandRequest",
    "CancelCommandResponse",
    "Code",
    "Command",
    "CommandAck",
    "CommandRecord",
    "CommandState",
    "ConnectAck",
    "ConnectError",
    "ConnectRequest",
    "Controller",
    "ControllerMessage",
    "CreateTokenRequest",
    "CreateTokenResponse",
    "DEFAULT_ADDRESS",
    "ErrorDetail",
    "ErrorNotification",
    "ErrorReason",
    "Event",
    "EventNotification",
    "GetCommandRequest",
    "GetCommandResponse",
    "GetServerInfoRequest",
    "GetServerInfoResponse",
    "GetVMRequest",
    "GetVMResponse",
    "Health",
    "Heartbeat",
    "HeartbeatRecord",
    "Job",
    "JobInfo",
    "ListAuditEventsRequest",
    "ListAuditEventsResponse",
    "ListCommandsRequest",
    "ListCommandsResponse",
    "ListEventsRequest",
    "ListEventsResponse",
    "ListHeartbeatsRequest",
    "ListHeartbeatsResponse",
    "ListTokensRequest",
    "ListTokensResponse",
    "ListVMsRequest",
    "ListVMsResponse",
    "LogLevel",
    "MIGletMessage",
    "Machine",
    "PollCommandsRequest",
    "PollCommandsResponse",
    "PolledCommand",
    "Principal",
    "ProtocolType",
    "Registration",
    "RegistrationFailure",
    "RegistrationState",
    "ReportEventRequest",
    "ReportEventResponse",
    "ReportHeartbeatRequest",
    "ReportHeartbeatResponse",
    "ReportSource",
    "RequestRegistrationTokenRequest",
    "RequestRegistrationTokenResponse",
    "Requirement",
    "RevokeTokenRequest",
    "RevokeTokenResponse",
    "Role",
    "Runner",
    "RunnerState",
    "SendCommandRequest",
    "SendCommandResponse",
    "SetLogLevelRequest",
    "SetLogLevelResponse",
    "TERMINAL_STATES",
    "Token",
    "VM",
    "VMHealth",
    "Waiting",
    "WatchFleetRequest",
    "WatchFleetResponse",
    "WhoAmIRequest",
    "WhoAmIResponse",
    "aclosing",
    "connect",
    "connect_async",
    "error_detail",
]
