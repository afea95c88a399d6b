"""Connections to a controller: address, TLS and credentials in one place."""

from __future__ import annotations

import atexit
import functools
import ipaddress
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from connectrpc.protocol import ProtocolType
from pyqwest import Client, HTTPTransport, HTTPVersion, Proxy, SyncClient, SyncHTTPTransport

from migcontroller.v1.access_service_connect import (
    AccessServiceClient,
    AccessServiceClientSync,
)
from migcontroller.v1.admin_service_connect import (
    AdminServiceClient,
    AdminServiceClientSync,
)
from migcontroller.v1.agent_service_connect import (
    AgentServiceClient,
    AgentServiceClientSync,
)
from miglet.commands.commands_connect import (
    CommandServiceClient,
    CommandServiceClientSync,
)

from ._process import (
    Access,
    AccessSync,
    Agent,
    AgentSync,
    Commands,
    CommandsSync,
    check_process,
)
from ._tokens import Bearer, BearerSync, check_token
from ._watches import Admin, AdminSync

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType
    from typing import TypedDict

    from ._tokens import AsyncToken, Token

    class _TransportOptions(TypedDict, total=False):
        http_version: HTTPVersion
        follow_redirects: bool
        tls_include_system_certs: bool
        tls_ca_cert: bytes
        tls_cert: bytes
        tls_key: bytes
        proxy: Proxy


DEFAULT_ADDRESS = "http://localhost:8080"
"""Where a controller on this machine listens by default."""

_SILENCE = 45.0
"""After how many seconds without an answer a watch is broken: one comes at least every 30."""

_NO_PROXY = Proxy("http://127.0.0.1:9", no_proxy="localhost,127.0.0.0/8,::1")
"""Takes the place of the environment's proxy, and is not used for loopback addresses."""


