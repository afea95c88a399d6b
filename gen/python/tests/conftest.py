"""The controller that the tests talk to: the real program, on free ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGE = REPOSITORY / "gen/python"
DEADLINE = 10.0


class Server:
    """One run of the controller program on a data directory."""

    def __init__(
        self, binary: Path, data_dir: Path, *options: str, http: str = "localhost:0"
    ) -> None:
        self.data_dir = data_dir
        self.log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [
                binary,
                f"--data-dir={data_dir}",
                f"--http-addr={http}",
                "--grpc-addr=localhost:0",
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.http = self._printed("http addr")
        self.grpc = self._printed("grpc addr")
        # The rest is read too, so that the program never waits for a reader.
        self._drain = threading.Thread(target=self._stdout.read, daemon=True)
        self._drain.start()

    def stop(self) -> None:
        """Stop it as an operator would; it must end well."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._drain.join(DEADLINE)
        self._stdout.close()
        self.log.seek(0)
        log = self.log.read()
        self.log.close()
        assert code == 0, f"the controller ended with {code}:\n{log}"

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    @property
    def _stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _printed(self, name: str) -> str:
        for line in self._stdout:
            if match := re.match(rf"\s*{name}\s+(\S+)$", line):
                return match[1]
        self.log.seek(0)
        raise AssertionError(f"the controller printed no {name}:\n{self.log.read()}")


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The controller program: CONTROLLER_BIN, or built here."""
    if given := os.environ.get("CONTROLLER_BIN"):
        return Path(given)
    built = tmp_path_factory.mktemp("bin") / "controller"
    subprocess.run(
        ["go", "build", "-o", built, "./cmd/controller"], cwd=REPOSITORY, check=True, timeout=300
    )
    return built


@pytest.fixture(scope="session")
def fleet(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A controller for tests that do not stop it. The first of its five VMs is ideal."""
    server = Server(binary, tmp_path_factory.mktemp("fleet"), "--simulate=5")
    try:
        yield server
    finally:
        server.stop()
