"""Plays the same scenario with the blocking and with the asyncio client."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import mig_controller_client as mig


class Sync:
    """Calls through `connect`."""

    def __init__(self, url: str, **options: Any) -> None:
        self._controller = mig.connect(url, **options)

    def admin(self, method: str, request: Any, **options: Any) -> Any:
        return getattr(self._controller.admin, method)(request, **options)

    def access(self, method: str, request: Any) -> Any:
        return getattr(self._controller.access, method)(request)

    def watch(self, request: mig.WatchFleetRequest, **options: Any) -> Iterator[Any]:
        return self._controller.admin.watch_fleet(request, **options)

    def agent(self) -> SyncAgent:
        return SyncAgent(self._controller)

    def close(self) -> None:
        self._controller.close()


class SyncAgent:
    """An agent's stream; every wait has a deadline, the stream's own."""

    def __init__(self, controller: mig.Controller) -> None:
        self._outbox: queue.Queue[mig.MIGletMessage | None] = queue.Queue()
        self._inbox = controller.commands.stream_commands(
            iter(self._outbox.get, None), timeout_ms=30_000
        )

    def send(self, **message: Any) -> None:
        self._outbox.put(mig.MIGletMessage(**message))

    def receive(self) -> mig.ControllerMessage | None:
        return next(self._inbox, None)

    def end(self) -> None:
        self._outbox.put(None)


class Async:
    """Calls through `connect_async`, on an event loop of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._controller = mig.connect_async(url, **options)

    def admin(self, method: str, request: Any, **options: Any) -> Any:
        call = getattr(self._controller.admin, method)
        return self._loop.run_until_complete(call(request, **options))

    def access(self, method: str, request: Any) -> Any:
        call = getattr(self._controller.access, method)
        return self._loop.run_until_complete(call(request))

    def watch(self, request: mig.WatchFleetRequest, **options: Any) -> Iterator[Any]:
        changes = self._controller.admin.watch_fleet(request, **options)
        closing = mig.aclosing(changes)
        try:
            while (change := self._loop.run_until_complete(anext(changes, None))) is not None:
                yield change
        finally:
            self._loop.run_until_complete(closing.__aexit__(None, None, None))

    def agent(self) -> AsyncAgent:
        return AsyncAgent(self._controller, self._loop)

    def close(self) -> None:
        self._loop.run_until_complete(self._controller.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class AsyncAgent:
    """An agent's stream; every wait has a deadline, the stream's own."""

    def __init__(self, controller: mig.AsyncController, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outbox: asyncio.Queue[mig.MIGletMessage | None] = asyncio.Queue()
        self._inbox = controller.commands.stream_commands(self._outgoing(), timeout_ms=30_000)

    def send(self, **message: Any) -> None:
        self._outbox.put_nowait(mig.MIGletMessage(**message))

    def receive(self) -> mig.ControllerMessage | None:
        return self._loop.run_until_complete(anext(self._inbox, None))

    def end(self) -> None:
        self._outbox.put_nowait(None)

    async def _outgoing(self) -> AsyncIterator[mig.MIGletMessage]:
        while (message := await self._outbox.get()) is not None:
            yield message
