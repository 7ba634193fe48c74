"""The types of events, and the classes that come with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args, overload

from ._emitter import Emitter, EventStream
from ._types import (
    Deleted,
    Event,
    Failed,
    Joined,
    Left,
    Members,
    Message,
    Presence,
    Refreshed,
    RoomEvent,
    Sent,
    ServerError,
    StatusChange,
    Typing,
    Welcome,
)

RoomEventType: TypeAlias = Literal[
    "joined",
    "left",
    "chat",
    "sent",
    "failed",
    "deleted",
    "members",
    "presence",
    "typing",
]
EventType: TypeAlias = Literal[
    "status",
    "welcome",
    "refreshed",
    "joined",
    "left",
    "chat",
    "sent",
    "failed",
    "deleted",
    "members",
    "presence",
    "typing",
    "error",
]

ROOM_EVENTS: tuple[str, ...] = get_args(RoomEventType)
EVENTS: tuple[str, ...] = get_args(EventType)


class RoomEvents(Emitter):
    """The events of a room."""

    @overload
    def on(self, type: Literal["joined"], listener: Callable[[Joined], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["left"], listener: Callable[[Left], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["chat"], listener: Callable[[Message], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["sent"], listener: Callable[[Sent], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["failed"], listener: Callable[[Failed], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["deleted"], listener: Callable[[Deleted], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["members"], listener: Callable[[Members], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["presence"], listener: Callable[[Presence], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["typing"], listener: Callable[[Typing], object]) -> Callable[[], None]: ...

    def on(self, type: str, listener: Callable[[Any], object]) -> Callable[[], None]:
        """Calls a function with each event of this type; returns a function that stops that."""
        return self._listen(type, listener)

    @overload
    def events(self, type: Literal["joined"], /) -> EventStream[Joined]: ...
    @overload
    def events(self, type: Literal["left"], /) -> EventStream[Left]: ...
    @overload
    def events(self, type: Literal["chat"], /) -> EventStream[Message]: ...
    @overload
    def events(self, type: Literal["sent"], /) -> EventStream[Sent]: ...
    @overload
    def events(self, type: Literal["failed"], /) -> EventStream[Failed]: ...
    @overload
    def events(self, type: Literal["deleted"], /) -> EventStream[Deleted]: ...
    @overload
    def events(self, type: Literal["members"], /) -> EventStream[Members]: ...
    @overload
    def events(self, type: Literal["presence"], /) -> EventStream[Presence]: ...
    @overload
    def events(self, type: Literal["typing"], /) -> EventStream[Typing]: ...
    @overload
    def events(self, *types: RoomEventType) -> EventStream[RoomEvent]: ...

    def events(self, *types: str) -> EventStream[Any]:
        """The events of these types from now on, or all of them: `async for event in …`."""
        return self._stream(types)


class ClientEvents(Emitter):
    """The events of a client: those of all its rooms, and its own."""

    @overload
    def on(self, type: Literal["status"], listener: Callable[[StatusChange], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["welcome"], listener: Callable[[Welcome], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["refreshed"], listener: Callable[[Refreshed], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["joined"], listener: Callable[[Joined], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["left"], listener: Callable[[Left], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["chat"], listener: Callable[[Message], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["sent"], listener: Callable[[Sent], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["failed"], listener: Callable[[Failed], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["deleted"], listener: Callable[[Deleted], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["members"], listener: Callable[[Members], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["presence"], listener: Callable[[Presence], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["typing"], listener: Callable[[Typing], object]) -> Callable[[], None]: ...
    @overload
    def on(self, type: Literal["error"], listener: Callable[[ServerError], object]) -> Callable[[], None]: ...

    def on(self, type: str, listener: Callable[[Any], object]) -> Callable[[], None]:
        """Calls a function with each event of this type; returns a function that stops that."""
        return self._listen(type, listener)

    @overload
    def events(self, type: Literal["status"], /) -> EventStream[StatusChange]: ...
    @overload
    def events(self, type: Literal["welcome"], /) -> EventStream[Welcome]: ...
    @overload
    def events(self, type: Literal["refreshed"], /) -> EventStream[Refreshed]: ...
    @overload
    def events(self, type: Literal["joined"], /) -> EventStream[Joined]: ...
    @overload
    def events(self, type: Literal["left"], /) -> EventStream[Left]: ...
    @overload
    def events(self, type: Literal["chat"], /) -> EventStream[Message]: ...
    @overload
    def events(self, type: Literal["sent"], /) -> EventStream[Sent]: ...
    @overload
    def events(self, type: Literal["failed"], /) -> EventStream[Failed]: ...
    @overload
    def events(self, type: Literal["deleted"], /) -> EventStream[Deleted]: ...
    @overload
    def events(self, type: Literal["members"], /) -> EventStream[Members]: ...
    @overload
    def events(self, type: Literal["presence"], /) -> EventStream[Presence]: ...
    @overload
    def events(self, type: Literal["typing"], /) -> EventStream[Typing]: ...
    @overload
    def events(self, type: Literal["error"], /) -> EventStream[ServerError]: ...
    @overload
    def events(self, *types: EventType) -> EventStream[Event]: ...

    def events(self, *types: str) -> EventStream[Any]:
        """The events of these types from now on, or all of them: `async for event in …`."""
        return self._stream(types)
