"""One room that the application wants to be in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ._errors import Deferred
from ._types import Message

if TYPE_CHECKING:
    from ._room import Room


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion, which is counted as a message is."""

    seq: int
    seqs: tuple[int, ...]


Entry: TypeAlias = Message | Deletion


class Membership:
    """That the application wants to be in a room, and where the client stands in it."""

    def __init__(self, room: Room, history: int) -> None:
        self.room = room
        self.name = room.name
        self.history = history
        self.epoch: str | None = None  # until the first `joined`
        self.seq = 0  # of the last message handed to the application
        self.join_id: str | None = None  # of the join that is not answered yet
        self.provisional: list[Entry] | None = None  # of which only `joined` will tell whether they follow what we have
        self.refusals = 0
        self.removal: tuple[str, str] | None = None  # code and message: why the server is about to take us out
        self.typing: tuple[str, ...] = ()  # the others who are typing
        self.typing_sent_at = -math.inf
        self.answer: Deferred[Room] = Deferred()  # of `join`

    @property
    def is_live(self) -> bool:
        """Whether `joined` has come on this connection."""
        return self.room.is_joined

    def joining(self, join_id: str) -> None:
        self.join_id = join_id
        self.provisional = []

    def joined(self, epoch: str, seq: int) -> None:
        self.epoch = epoch
        self.seq = seq
        self.join_id = None
        self.provisional = None
        self.refusals = 0
        self.room._is_joined = True

    def restart(self) -> None:
        """Forgets messages of an earlier stay in the room."""
        if self.join_id is not None:
            self.provisional = []

    def disconnected(self) -> None:
        self.join_id = None
        self.provisional = None
        self.typing_sent_at = -math.inf
        self.room._is_joined = False


def in_order(entries: list[Entry], after: int) -> list[Entry]:
    """Each entry behind a position once, in the order of the numbers."""
    found: list[Entry] = []
    last = after
    for entry in entries:
        if entry.seq > last:
            found.append(entry)
            last = entry.seq
    return found