class Controller:
    """A connection to a controller, for calls that block.

    It opens when it is first used. Close it with `close` or as a context manager; what
    is still being received ends then. Threads may share it.
    """

    admin: AdminServiceClientSync
    """What operators ask: commands, VMs, events."""
    access: AccessServiceClientSync
    """Who may use the controller, and who changed what."""
    agent: AgentServiceClientSync
    """What an agent asks without a stream."""
    commands: CommandServiceClientSync
    """The agent's stream."""

    def __init__(
        self,
        address: str,
        options: _TransportOptions,
        protocol: ProtocolType,
        auth: list[BearerSync],
    ) -> None:
        self._transport = SyncHTTPTransport(**options)
        self._watches = SyncHTTPTransport(**options, read_timeout=_SILENCE)
        http = SyncClient(self._transport)
        watches = AdminServiceClientSync(
            address, http_client=SyncClient(self._watches), protocol=protocol, interceptors=auth
        )
        self.admin = AdminSync(
            address, http_client=http, protocol=protocol, interceptors=auth, watches=watches
        )
        self.access = AccessSync(
            address, http_client=http, protocol=protocol, interceptors=auth
        )
        self.agent = AgentSync(
            address, http_client=http, protocol=protocol, interceptors=auth
        )
        self.commands = CommandsSync(
            address, http_client=http, protocol=protocol, interceptors=auth
        )

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()
        self._watches.close()

    def __enter__(self) -> Controller:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncController:
    """A connection to a controller, for asyncio.

    It opens when it is first used. Close it with `close` or as an async context
    manager; what is still being received ends then.
    """

    admin: AdminServiceClient
    """What operators ask: commands, VMs, events."""
    access: AccessServiceClient
    """Who may use the controller, and who changed what."""
    agent: AgentServiceClient
    """What an agent asks without a stream."""
    commands: CommandServiceClient
    """The agent's stream."""

    def __init__(
        self,
        address: str,
        options: _TransportOptions,
        protocol: ProtocolType,
        auth: list[Bearer],
    ) -> None:
        self._transport = HTTPTransport(**options)
        self._watches = HTTPTransport(**options, read_timeout=_SILENCE)
        http = Client(self._transport)
        watches = AdminServiceClient(
            address, http_client=Client(self._watches), protocol=protocol, interceptors=auth
        )
        self.admin = Admin(
            address, http_client=http, protocol=protocol, interceptors=auth, watches=watches
        )
        self.access = Access(
            address, http_client=http, protocol=protocol, interceptors=auth
        )
        self.agent = Agent(
            address, http_client=http, protocol=protocol, interceptors=auth
        )
        self.commands = Commands(
            address, http_client=http, protocol=protocol, interceptors=auth
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._watches.aclose()
        await self._transport.aclose()

    async def __aenter__(self) -> AsyncController:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def connect(
    address: str = DEFAULT_ADDRESS,
    *,
    token: Token | None = None,
    protocol: ProtocolType = ProtocolType.CONNECT,
    ca_file: str | PathLike[str] | None = None,
    cert_file: str | PathLike[str] | None = None,
    key_file: str | PathLike[str] | None = None,
    plaintext_token: bool = False,
) -> Controller:
    """Connect to the controller at an http or https address.

    token is sent as `Authorization: Bearer` with every call. A function is asked for it
    before each call, for tokens that change; when it raises, the call is not sent and
    raises a ConnectError with UNAUTHENTICATED, caused by the function's exception, or the
    ConnectError that the function raised. A token is not sent over plaintext http to
    another machine, unless plaintext_token says so.

    https is checked against the system's certificate authorities, or those in ca_file.
    cert_file and key_file are this client's own certificate. All are PEM. http speaks
    HTTP/2 from the first byte, as the controller does; https negotiates it.

    Raises ValueError for an argument that breaks its rule, and OSError for a file that
    cannot be read. Whether the controller answers shows with the first call.

    After a fork of a process that has connected, connections do not work in the child:
    this and every call raises RuntimeError there. A child that connects first is fine.

    No proxy is used for a controller on this machine. A watch that gets no answer for 45
    seconds ends with UNAVAILABLE.
    """
    check_process()
    address = _check(address, token, protocol, plaintext_token)
    options = _transport_options(address, ca_file, cert_file, key_file)
    auth = [] if token is None else [BearerSync(token)]
    return Controller(address, options, protocol, auth)


def connect_async(
    address: str = DEFAULT_ADDRESS,
    *,
    token: AsyncToken | None = None,
    protocol: ProtocolType = ProtocolType.CONNECT,
    ca_file: str | PathLike[str] | None = None,
    cert_file: str | PathLike[str] | None = None,
    key_file: str | PathLike[str] | None = None,
    plaintext_token: bool = False,
) -> AsyncController:
    """Connect to the controller, for asyncio. The arguments are those of `connect`.

    A function for the token may be a coroutine function too.
    """
    check_process()
    address = _check(address, token, protocol, plaintext_token)
    options = _transport_options(address, ca_file, cert_file, key_file)
    auth = [] if token is None else [Bearer(token)]
    _settle_at_exit()
    return AsyncController(address, options, protocol, auth)


@functools.cache
def _settle_at_exit() -> None:
    """Give pyqwest's threads a moment before the interpreter goes away.

    They let go of a call's Python objects a little after its answer was handed over. One
    that does so while the interpreter ends can abort the process, as seen on Python 3.11
    with a program that makes a single call. There is no notification when they are done.
    """
    atexit.register(time.sleep, 0.05)


def _check(
    address: str, token: object | None, protocol: ProtocolType, plaintext_token: bool
) -> str:
    parts = _split(address)
    if not isinstance(protocol, ProtocolType):
        raise ValueError("protocol must be a ProtocolType")
    if token is not None and not callable(token):
        check_token(token)
    if (
        token is not None
        and parts.scheme == "http"
        and not plaintext_token
        and not _loopback(parts.hostname or "")
    ):
        raise ValueError(
            "token must not cross the network in plaintext: "
            "use an https address, or plaintext_token=True to send it anyway"
        )
    return parts.geturl().rstrip("/")


def _split(address: str) -> SplitResult:
    rule = "address must be http://HOST:PORT or https://HOST:PORT, without user, query or fragment"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:  # of a port that is no number, for instance
        raise ValueError(rule) from error
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == 0
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        raise ValueError(rule)
    return parts


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _transport_options(
    address: str,
    ca_file: str | PathLike[str] | None,
    cert_file: str | PathLike[str] | None,
    key_file: str | PathLike[str] | None,
) -> _TransportOptions:
    if (cert_file is None) != (key_file is None):
        raise ValueError("cert_file and key_file must be given together")
    # A redirect is no answer of the controller, and could carry the token elsewhere.
    options: _TransportOptions = {"follow_redirects": False}
    if _loopback(urlsplit(address).hostname or ""):
        options["proxy"] = _NO_PROXY
    if address.startswith("http://"):
        if ca_file is not None or cert_file is not None:
            raise ValueError("ca_file and cert_file must come with an https address")
        options["http_version"] = HTTPVersion.HTTP2
        return options
    if ca_file is None:
        options["tls_include_system_certs"] = True
    else:
        options["tls_ca_cert"] = Path(ca_file).read_bytes()
    if cert_file is not None and key_file is not None:
        options["tls_cert"] = Path(cert_file).read_bytes()
        options["tls_key"] = Path(key_file).read_bytes()
    return options
