"""Keeps connections to the process that made them."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from migcontroller.v1.access_service_connect import (
    AccessServiceClient,
    AccessServiceClientSync,
)
from migcontroller.v1.agent_service_connect import (
    AgentServiceClient,
    AgentServiceClientSync,
)
from miglet.commands.commands_connect import (
    CommandServiceClient,
    CommandServiceClientSync,
)

if TYPE_CHECKING:
    from typing import Any


@functools.cache
def _process() -> int:
    """Return the process that connected first: pyqwest's threads are in that one only."""
    return os.getpid()


def check_process() -> None:
    """Raise RuntimeError in a process that was forked off after the first connection."""
    if os.getpid() != _process():
        raise RuntimeError("connections do not work after a fork: connect in the child only")


class OneProcess:
    """A client whose calls raise after a fork, where they would hang.

    An interceptor could do this too, but with one asyncio closes streams later.
    """

    def execute_unary(self, *args: Any, **kwargs: Any) -> Any:
        check_process()
        return super().execute_unary(*args, **kwargs)  # type: ignore[misc]

    def execute_bidi_stream(self, *args: Any, **kwargs: Any) -> Any:
        check_process()
        return super().execute_bidi_stream(*args, **kwargs)  # type: ignore[misc]


class AccessSync(OneProcess, AccessServiceClientSync):
    """AccessService in one process."""


class Access(OneProcess, AccessServiceClient):
    """AccessService for asyncio in one process."""


class AgentSync(OneProcess, AgentServiceClientSync):
    """AgentService in one process."""


class Agent(OneProcess, AgentServiceClient):
    """AgentService for asyncio in one process."""


class CommandsSync(OneProcess, CommandServiceClientSync):
    """CommandService in one process."""


class Commands(OneProcess, CommandServiceClient):
    """CommandService for asyncio in one process."""
