"""A client of the Roomcast chat server: rooms, history, resuming, an offline queue, tokens."""

from ._client import Client
from ._emitter import EventStream
from ._errors import Call, RoomcastError
from ._events import EventType, RoomEventType
from ._names import name_problem
from ._outbox import Sending
from ._room import Room
from ._types import (
    Cause,
    Data,
    Deleted,
    Event,
    Failed,
    HistoryPage,
    Joined,
    Left,
    Limits,
    Members,
    Message,
    Presence,
    Refreshed,
    RoomEvent,
    Said,
    Sent,
    ServerError,
    Status,
    StatusChange,
    TokenSource,
    Typing,
    UnsentMessage,
    User,
    Welcome,
)

__all__ = [
    "Call",
    "Cause",
    "Client",
    "Data",
    "Deleted",
    "Event",
    "EventStream",
    "EventType",
    "Failed",
    "HistoryPage",
    "Joined",
    "Left",
    "Limits",
    "Members",
    "Message",
    "Presence",
    "Refreshed",
    "Room",
    "RoomEvent",
    "RoomEventType",
    "RoomcastError",
    "Said",
    "Sending",
    "Sent",
    "ServerError",
    "Status",
    "StatusChange",
    "TokenSource",
    "Typing",
    "UnsentMessage",
    "User",
    "Welcome",
    "name_problem",
]
