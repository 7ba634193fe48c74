"""Events, results and settings. Times and durations are milliseconds, as in the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Status: TypeAlias = Literal["closed", "connecting", "online", "offline"]
"""The state of the connection."""

Cause: TypeAlias = Literal[
    # offline: the client tries again
    "network",
    "unreachable",
    "lost",
    "unavailable",
    "too_many",
    "not_found",
    "no_upgrade",
    "token_unavailable",
    "token_expired",
    # closed, or offline where a token function may give a better one
    "token_needed",
    "token_refused",
    # closed; offline too if the answer came from a program in between
    "banned",
    "origin",
    "forbidden",
    "bad_request",
    # closed
    "replaced",
    "flooded",
    "stalled",
    "server",
    "blocked",
]
"""Why the client is offline or closed."""

Data: TypeAlias = Any
"""JSON of the application beside the text."""

TokenSource: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A token, or a function that gives one: before every connection, and before the last one expires."""


@dataclass(frozen=True, slots=True)
class StatusChange:
    """The event `status`."""

    status: Status
    #: Why the client is offline or closed; None while connecting and online, and after `close`.
    cause: Cause | None = None
    #: The close code, the HTTP status of the refused handshake, or 0.
    code: int = 0
    reason: str = ""
    #: When the client tries again, in Unix milliseconds; only if offline.
    retry_at: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the server; None where it has not said."""

    message_bytes: int | None = None
    data_bytes: int | None = None
    rooms_per_connection: int | None = None
    message_rate: int | None = None
    message_burst: int | None = None
    history_messages: int | None = None
    history_age_ms: int | None = None
    dedupe_window_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The event `welcome`, and the result of `connect`."""

    user_id: str
    name: str | None
    ping_interval: int
    expires_at: int | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The event `refreshed`: a new token has taken the place of the last one."""

    expires_at: int | None


@dataclass(frozen=True, slots=True)
class User:
    user_id: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """The event `chat`, and a message of a history."""

    room: str
    user_id: str
    name: str | None
    text: str
    data: Data
    id: str | None
    ts: int
    seq: int
    #: Whether it is of the user of this client.
    own: bool


@dataclass(frozen=True, slots=True)
class UnsentMessage:
    room: str
    id: str
    text: str
    data: Data


@dataclass(frozen=True, slots=True)
class Joined:
    """The event `joined`."""

    room: str
    #: The history, or what was missed, oldest first.
    messages: tuple[Message, ...]
    #: Whether messages that were shown before no longer count.
    replace: bool
    #: Whether the room had been joined on an earlier connection.
    resumed: bool
    recovered: bool | None
    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Left:
    """The event `left`: the server took the user out of the room."""

    room: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Said:
    """The result of `say`: the message is accepted."""

    id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Sent:
    """The event `sent`: a message is accepted."""

    room: str
    id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The event `failed`: a message was given up."""

    room: str
    id: str
    text: str
    data: Data
    code: str
    message: str
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """The event `deleted`: the texts of these messages are gone; some of them may not have been shown."""

    room: str
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Members:
    """The event `members`; `users` is None in a room too big to list."""

    room: str
    count: int
    users: tuple[User, ...] | None


@dataclass(frozen=True, slots=True)
class Presence:
    """The event `presence`."""

    room: str
    user_id: str
    name: str | None
    status: Literal["online", "offline"]


@dataclass(frozen=True, slots=True)
class Typing:
    """The event `typing`: the others who are typing now."""

    room: str
    user_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerError:
    """The event `error`: an error of the server that concerns no call of this client, or has the code `muted`."""

    code: str
    message: str
    temporary: bool
    room: str | None = None
    id: str | None = None
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The result of `history`."""

    #: Oldest first.
    messages: tuple[Message, ...]
    #: Whether there are older ones.
    more: bool
    #: Where the next page begins: give it as `before`. None if there was nothing.
    before: int | None


RoomEvent: TypeAlias = Joined | Left | Message | Sent | Failed | Deleted | Members | Presence | Typing
"""Any event of a room."""

Event: TypeAlias = StatusChange | Welcome | Refreshed | RoomEvent | ServerError
"""Any event of a client."""
