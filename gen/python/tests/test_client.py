"""The client against the real controller: both kinds of client, every protocol."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Server
from drivers import Async, Sync

import mig_controller_client as mig
from mig_controller_client import Code, CommandState, ErrorReason, ProtocolType

KINDS = [
    pytest.param((kind, protocol), id=f"{kind.__name__}-{protocol.name}")
    for kind in (Sync, Async)
    for protocol in ProtocolType
]
Connect = Callable[..., Any]


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Opens clients of one kind over one protocol, and closes them afterwards."""
    kind, protocol = request.param
    opened: list[Any] = []

    def open_client(url: str, **options: Any) -> Any:
        opened.append(kind(url, protocol=protocol, **options))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()


@pytest.fixture
def client(connect: Connect, fleet: Server) -> Any:
    """A client of the shared fleet."""
    return connect(fleet.url)


def command(vm_id: str, type: str = "set_log_level", **fields: Any) -> mig.SendCommandRequest:
    wait = fields.pop("wait", None)
    return mig.SendCommandRequest(vm_id=vm_id, command=mig.Command(type=type, **fields), wait=wait)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def test_command_succeeds(client: Any) -> None:
    """A command to a live VM is delivered and acked while the call waits."""
    answer = client.admin("send_command", command("sim-vm-0001", wait=timedelta(seconds=10)))
    assert answer.command.state == CommandState.COMMAND_STATE_SUCCEEDED
    assert answer.command.ack.success


def test_reads(client: Any) -> None:
    """Calls without side effects work by GET too, where the protocol has it."""
    sent = client.admin("send_command", command(unique("vm")))
    by_id = mig.GetCommandRequest(command_id=sent.command.command.id)
    got = client.admin("get_command", by_id, use_get=True)
    assert got.command == sent.command
    assert client.admin("get_server_info", mig.GetServerInfoRequest()).version


@pytest.mark.parametrize(
    ("method", "make", "code", "detail"),
    [
        (
            "send_command",
            lambda _: command("vm-1", type="drain now"),
            Code.INVALID_ARGUMENT,
            mig.ErrorDetail(
                reason=ErrorReason.ERROR_REASON_INVALID_FIELD,
                field="command.type",
                rule="must be 1 to 128 characters of A-Z a-z 0-9 . _ -, "
                "the first a letter or digit",
            ),
        ),
        (
            "send_command",
            lambda taken: command("vm-1", type="drain", id=taken),
            Code.ALREADY_EXISTS,
            mig.ErrorDetail(reason=ErrorReason.ERROR_REASON_COMMAND_ID_TAKEN),
        ),
        (
            "get_command",
            lambda _: mig.GetCommandRequest(command_id="none"),
            Code.NOT_FOUND,
            mig.ErrorDetail(reason=ErrorReason.ERROR_REASON_NOT_FOUND),
        ),
        (
            "cancel_command",
            lambda taken: mig.CancelCommandRequest(command_id=taken),
            Code.FAILED_PRECONDITION,
            mig.ErrorDetail(reason=ErrorReason.ERROR_REASON_COMMAND_ENDED),
        ),
    ],
    ids=["invalid", "taken", "unknown", "ended"],
)
def test_errors(
    client: Any,
    method: str,
    make: Callable[[str], Any],
    code: Code,
    detail: mig.ErrorDetail,
) -> None:
    """A refusal has its code, and the detail that programs decide by."""
    ended = unique("ended")
    client.admin("send_command", command("sim-vm-0001", id=ended, wait=timedelta(seconds=10)))
    with pytest.raises(mig.ConnectError) as caught:
        client.admin(method, make(ended))
    assert (caught.value.code, mig.error_detail(caught.value)) == (code, detail)


def test_deadline(connect: Connect) -> None:
    """A call ends at the caller's deadline, and says that it did."""
    with socket.create_server(("localhost", 0)) as silent:
        client = connect(f"http://localhost:{silent.getsockname()[1]}")
        with pytest.raises(mig.ConnectError) as caught:
            client.admin("get_server_info", mig.GetServerInfoRequest(), timeout_ms=50)
    assert caught.value.code == Code.DEADLINE_EXCEEDED


def test_unreachable(connect: Connect) -> None:
    """Nobody at the address is UNAVAILABLE, without a detail."""
    with pytest.raises(mig.ConnectError) as caught:
        # Port 1 is reserved; nothing listens there.
        connect("http://localhost:1").admin("get_server_info", mig.GetServerInfoRequest())
    assert (caught.value.code, mig.error_detail(caught.value)) == (Code.UNAVAILABLE, None)


def test_pages(client: Any) -> None:
    """Pages hold everything once and in order; a token is good for its filters only."""
    vm_id = unique("paged")
    ids = [client.admin("send_command", command(vm_id)).command.command.id for _ in range(5)]
    seen: list[str] = []
    sizes: list[int] = []
    request = mig.ListCommandsRequest(vm_id=vm_id, page_size=2)
    while True:
        page = client.admin("list_commands", request)
        seen += [record.command.id for record in page.commands]
        sizes.append(len(page.commands))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert (seen, sizes) == (ids[::-1], [2, 2, 1])

    request.vm_id = "another"
    with pytest.raises(mig.ConnectError) as caught:
        client.admin("list_commands", request)
    detail = mig.error_detail(caught.value)
    assert detail is not None
    assert (caught.value.code, detail.field) == (Code.INVALID_ARGUMENT, "page_token")


def test_vms_are_listed(client: Any) -> None:
    """ListVMs is list_v_ms, and lists in the order of vm_id."""
    page = client.admin("list_v_ms", mig.ListVMsRequest(page_size=1000))
    names = [vm.vm_id for vm in page.vms]
    assert "sim-vm-0001" in names
    assert names == sorted(names)


