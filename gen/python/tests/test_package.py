"""The package itself: what it exports, what it may be given, where it runs."""

from __future__ import annotations

import ast
import asyncio
import importlib
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import PACKAGE, REPOSITORY

import mig_controller_client as mig

ASK = mig.GetServerInfoRequest()


def ask(address: str, **options: Any) -> str:
    with mig.connect(address, **options) as controller:
        return controller.admin.get_server_info(ASK, timeout_ms=30_000).version


def ask_async(address: str, **options: Any) -> str:
    async def call() -> str:
        async with mig.connect_async(address, **options) as controller:
            return (await controller.admin.get_server_info(ASK, timeout_ms=30_000)).version

    return asyncio.run(call())


BOTH = pytest.mark.parametrize("call", [ask, ask_async])
Call = Callable[..., str]


class TLSServer:
    """Answers every call over TLS, and keeps the credentials that came with it."""

    def __init__(self, directory: Path) -> None:
        goroot = subprocess.check_output(["go", "env", "GOROOT"], text=True).strip()
        generator = Path(goroot, "src/crypto/tls/generate_cert.go")
        subprocess.run(
            ["go", "run", generator, "--host=localhost", "--ecdsa-curve=P256"],
            cwd=directory,
            check=True,
            capture_output=True,
            timeout=120,
        )
        self.ca_file = directory / "cert.pem"
        self.authorization: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.authorization.append(self.headers["Authorization"])
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = mig.GetServerInfoResponse(version="behind TLS").SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/proto")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class HTTPServer(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that break off the handshake are part of the tests

        self._http = HTTPServer(("localhost", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_file, directory / "key.pem")
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://localhost:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TLSServer]:
    server = TLSServer(tmp_path_factory.mktemp("tls"))
    yield server
    server.close()


@BOTH
def test_tls_with_token(tls: TLSServer, call: Call) -> None:
    """A token travels with the call, to a server that ca_file vouches for."""
    answer = call(tls.url, token="s3cret", ca_file=tls.ca_file)
    assert (answer, tls.authorization.pop()) == ("behind TLS", "Bearer s3cret")


@BOTH
def test_tls_without_token(tls: TLSServer, call: Call) -> None:
    """Without a token no credentials are sent."""
    assert call(tls.url, ca_file=tls.ca_file) == "behind TLS"
    assert tls.authorization.pop() is None


@BOTH
def test_tls_unknown_authority(tls: TLSServer, call: Call) -> None:
    """A server that nobody vouches for gets neither the call nor the token."""
    with pytest.raises(mig.ConnectError) as caught:
        call(tls.url, token="s3cret")
    assert caught.value.code == mig.Code.UNAVAILABLE
    assert not tls.authorization


@BOTH
@pytest.mark.parametrize(
    ("address", "options", "field"),
    [
        ("localhost:8080", {}, "address"),
        ("ftp://localhost", {}, "address"),
        ("http://", {}, "address"),
        ("http://localhost:port", {}, "address"),
        ("http://localhost:65536", {}, "address"),
        ("http://user:s3cret@localhost", {}, "address"),
        ("http://localhost/?pool=1", {}, "address"),
        ("http://localhost/#vms", {}, "address"),
        ("https://localhost", {"protocol": "grpc"}, "protocol"),
        ("https://localhost", {"token": ""}, "token"),
        ("https://localhost", {"token": "two words"}, "token"),
        ("https://localhost", {"token": "line\n"}, "token"),
        ("http://controller.example", {"token": "s3cret"}, "token"),
        ("http://localhost.example", {"token": "s3cret"}, "token"),
        ("http://192.0.2.1", {"token": "s3cret"}, "token"),
        ("https://localhost", {"cert_file": "cert.pem"}, "cert_file and key_file"),
        ("http://localhost", {"ca_file": "ca.pem"}, "ca_file"),
    ],
)
def test_bad_arguments(call: Call, address: str, options: dict[str, str], field: str) -> None:
    """What breaks a rule is refused before anything is sent; the token is not repeated."""
    with pytest.raises(ValueError, match=f"^{field} ") as caught:
        call(address, **options)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "plaintext_token"),
    [
        ("http://127.0.0.1:1", False),
        ("http://[::1]:1", False),
        ("http://localhost:1/", False),
        ("http://192.0.2.1", True),
    ],
)
def test_token_in_plaintext(address: str, plaintext_token: bool) -> None:
    """On this machine, or if explicitly allowed, a token goes over plaintext http."""
    mig.connect(address, token="s3cret", plaintext_token=plaintext_token).close()


def test_everything_is_exported() -> None:
    """One import is enough: every message and enum of the schema is in the package."""
    sources = sorted((PACKAGE / "src").glob("**/*_pb2.py"))
    assert len(sources) > 8
    for source in sources:
        path = source.relative_to(PACKAGE / "src").with_suffix("")
        module = importlib.import_module(".".join(path.parts))
        file = module.DESCRIPTOR
        for name in [*file.message_types_by_name, *file.enum_types_by_name]:
            assert getattr(mig, name) is getattr(module, name)
            assert name in mig.__all__


def test_terminal_states() -> None:
    """A command goes on from PENDING and DELIVERED, and from no other state."""
    going_on = {0, mig.CommandState.COMMAND_STATE_PENDING, mig.CommandState.COMMAND_STATE_DELIVERED}
    assert set(mig.CommandState.values()) - going_on == mig.TERMINAL_STATES


def test_python_3_10() -> None:
    """Every source parses as Python 3.10, the oldest that the package declares."""
    sources = [*PACKAGE.glob("mig_controller_client/*.py"), *PACKAGE.glob("src/**/*.py")]
    sources += PACKAGE.glob("examples/*.py")
    assert len(sources) > 15
    for source in sources:
        ast.parse(source.read_text(), str(source), feature_version=(3, 10))


def test_license_is_the_projects() -> None:
    """The package carries the project's license."""
    assert (PACKAGE / "LICENSE").read_text() == (REPOSITORY / "LICENSE").read_text()
