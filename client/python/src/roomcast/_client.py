"""The client: what applications call, and how its parts work together."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from . import _wire
from ._errors import Call, Deferred, RoomcastError, rejected
from ._events import EVENTS, ClientEvents
from ._link import AskedIdentity, Link, LinkHost
from ._memberships import Memberships, stale
from ._names import check_name
from ._outbox import Outbox, Sending, failed_sending
from ._pages import Pages
from ._room import Room
from ._socket import AsyncioRuntime, Runtime, Transport, check_headers
from ._tokens import check_token
from ._types import (
    Data,
    HistoryPage,
    Limits,
    Refreshed,
    Status,
    StatusChange,
    TokenSource,
    UnsentMessage,
    Welcome,
)
from ._url import socket_url
from ._wire import Fields


class Client(ClientEvents):
    """A client of a Roomcast server. docs/python-client.md in the server's repository tells how it is used.

    Calls begin at once, and are awaited for their results. All of them belong to one event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        user_id: str | None = None,
        name: str | None = None,
        token: TokenSource | None = None,
        queue_max: int = 1000,
        headers: Mapping[str, str] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        proxy: str | bool = True,
        _runtime: Runtime | None = None,
    ) -> None:
        super().__init__(EVENTS)
        address = socket_url(url)
        if user_id:
            check_name("user", user_id)
        if not (name is None or isinstance(name, str)):
            raise TypeError(f"name is {type(name).__name__}; a string is allowed")
        if not (token is None or isinstance(token, str) or callable(token)):
            raise TypeError(f"token is {type(token).__name__}; a string or a function is allowed")
        if isinstance(token, str):
            check_token(token)
        _check_integer("queue_max", queue_max, 1)
        check_headers(headers or {})
        if token is not None and any(header.lower() == "authorization" for header in headers or ()):
            raise ValueError("headers have an Authorization, where the token goes; one of the two is allowed")
        if ssl is not None and not address.is_secure:
            raise ValueError(f"{url!r} takes no ssl; wss and https do")
        transport = Transport(dict(headers or {}), ssl, proxy, queue_max)
        host = LinkHost(
            on_status=self._on_status,
            on_down=self._on_down,
            on_welcome=self._on_welcome,
            on_message=self._on_message,
            is_level=self._is_level,
        )
        asked = AskedIdentity(user_id or "", _wire.well_formed(name or ""), token)
        self._link = Link(address, asked, transport, _runtime or AsyncioRuntime(), host)
        self._memberships = Memberships(self._link, self._tell)
        self._outbox = Outbox(self._link, self._memberships, self._tell, queue_max)
        self._pages = Pages(self._link)
        self._memberships.outbox = self._outbox
        self._memberships.pages = self._pages
        self._rooms: dict[str, Room] = {}  # also those that are not joined
        self._welcome: Welcome | None = None  # the last one
        self._opening: Deferred[Welcome] | None = None  # of `connect`, until the client is online
        self._ending: RoomcastError | None = None  # why the server has closed the connection for good

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            # Otherwise a client that nobody holds would go on trying.
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def status(self) -> Status:
        return self._link.status

    @property
    def user_id(self) -> str:
        """The user id; the server's choice once `welcome` has come."""
        return self._link.user_id

    @property
    def limits(self) -> Limits:
        return self._link.limits

    def connect(self) -> Call[Welcome]:
        """Connects, and keeps connected until `close` or until the server says to stay away."""
        opening = self._opening or Deferred()
        if self.status == "online" and self._welcome:
            opening.resolve(self._welcome)
            return opening.call
        self._ending = None
        self._opening = opening
        self._link.connect()
        return opening.call

    def reconnect(self) -> None:
        """Tries again at once when offline, and makes sure of the connection when online."""
        self._link.reconnect()

    def close(self) -> Call[None]:
        """Disconnects; await it until that is done. Rooms and unsent messages are kept for another `connect`."""
        if self.status != "closed":
            self._link.close()
        self._end_all_streams(None)
        return Call(asyncio.ensure_future(self._link.wait_closed()))

    def room(self, name: str) -> Room:
        """The room of this name, joined or not: the same object at each call."""
        check_name("room", name)
        if name not in self._rooms:
            self._rooms[name] = Room(self, name)
        return self._rooms[name]

    def join(self, name: str, *, history: int = 0) -> Call[Room]:
        """Joins a room, now or when the connection is there, with that many of the newest messages."""
        _check_integer("history", history, 0)
        try:
            return self._memberships.join(self.room(name), history)
        except RoomcastError as error:
            return rejected(error)

    def leave(self, name: str) -> None:
        self._memberships.leave(name)

    def say(self, name: str, text: str, data: Data = None) -> Sending:
        """Says something as soon as possible; await it for its number.

        It is sent again with the same id until it is known to have been accepted: on the next connection, after a
        temporary refusal, and when no answer has come within 15 s.
        """
        if self._ending:
            return failed_sending(self._ending)
        answer = self._outbox.add(name, text, data)
        if answer.id is not None:
            self.typing(name, False)
            self._outbox.flush()
        return answer

    def unsent(self, name: str) -> list[UnsentMessage]:
        """The messages in a room that are not acknowledged yet."""
        return self._outbox.unsent(name)

    def typing(self, name: str, is_active: bool = True) -> None:
        """Tells the others that the user types, or has cleared the text."""
        self._memberships.typing(name, is_active)

    def history(self, name: str, *, before: int | None = None, limit: int = 50) -> Call[HistoryPage]:
        """A page of older messages. Where the room is not joined at this moment, it fails at once."""
        if before is not None:
            _check_integer("before", before, 1)
        _check_integer("limit", limit, 1)
        if not self._memberships.is_wanted(name):
            return rejected(RoomcastError("not_joined", f"join {name} before its history is read"))
        if not self._memberships.is_live(name):
            return rejected(RoomcastError("offline", "there is no connection", temporary=True))
        return self._pages.ask(name, before, limit)

    # ---- What the link tells ----

    def _tell(self, type: str, room: str | None, event: object) -> None:
        self._emit(type, event)
        if room is not None and room in self._rooms:
            self._rooms[room]._emit(type, event)

    def _on_status(self, change: StatusChange) -> None:
        if change.status == "closed":
            self._on_closed(change)
        self._emit("status", change)
        if change.status == "closed" and change.cause:
            self._end_all_streams(self._ending)

    def _on_closed(self, change: StatusChange) -> None:
        cause = change.cause
        instead = f"the server has closed the connection ({change.code})" if cause else "the client was closed"
        error = RoomcastError(cause or "closed", change.reason or instead, status=change.code or None)
        if self._opening:
            self._opening.reject(error)
            self._opening = None
        if cause:
            self._ending = error
            self._memberships.closed(error)
            self._outbox.fail_all(error)

    def _on_down(self) -> None:
        self._memberships.disconnected()
        self._outbox.send_all_again()
        self._pages.fail_all(RoomcastError("offline", "the connection was lost", temporary=True))

    def _on_welcome(self, welcome: Welcome) -> None:
        self._welcome = welcome
        self._emit("welcome", welcome)
        if self._opening:
            self._opening.resolve(welcome)
            self._opening = None
        if self._link.is_online:
            self._memberships.online()

    def _is_level(self) -> bool:
        return self._memberships.is_level()

    def _on_message(self, fields: Fields) -> None:
        match fields.text("type"):
            case "joined":
                self._memberships.on_joined(fields)
            case "left":
                self._memberships.on_left(fields)
            case "chat":
                self._on_chat(fields)
            case "ack":
                self._outbox.acknowledge(fields.text("id"), fields.integer("seq"))
            case "history":
                self._on_history(fields)
            case "deleted":
                self._memberships.on_deleted(fields)
            case "refreshed":
                self._emit("refreshed", Refreshed(fields.integer_or_none("expiresAt")))
            case "presence":
                self._memberships.on_presence(fields)
            case "members":
                self._memberships.on_members(fields)
            case "typing":
                self._memberships.on_typing(fields)
            case "error":
                self._on_error(fields)

    def _on_chat(self, fields: Fields) -> None:
        message = _wire.message(fields, self.user_id)
        if message.own and message.id is not None:
            self._outbox.acknowledge(message.id, message.seq)
        self._memberships.on_chat(message)

    def _on_history(self, fields: Fields) -> None:
        id, entries = fields.text_or_none("id"), [Fields(entry) for entry in fields.list_or_none("messages") or []]
        if id is None:
            return
        # The numbers would not be those of the messages that are shown.
        if self._memberships.epoch(fields.text("room")) != fields.text("epoch"):
            self._pages.fail(id, stale())
            return
        found = tuple(_wire.message(entry, self.user_id) for entry in entries if entry.text("type") == "chat")
        before = entries[0].integer("seq") if entries else None
        self._pages.take(id, HistoryPage(found, fields.truth_or_none("more") or False, before))

    def _on_error(self, fields: Fields) -> None:
        error = _wire.error(fields)
        if error.code == "removed":
            self._memberships.on_removed(error)
            return
        if self._link.take_error(error):
            self._emit("error", error)
            return
        if error.code == "rate_limited":
            # The server knows by its id a message that it has accepted.
            self._link.slow_down(error.retry_after_ms)
            self._outbox.send_all_again()
            self._outbox.flush()
        if self._pages.take_error(error):
            return
        if self._outbox.take_error(error):
            if error.code == "muted":
                self._emit("error", error)
            return
        self._memberships.take_error(error)
        self._emit("error", error)

    def _end_all_streams(self, error: RoomcastError | None) -> None:
        self._end_streams(error)
        for room in self._rooms.values():
            room._end_streams(error)


def _check_integer(name: str, value: object, least: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{name} is {type(value).__name__}; an integer is allowed")
    if value < least:
        raise ValueError(f"{name} is {value}; numbers from {least} are allowed")
