"""A room of a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._errors import Call
from ._events import ROOM_EVENTS, RoomEvents
from ._outbox import Sending
from ._types import Data, HistoryPage, UnsentMessage, User

if TYPE_CHECKING:
    from ._client import Client


class Room(RoomEvents):
    """A room, with the events of this room alone. It stays the same object when the room is left and joined again."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(ROOM_EVENTS)
        self._client = client
        self._name = name
        self._is_joined = False
        self._count = 0
        self._users: tuple[User, ...] | None = ()

    def __repr__(self) -> str:
        return f"<Room {self._name!r}>"

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_joined(self) -> bool:
        """Whether the room is joined on the connection that is there now."""
        return self._is_joined

    @property
    def count(self) -> int:
        """How many users are in the room."""
        return self._count

    @property
    def users(self) -> tuple[User, ...] | None:
        """The users, or None in a room too big to list."""
        return self._users

    def join(self, *, history: int = 0) -> Call[Room]:
        """Joins, now or when the connection is there, with that many of the newest messages."""
        return self._client.join(self._name, history=history)

    def leave(self) -> None:
        self._client.leave(self._name)

    def say(self, text: str, data: Data = None) -> Sending:
        """Says something as soon as possible; await it for its number."""
        return self._client.say(self._name, text, data)

    def typing(self, is_active: bool = True) -> None:
        """Tells the others that the user types, or has cleared the text."""
        self._client.typing(self._name, is_active)

    def history(self, *, before: int | None = None, limit: int = 50) -> Call[HistoryPage]:
        """A page of older messages: those before a `seq`, or the newest."""
        return self._client.history(self._name, before=before, limit=limit)

    def unsent(self) -> list[UnsentMessage]:
        """The messages that are not acknowledged yet."""
        return self._client.unsent(self._name)
