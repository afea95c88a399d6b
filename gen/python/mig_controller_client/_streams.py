"""Ends the streams that the async client receives."""

from __future__ import annotations

from contextlib import aclosing as _aclosing
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

_T = TypeVar("_T")


def aclosing(stream: AsyncIterator[_T]) -> AbstractAsyncContextManager[AsyncIterator[_T]]:
    """End a stream of the async client when its block is left.

    Without it, a stream that is left early stays open until asyncio finds it. This is
    contextlib.aclosing, for the type that the generated methods declare.
    """
    return _aclosing(cast("AsyncGenerator[_T, None]", stream))
