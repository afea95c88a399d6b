"""What goes wrong around a connection: proxies, forks, silence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from conftest import PACKAGE, Server
from drivers import Async, Sync

import mig_controller_client as mig
from mig_controller_client import _connection

ASK = mig.GetServerInfoRequest()


def run(code: str, *args: str, **environ: str) -> str:
    """Run a program with the client in a process of its own; return what it printed."""
    path = os.pathsep.join([str(PACKAGE), str(PACKAGE / "src")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *args],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CALLS = """
import asyncio, sys
import mig_controller_client as mig
ask = mig.GetServerInfoRequest()
async def main():
    async with mig.connect_async(sys.argv[1], token="s3cret") as controller:
        await controller.admin.get_server_info(ask, timeout_ms=30000)
def refused(call):
    try:
        call()
    except mig.ConnectError as error:
        return mig.error_detail(error).reason == mig.ErrorReason.ERROR_REASON_UNAUTHENTICATED
with mig.connect(sys.argv[1], token="s3cret") as controller:
    watch = mig.WatchFleetRequest()
    calls = [
        lambda: controller.admin.get_server_info(ask, timeout_ms=30000),
        lambda: controller.access.who_am_i(mig.WhoAmIRequest(), timeout_ms=30000),
        lambda: next(controller.admin.watch_fleet(watch, timeout_ms=30000)),
        lambda: asyncio.run(main()),
    ]
    print("refused by the controller" if all([refused(call) for call in calls]) else "reached")
"""


def test_no_proxy_on_this_machine(fleet: Server) -> None:
    """Calls on this machine, and their token, do not go to the environment's proxy."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
        printed = run(CALLS, fleet.url, no_proxy="", NO_PROXY="", **dict.fromkeys(names, url))
        assert printed == "refused by the controller\n"
        with pytest.raises(BlockingIOError):
            proxy.accept()


FORKS = """
import asyncio, os, signal, sys
import mig_controller_client as mig
ask = mig.GetServerInfoRequest()
controller = mig.connect(sys.argv[1])
other = mig.connect_async(sys.argv[1])
controller.admin.get_server_info(ask)
def refused(call):
    try:
        call()
    except RuntimeError as error:
        return "fork" in str(error)
if (child := os.fork()) == 0:
    signal.alarm(10)
    calls = [
        lambda: controller.admin.get_server_info(ask),
        lambda: next(controller.admin.watch_fleet(mig.WatchFleetRequest())),
        lambda: asyncio.run(other.admin.get_server_info(ask)),
        lambda: mig.connect(sys.argv[1]),
        lambda: mig.connect_async(sys.argv[1]),
    ]
    os._exit(0 if all([refused(call) for call in calls]) else 1)
assert os.waitpid(child, 0)[1] == 0
controller.admin.get_server_info(ask)
print("works")
"""

FORKS_FIRST = """
import os, signal, sys
import mig_controller_client as mig
if (child := os.fork()) == 0:
    signal.alarm(10)
    with mig.connect(sys.argv[1]) as controller:
        controller.admin.get_server_info(mig.GetServerInfoRequest())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("works")
"""


@pytest.mark.parametrize("program", [FORKS, FORKS_FIRST])
def test_fork(fleet: Server, program: str) -> None:
    """Calls after a fork raise at once; a child that connects first can call."""
    assert run(program, fleet.url) == "works\n"


@pytest.mark.parametrize("kind", [Sync, Async])
@pytest.mark.parametrize("silent", ["from the start", "later"])
def test_silent_watch(
    fleet: Server, kind: Any, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that gets no answer for too long ends with UNAVAILABLE: resume it."""
    monkeypatch.setattr(_connection, "_SILENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = fleet.url if silent == "later" else f"http://127.0.0.1:{mute.getsockname()[1]}"
        client = kind(url)
        request = mig.WatchFleetRequest(vm_id="no-such-vm")
        try:
            with pytest.raises(mig.ConnectError) as caught:
                for _ in client.watch(request):
                    pass
        finally:
            client.close()
        assert caught.value.code == mig.Code.UNAVAILABLE
