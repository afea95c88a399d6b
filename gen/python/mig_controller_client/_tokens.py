"""Tokens: fixed ones, and functions that fetch a fresh one for each call."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from connectrpc.code import Code
from connectrpc.errors import ConnectError

if TYPE_CHECKING:
    from typing import Any

    from connectrpc.request import RequestContext

    Token = str | Callable[[], str]
    """A token, or a function that returns a fresh one."""
    AsyncToken = str | Callable[[], str | Awaitable[str]]
    """A token, or a function that returns a fresh one, also a coroutine function."""


def check_token(token: object) -> str:
    """Return the token; raise ValueError for one that cannot be sent."""
    if (
        not isinstance(token, str)
        or not token
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise ValueError("token must be printable ASCII without spaces, and not empty")
    return token


def _failed(error: Exception) -> ConnectError:
    """Return the error of a call whose token could not be fetched."""
    if isinstance(error, ConnectError):
        return error
    return ConnectError(Code.UNAUTHENTICATED, f"get a token: {str(error) or type(error).__name__}")


class BearerSync:
    """Puts the token into the headers of every call of a blocking client."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def on_start_sync(self, ctx: RequestContext[Any, Any], /) -> None:
        try:
            token = check_token(self._token() if callable(self._token) else self._token)
        except Exception as error:
            raise _failed(error) from error
        ctx.request_headers["authorization"] = f"Bearer {token}"

    def on_end_sync(
        self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /
    ) -> None:
        pass


class Bearer:
    """Puts the token into the headers of every call of an asyncio client."""

    def __init__(self, token: AsyncToken) -> None:
        self._token = token

    async def on_start(self, ctx: RequestContext[Any, Any]) -> None:
        try:
            given = self._token() if callable(self._token) else self._token
            token = check_token(await given if inspect.isawaitable(given) else given)
        except Exception as error:
            raise _failed(error) from error
        ctx.request_headers["authorization"] = f"Bearer {token}"

    async def on_end(
        self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /
    ) -> None:
        pass
