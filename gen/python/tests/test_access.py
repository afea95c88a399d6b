"""Credentials: tokens, functions that fetch them, client certificates; and AccessService."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

import mig_controller_client as mig

ADDRESSES = json.loads((REPOSITORY / "gen/testdata/plaintext-token.json").read_text())


class AccessServer:
    """Answers WhoAmI over TLS with the name of the client's certificate, or the token."""

    def __init__(self, directory: Path) -> None:
        self.cert_file = directory / "cert.pem"
        self.key_file = directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
            + ["-nodes", "-days", "1", "-subj", "/CN=ann", "-addext"]
            + ["subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
            + ["-keyout", self.key_file, "-out", self.cert_file],
            check=True,
            capture_output=True,
            timeout=60,
        )
        self.calls: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                zipped = self.headers["Content-Encoding"] == "gzip"
                self._answer(gzip.decompress(request) if zipped else request)

            def do_GET(self) -> None:
                self._answer(b"")

            def _answer(self, request: bytes) -> None:
                name = self.headers["Authorization"] or ""
                if certificate := self.connection.getpeercert():
                    name = dict(item[0] for item in certificate["subject"])["commonName"]
                method = self.path.partition("?")[0]
                server.calls.append(f"{method} {name}")
                body, kind, status = b"", "application/proto", 200
                if not name:
                    status, kind = 401, "application/json"
                    body = b'{"code":"unauthenticated","message":"credentials are required"}'
                elif method.endswith("/WhoAmI"):
                    principal = mig.Principal(name=name, role=mig.Role.ROLE_VIEWER)
                    body = mig.WhoAmIResponse(principal=principal).SerializeToString()
                elif method.endswith("/RevokeToken"):
                    asked = mig.RevokeTokenRequest.FromString(request)
                    token = mig.Token(id=asked.token_id, revoked_by=asked.reason)
                    body = mig.RevokeTokenResponse(token=token).SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("localhost", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        context.load_verify_locations(self.cert_file)
        context.verify_mode = ssl.CERT_OPTIONAL
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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccessServer]:
    server = AccessServer(tmp_path_factory.mktemp("access"))
    yield server
    server.close()


Call = Callable[..., list[Any]]
Calls = list[tuple[str, Any]]
WHO: Calls = [("who_am_i", mig.WhoAmIRequest())]


def call(server: AccessServer, calls: Calls, **options: Any) -> list[Any]:
    with mig.connect(server.url, ca_file=server.cert_file, **options) as controller:
        return [getattr(controller.access, method)(request) for method, request in calls]


def call_async(server: AccessServer, calls: Calls, **options: Any) -> list[Any]:
    async def all_of_them() -> list[Any]:
        connection = mig.connect_async(server.url, ca_file=server.cert_file, **options)
        async with connection as controller:
            return [await getattr(controller.access, m)(request) for m, request in calls]

    return asyncio.run(all_of_them())


BOTH = pytest.mark.parametrize("call", [call, call_async])


@BOTH
def test_access(server: AccessServer, call: Call) -> None:
    """AccessService has its client beside AdminService, with the same credentials."""
    revoke = mig.RevokeTokenRequest(token_id="tok-1", reason="lost")
    who, revoked = call(server, [*WHO, ("revoke_token", revoke)], token="s3cret")
    assert who.principal == mig.Principal(name="Bearer s3cret", role=mig.Role.ROLE_VIEWER)
    assert revoked.token == mig.Token(id="tok-1", revoked_by="lost")
    with pytest.raises(mig.ConnectError, match="credentials are required") as caught:
        call(server, WHO)
    assert caught.value.code == mig.Code.UNAUTHENTICATED


@BOTH
def test_client_certificate(server: AccessServer, call: Call) -> None:
    """A client certificate is the credentials too."""
    certificate = {"cert_file": server.cert_file, "key_file": server.key_file}
    (who,) = call(server, WHO, **certificate)
    assert who.principal.name == "ann"


def tokens(*answers: object) -> Callable[[], str]:
    """Return a function that returns or raises one answer after the other."""
    left = iter(answers)

    def fetch() -> str:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, str)
        return answer

    return fetch


def coroutine(fetch: Callable[[], str]) -> Any:
    async def fetch_later() -> str:
        await asyncio.sleep(0)
        return fetch()

    return fetch_later


KINDS = pytest.mark.parametrize(
    ("call", "kind"),
    [(call, lambda fetch: fetch), (call_async, lambda fetch: fetch), (call_async, coroutine)],
    ids=["blocking", "asyncio", "coroutine"],
)


@KINDS
def test_token_function(server: AccessServer, call: Call, kind: Any) -> None:
    """A function is asked before each call."""
    answers = call(server, [*WHO, *WHO], token=kind(tokens("first", "second")))
    names = [answer.principal.name for answer in answers]
    assert names == ["Bearer first", "Bearer second"]


@KINDS
@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (OSError("no key in the agent"), mig.Code.UNAUTHENTICATED, "get a token: no key in"),
        (KeyError(), mig.Code.UNAUTHENTICATED, "get a token: KeyError"),
        ("s3cret word", mig.Code.UNAUTHENTICATED, "get a token: token must be printable"),
        (mig.ConnectError(mig.Code.UNAVAILABLE, "down"), mig.Code.UNAVAILABLE, "^down$"),
    ],
)
def test_token_function_fails(
    server: AccessServer, call: Call, kind: Any, failure: object, code: mig.Code, message: str
) -> None:
    """When the function fails, so does the call, with its exception; nothing is sent."""
    server.calls.clear()
    with pytest.raises(mig.ConnectError, match=message) as caught:
        call(server, WHO, token=kind(tokens(failure)))
    assert caught.value.code == code
    assert not server.calls
    assert "s3cret" not in str(caught.value)
    if isinstance(failure, OSError | KeyError):
        assert caught.value.__cause__ is failure


def test_token_function_of_a_watch(server: AccessServer) -> None:
    """A watch asks the function too."""
    failing = tokens(OSError("no key"), OSError("no key"))
    with (
        mig.connect(server.url, ca_file=server.cert_file, token=failing) as controller,
        pytest.raises(mig.ConnectError, match="get a token: no key"),
    ):
        next(controller.admin.watch_fleet(mig.WatchFleetRequest()))

    async def watch() -> None:
        connection = mig.connect_async(server.url, ca_file=server.cert_file, token=failing)
        async with connection as controller:
            await anext(controller.admin.watch_fleet(mig.WatchFleetRequest()))

    with pytest.raises(mig.ConnectError, match="get a token: no key"):
        asyncio.run(watch())


@pytest.mark.parametrize("connect", [mig.connect, mig.connect_async])
@pytest.mark.parametrize("token", ["s3cret", lambda: "s3cret"], ids=["value", "function"])
def test_plaintext_token(connect: Any, token: Any) -> None:
    """A token reaches other machines over https only, as in the other languages."""
    assert ADDRESSES["allowed"] and ADDRESSES["refused"]
    for address in ADDRESSES["allowed"]:
        connect(address, token=token)
    for address in ADDRESSES["refused"]:
        with pytest.raises(ValueError, match="^token must not cross the network"):
            connect(address, token=token)
        connect(address, token=token, plaintext_token=True)
