"""The messages that are not acknowledged yet."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import _wire
from ._errors import Call, Deferred, RoomcastError
from ._link import Link
from ._types import Data, Failed, Said, Sent, ServerError, UnsentMessage

if TYPE_CHECKING:
    from ._memberships import Emit, Memberships

ANSWER = 15.0  # how long the server may take to answer a message before it is sent again
REFUSALS_MAX = 20  # temporary errors for one message before it is given up


class Sending(Call[Said]):
    """A message that is being said: await it for its number."""

    __slots__ = ("id",)

    def __init__(self, answer: Deferred[Said], id: str | None) -> None:
        super().__init__(answer.call._future)
        #: The id of the message; None if it could not be said at all.
        self.id = id


@dataclass(slots=True)
class Unacknowledged:
    """A message, and how far it has come."""

    message: UnsentMessage
    text: str  # as it is sent
    size: int
    data_size: int
    answer: Deferred[Said]
    is_sent: bool = False
    sent_at: float = 0.0
    refusals: int = 0


class Outbox:
    """The messages that are not acknowledged yet, in the order of `say`."""

    def __init__(self, link: Link, memberships: Memberships, emit: Emit, queue_max: int) -> None:
        self._entries: dict[str, Unacknowledged] = {}
        self._link = link
        self._memberships = memberships
        self._emit = emit
        self._queue_max = queue_max

    def add(self, room: str, text: str, data: Data) -> Sending:
        """Takes a message; the result has an id, or none if it cannot be said at all."""
        try:
            entry = self._entry(room, text, data)
        except RoomcastError as error:
            return failed_sending(error)
        id = entry.message.id
        self._entries[id] = entry
        return Sending(entry.answer, id)

    def _entry(self, room: str, text: str, data: Data) -> Unacknowledged:
        if not self._memberships.is_wanted(room):
            raise RoomcastError("not_joined", f"join {room} before speaking there")
        if not _is_text(text):
            raise RoomcastError("bad_message", "text must be a string and not empty")
        if len(self._entries) >= self._queue_max:
            raise RoomcastError("queue_full", f"{self._queue_max} messages are waiting to be sent already")
        text = _wire.well_formed(text)
        message = UnsentMessage(room, str(uuid.uuid4()), text, data)
        try:
            wire = _wire.encode({"type": "chat", "room": room, "text": text, "data": data, "id": message.id})
            data_size = 0 if data is None else len(_wire.encode_value(data).encode())
            entry = Unacknowledged(message, wire, len(wire.encode()), data_size, Deferred())
        except (TypeError, ValueError, RecursionError) as error:
            raise RoomcastError("bad_message", f"data is no JSON: {error}") from error
        problem = self._size_problem(entry)
        if problem:
            raise RoomcastError("too_large", problem)
        return entry

    def unsent(self, room: str) -> list[UnsentMessage]:
        return [entry.message for entry in self._entries.values() if entry.message.room == room]

    def flush(self) -> None:
        """Sends what may go.

        Messages wait for `joined`: what an earlier connection got through has been acknowledged by its copy by then.
        """
        if not self._link.is_online:
            return
        for entry in list(self._entries.values()):
            if entry.is_sent or not self._memberships.is_live(entry.message.room):
                continue
            wait = self._link.wait()
            if wait > 0:
                self._link.timers.set("flush", wait, self.flush)
                return
            problem = self._size_problem(entry)
            if problem:
                self._fail(entry, RoomcastError("too_large", problem))
            else:
                entry.is_sent = True
                entry.sent_at = self._link.runtime.now()
                self._link.send_text(entry.text)
                self._await_answers()

    def send_all_again(self) -> None:
        for entry in self._entries.values():
            entry.is_sent = False

    def acknowledge(self, id: str, seq: int) -> None:
        entry = self._entries.pop(id, None)
        if entry is None:
            return
        self._emit("sent", entry.message.room, Sent(entry.message.room, id, seq))
        entry.answer.resolve(Said(id, seq))

    def take_error(self, error: ServerError) -> bool:
        """Whether an error answers one of our messages, and whether that is all that is to be said about it."""
        entry = self._entries.get(error.id or "")
        if entry is None:
            return False
        entry.is_sent = False
        entry.refusals += 1
        # A mute may pass some time. The message does not wait for that, nor do those in other rooms.
        if not error.temporary or error.code == "muted" or entry.refusals > REFUSALS_MAX:
            failure = RoomcastError(
                error.code, error.message, temporary=error.temporary, retry_after_ms=error.retry_after_ms
            )
            self._fail(entry, failure)
            return True
        # All messages wait, not only the refused one: the next would be refused too, and would overtake it if not.
        if error.retry_after_ms is None:
            self._link.pause(self._link.backoff(entry.refusals - 1))
        else:
            self._link.pause(error.retry_after_ms / 1000)
        self.flush()
        return True

    def fail_orphans(self, error: RoomcastError, *, also_sent: bool) -> None:
        """Gives up what was said in rooms that the application is in no longer: all, or what is not on its way."""
        wanted = self._memberships.is_wanted
        self._fail_those(error, lambda entry: not wanted(entry.message.room) and (also_sent or not entry.is_sent))

    def fail_all(self, error: RoomcastError) -> None:
        self._fail_those(error, lambda entry: True)

    def _fail_those(self, error: RoomcastError, which: Callable[[Unacknowledged], bool]) -> None:
        for entry in [entry for entry in self._entries.values() if which(entry)]:
            self._fail(entry, error)

    def _fail(self, entry: Unacknowledged, error: RoomcastError) -> None:
        message, code, retry_after_ms = entry.message, error.code, error.retry_after_ms
        # A listener of an earlier failure may have ended this one.
        if self._entries.pop(message.id, None) is None:
            return
        event = Failed(message.room, message.id, message.text, message.data, code, error.message, retry_after_ms)
        self._emit("failed", message.room, event)
        failure = RoomcastError(
            code, error.message, temporary=error.temporary, retry_after_ms=retry_after_ms, id=message.id
        )
        entry.answer.reject(failure)

    def _await_answers(self) -> None:
        """A message without an answer is sent again: the answer can be lost on the server's side alone."""
        if not self._link.timers.has("answers"):
            self._link.timers.set("answers", ANSWER, self._repeat_unanswered)

    def _repeat_unanswered(self) -> None:
        now = self._link.runtime.now()
        wanted = self._memberships.is_wanted
        sent = [entry for entry in self._entries.values() if entry.is_sent and wanted(entry.message.room)]
        for entry in sent:
            if now - entry.sent_at >= ANSWER - 1e-6:  # a timer may run a moment early
                entry.is_sent = False
        waiting = [entry.sent_at for entry in sent if entry.is_sent]
        if waiting:
            self._link.timers.set("answers", min(waiting) + ANSWER - now, self._repeat_unanswered)
        self.flush()

    def _size_problem(self, entry: Unacknowledged) -> str:
        """How a message exceeds a limit, if it does: the server would close the connection (1009) at every attempt."""
        limits = self._link.limits
        if limits.message_bytes is not None and entry.size > limits.message_bytes:
            return f"the message has {entry.size} bytes, {limits.message_bytes} are allowed"
        if limits.data_bytes is not None and entry.data_size > limits.data_bytes:
            return f"data has {entry.data_size} bytes, {limits.data_bytes} are allowed"
        return ""


def _is_text(text: object) -> bool:
    return isinstance(text, str) and text != ""


def failed_sending(error: RoomcastError) -> Sending:
    """A message that cannot be said at all."""
    answer: Deferred[Said] = Deferred()
    answer.reject(error)
    return Sending(answer, None)
