"""What the pages and the examples show is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PACKAGE, REPOSITORY, Server
from follow import follow

import mig_controller_client as mig

FENCE = re.compile(r"(?:<!-- (\S+) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = PACKAGE / "README.md"
GRPCIO = REPOSITORY / "docs/python-grpcio.md"
WATCHED = """\
sim-vm-0001 set_log_level PENDING
sim-vm-0001 set_log_level DELIVERED
sim-vm-0001 set_log_level SUCCEEDED
"""
REGISTERED = """\
accepted
register_runner received
runner registered
"""


def run(fleet: Server, command: list[str | Path], cwd: Path, **env: str) -> str:
    """Runs a program to its end, which must be a good one, and returns what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"CONTROLLER_URL": fleet.url, "PATH": path} | env
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def shown(page: Path) -> list[tuple[str, str]]:
    """The programs of a page, each with the output shown right after it."""
    fences = FENCE.findall(page.read_text())
    return [
        (code, output)
        for (_, language, code), (_, after, output) in zip(fences, fences[1:], strict=False)
        if (language, after) == ("python", "text")
    ]


@pytest.mark.parametrize(
    ("name", "output"),
    [("watch.py", WATCHED), ("watch_async.py", WATCHED), ("agent.py", REGISTERED)],
)
def test_examples(binary: Path, tmp_path: Path, name: str, output: str) -> None:
    """Each example prints what it promises, and ends well."""
    server = Server(binary, tmp_path, "--simulate=1")
    try:
        printed = run(server, [sys.executable, PACKAGE / "examples" / name], tmp_path)
    finally:
        server.stop()
    assert printed == output


def test_follow_example(binary: Path, tmp_path: Path) -> None:
    """The resuming loop sees what happened around a restart of the controller, once."""
    server = Server(binary, tmp_path)
    address = server.http
    sent = []
    seen = []
    with mig.connect(server.url) as controller:

        def send() -> None:
            command = mig.Command(type="drain")
            request = mig.SendCommandRequest(vm_id="vm-1", command=command)
            sent.append(controller.admin.send_command(request).command.command.id)

        try:
            changes = follow(controller)
            next(changes)  # only a cursor
            send()
            seen.append(next(changes).command.command.id)
            send()
        finally:
            server.stop()
        server = Server(binary, tmp_path, http=address)
        try:
            send()
            while len(seen) < len(sent):
                if (change := next(changes)).HasField("command"):
                    seen.append(change.command.command.id)
        finally:
            server.stop()
    assert seen == sent


def test_readme_shows_the_examples() -> None:
    """An example in the README is the file it names, whole or a part of it."""
    named = [(name, code) for name, _, code in FENCE.findall(README.read_text()) if name]
    assert len(named) == 3
    for name, code in named:
        assert code in (PACKAGE / name).read_text()


@pytest.mark.parametrize("number", range(len(shown(README))))
def test_readme(fleet: Server, tmp_path: Path, number: int) -> None:
    """A program in the README prints what the README shows."""
    code, output = shown(README)[number]
    program = tmp_path / "program.py"
    program.write_text(code.replace("localhost:8080", fleet.http))
    assert run(fleet, [sys.executable, program], tmp_path) == output


def test_grpcio_page(fleet: Server, tmp_path: Path) -> None:
    """The page on grpcio is true: its stubs, its programs, their output."""
    (tmp_path / "proto").symlink_to(REPOSITORY / "proto")
    (generate,) = [
        code for _, language, code in FENCE.findall(GRPCIO.read_text()) if language == "sh"
    ]
    run(fleet, ["bash", "-euc", generate], tmp_path)
    programs = shown(GRPCIO)
    assert len(programs) == 4
    for code, output in programs:
        (tmp_path / "program.py").write_text(code.replace("localhost:50051", fleet.grpc))
        printed = run(fleet, [sys.executable, "program.py"], tmp_path, PYTHONPATH="stubs")
        assert printed == output
