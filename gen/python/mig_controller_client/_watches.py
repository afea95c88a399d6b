"""Watches that end when nothing comes any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from migcontroller.v1.admin_service_connect import (
    AdminServiceClient,
    AdminServiceClientSync,
)

from ._process import OneProcess, check_process

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
    from typing import Any

    from connectrpc.request import Headers

    from migcontroller.v1.admin_service_pb2 import WatchFleetRequest, WatchFleetResponse


def _broken(error: ConnectError, timeout_ms: int | None) -> ConnectError:
    """Return the error of a watch: without a deadline, a timeout is a silent connection."""
    if error.code != Code.DEADLINE_EXCEEDED or timeout_ms is not None:
        return error
    return ConnectError(Code.UNAVAILABLE, "the watch got no answer for too long")


class AdminSync(OneProcess, AdminServiceClientSync):
    """AdminService, whose watches have a connection of their own."""

    def __init__(self, address: str, *, watches: AdminServiceClientSync, **options: Any) -> None:
        super().__init__(address, **options)
        self._watches = watches

    def watch_fleet(
        self,
        request: WatchFleetRequest,
        *,
        headers: Headers | Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
    ) -> Iterator[WatchFleetResponse]:
        """Watch the fleet; UNAVAILABLE also ends a watch that gets no answer any more."""
        check_process()
        try:
            yield from self._watches.watch_fleet(request, headers=headers, timeout_ms=timeout_ms)
        except ConnectError as error:
            raise _broken(error, timeout_ms) from error


class Admin(OneProcess, AdminServiceClient):
    """AdminService for asyncio, whose watches have a connection of their own."""

    def __init__(self, address: str, *, watches: AdminServiceClient, **options: Any) -> None:
        super().__init__(address, **options)
        self._watches = watches

    def watch_fleet(
        self,
        request: WatchFleetRequest,
        *,
        headers: Headers | Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
    ) -> AsyncIterator[WatchFleetResponse]:
        """Watch the fleet; UNAVAILABLE also ends a watch that gets no answer any more."""
        check_process()
        changes = self._watches.watch_fleet(request, headers=headers, timeout_ms=timeout_ms)
        return _AsyncWatch(cast("AsyncGenerator[WatchFleetResponse, None]", changes), timeout_ms)


class _AsyncWatch:
    """A stream of the async client. It is not a generator: asyncio closes those late."""

    def __init__(
        self, changes: AsyncGenerator[WatchFleetResponse, None], timeout_ms: int | None
    ) -> None:
        self._changes = changes
        self._timeout_ms = timeout_ms

    def __aiter__(self) -> _AsyncWatch:
        return self

    async def __anext__(self) -> WatchFleetResponse:
        try:
            return await self._changes.__anext__()
        except ConnectError as error:
            raise _broken(error, self._timeout_ms) from error

    async def aclose(self) -> None:
        await self._changes.aclose()
