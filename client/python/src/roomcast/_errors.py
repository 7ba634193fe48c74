"""Errors with codes, and calls that are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class RoomcastError(Exception):
    """An error with a code: that of the protocol, or one of the client's own."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        temporary: bool | None = None,
        retry_after_ms: int | None = None,
        id: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        #: Whether the same call may succeed later; None where that is not known.
        self.temporary = temporary
        self.retry_after_ms = retry_after_ms
        #: The id of the message that was given up.
        self.id = id
        #: The close code or HTTP status that ended the connection.
        self.status = status

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Call(Awaitable[T]):
    """A call that has begun. Await it for its result, or leave it alone: an event tells of its failure, too.

    Cancelling a task that awaits it takes nothing back.
    """

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[T]) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.shield(self._future).__await__()

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self._future.done()


class Deferred(Generic[T]):
    """The result of a call, to be set later. Nobody has to handle its failure."""

    __slots__ = ("_future", "call")

    def __init__(self) -> None:
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._future.add_done_callback(_retrieve)
        self.call: Call[T] = Call(self._future)

    def resolve(self, value: T) -> None:
        if not self._future.done():
            self._future.set_result(value)

    def reject(self, error: RoomcastError) -> None:
        if not self._future.done():
            self._future.set_exception(error)


def _retrieve(future: asyncio.Future[Any]) -> None:
    # Otherwise asyncio logs that an exception was never retrieved.
    if not future.cancelled():
        future.exception()


def rejected(error: RoomcastError) -> Call[Any]:
    """A call that has failed already."""
    answer: Deferred[Any] = Deferred()
    answer.reject(error)
    return answer.call