def test_watch_resumes(connect: Connect, binary: Path, tmp_path: Path) -> None:
    """A watch that goes on from its cursor, after the controller was stopped and started
    again, sees every transition in between once, and none from before."""
    first = Server(binary, tmp_path)
    try:
        client = connect(first.url)
        changes = client.watch(mig.WatchFleetRequest(vm_id="vm-1"), timeout_ms=30_000)
        assert next(changes).WhichOneof("change") is None
        before = client.admin("send_command", command("vm-1")).command.command.id
        seen = next(changes)
        assert seen.command.command.id == before
        changes.close()
        missed = client.admin("send_command", command("vm-1")).command.command.id
        client.admin("cancel_command", mig.CancelCommandRequest(command_id=missed))
    finally:
        first.stop()

    second = Server(binary, tmp_path)
    try:
        client = connect(second.url)
        last = client.admin("send_command", command("vm-1")).command.command.id
        resumed = []
        for change in client.watch(
            mig.WatchFleetRequest(vm_id="vm-1", cursor=seen.cursor), timeout_ms=30_000
        ):
            if change.WhichOneof("change") == "command":
                resumed.append((change.command.command.id, change.command.state))
            if resumed and resumed[-1][0] == last:
                break
    finally:
        second.stop()
    assert resumed == [
        (missed, CommandState.COMMAND_STATE_PENDING),
        (missed, CommandState.COMMAND_STATE_CANCELLED),
        (last, CommandState.COMMAND_STATE_PENDING),
    ]


def test_watch_deadline(client: Any) -> None:
    """A watch ends at the caller's deadline."""
    with pytest.raises(mig.ConnectError) as caught:
        list(client.watch(mig.WatchFleetRequest(vm_id=unique("vm")), timeout_ms=100))
    assert caught.value.code == Code.DEADLINE_EXCEEDED


def test_agent(client: Any) -> None:
    """A whole agent's life on the stream, as its operator sees it; a reconnect is not
    registered again."""
    vm_id = unique("agent")
    agent = client.agent()
    agent.send(connect=mig.ConnectRequest(vm_id=vm_id, version="test"))
    assert agent.receive().connect_ack.accepted
    register = agent.receive().command
    assert register.type == "register_runner"
    assert register.string_params["registration_token"]
    agent.send(command_ack=mig.CommandAck(command_id=register.id, success=True))
    agent.send(event=mig.EventNotification(type="runner_registered", vm_id=vm_id))
    report(agent, vm_id)

    deliver(client, agent, vm_id)
    page = client.admin("list_events", mig.ListEventsRequest(vm_id=vm_id))
    assert [event.type for event in page.events] == ["runner_registered"]
    registration = client.admin("get_vm", mig.GetVMRequest(vm_id=vm_id)).vm.registration
    assert registration.state == mig.RegistrationState.REGISTRATION_STATE_REGISTERED
    agent.end()
    assert agent.receive() is None

    agent = client.agent()
    agent.send(connect=mig.ConnectRequest(vm_id=vm_id))
    assert agent.receive().connect_ack.accepted
    report(agent, vm_id)
    deliver(client, agent, vm_id)
    agent.end()
    assert agent.receive() is None


def report(agent: Any, vm_id: str) -> None:
    runner = mig.RunnerState(state="idle", configured=True)
    agent.send(heartbeat=mig.Heartbeat(vm_id=vm_id, runner_state=runner, miglet_state="idle"))


def deliver(client: Any, agent: Any, vm_id: str) -> None:
    """Sends a command; the next that the agent gets is it, and its ack ends it."""
    sent = client.admin("send_command", command(vm_id, type="drain")).command.command
    got = agent.receive().command
    assert (got.id, got.type) == (sent.id, "drain")
    agent.send(command_ack=mig.CommandAck(command_id=sent.id, success=True))
    # The same request again waits for the end of the same command.
    again = command(vm_id, type="drain", id=sent.id, wait=timedelta(seconds=10))
    answer = client.admin("send_command", again)
    assert answer.command.state == CommandState.COMMAND_STATE_SUCCEEDED


def test_access(connect: Connect, binary: Path, tmp_path: Path) -> None:
    """The first token ends the access without credentials; a role limits its holder."""
    server = Server(binary, tmp_path)
    try:
        nobody = connect(server.url)
        create = mig.CreateTokenRequest(name="root", role=mig.Role.ROLE_ADMIN)
        root = connect(server.url, token=nobody.access("create_token", create).secret)
        assert reason(nobody, "who_am_i", mig.WhoAmIRequest()) == "ERROR_REASON_UNAUTHENTICATED"

        create = mig.CreateTokenRequest(name="ann", role=mig.Role.ROLE_VIEWER)
        created = root.access("create_token", create)
        ann = connect(server.url, token=lambda: created.secret)
        assert ann.access("who_am_i", mig.WhoAmIRequest()).principal.name == "ann"
        assert ann.admin("list_v_ms", mig.ListVMsRequest()).vms == []
        assert reason(ann, "create_token", create) == "ERROR_REASON_PERMISSION_DENIED"

        revoke = mig.RevokeTokenRequest(token_id=created.token.id, reason="left")
        assert root.access("revoke_token", revoke).token.HasField("revoked_at")
        tokens = root.access("list_tokens", mig.ListTokensRequest(include_ended=True)).tokens
        assert [token.name for token in tokens] == ["ann", "root"]
    finally:
        server.stop()


def reason(client: Any, method: str, request: Any) -> str:
    with pytest.raises(mig.ConnectError) as caught:
        client.access(method, request)
    detail = mig.error_detail(caught.value)
    return ErrorReason.Name(detail.reason if detail else 0)
