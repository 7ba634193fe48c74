"""Events of known types: listeners are called with them, and streams are iterated over."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from ._errors import RoomcastError

E = TypeVar("E")

BUFFER_MAX = 10_000  # events that a stream keeps for a loop that is busy


class EventStream(AsyncIterator[E], Generic[E]):
    """Events from the moment on in which the stream was made.

    It ends when the room is left or the client is closed, and raises `RoomcastError` where the server has ended it.
    A loop that falls too far behind gets the error `events_lost` in place of what it missed.
    """

    def __init__(self) -> None:
        self._found: deque[E] = deque()
        self._changed = asyncio.Event()
        self._is_open = True
        self._error: RoomcastError | None = None

    def __aiter__(self) -> EventStream[E]:
        return self

    async def __anext__(self) -> E:
        while not self._found:
            if not self._is_open:
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._found.popleft()

    def close(self) -> None:
        """Ends the stream."""
        self._end(None)

    def _put(self, event: E) -> None:
        if not self._is_open:
            return
        if len(self._found) >= BUFFER_MAX:
            self._end(RoomcastError("events_lost", f"more than {BUFFER_MAX} events were waiting to be read"))
            return
        self._found.append(event)
        self._changed.set()

    def _end(self, error: RoomcastError | None) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._error = error
        self._changed.set()


class Emitter:
    """Tells events of the types that it knows."""

    def __init__(self, types: tuple[str, ...]) -> None:
        self._types = types
        # By number, because the same function may listen twice.
        self._listeners: dict[str, dict[int, Callable[[Any], object]]] = {type: {} for type in types}
        self._keys = itertools.count()
        # A loop that was left drops its stream, which ends with it.
        self._streams: dict[str, weakref.WeakSet[EventStream[Any]]] = {type: weakref.WeakSet() for type in types}

    def _listen(self, type: str, listener: Callable[[Any], object]) -> Callable[[], None]:
        self._check(type)
        if not callable(listener):
            raise TypeError(f"the listener of {type!r} is no function")
        if inspect.iscoroutinefunction(listener):
            raise TypeError(f"the listener of {type!r} is async; plain functions are allowed, and events() for loops")
        listeners, key = self._listeners[type], next(self._keys)
        listeners[key] = listener

        def stop() -> None:
            listeners.pop(key, None)

        return stop

    def _stream(self, types: tuple[str, ...]) -> EventStream[Any]:
        for type in types:
            self._check(type)
        stream: EventStream[Any] = EventStream()
        for type in types or self._types:
            self._streams[type].add(stream)
        return stream

    def _emit(self, type: str, event: object) -> None:
        if type not in self._types:
            return
        for stream in list(self._streams[type]):
            stream._put(event)
        for listener in list(self._listeners[type].values()):
            try:
                listener(event)
            except Exception as error:
                # A mistake in a listener is told as that of any callback, and takes the event from nobody else.
                context = {"message": f"a listener of {type!r} failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)

    def _end_streams(self, error: RoomcastError | None) -> None:
        for streams in self._streams.values():
            for stream in list(streams):
                stream._end(error)

    def _check(self, type: str) -> None:
        if type not in self._types:
            raise ValueError(f"there is no event {type!r}; there are {', '.join(self._types)}")
