"""The pages of older messages that were asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._errors import Call, Deferred, RoomcastError, rejected
from ._types import HistoryPage, ServerError

if TYPE_CHECKING:
    from ._link import Link

ANSWER = 15.0  # how long the server may take for a page
PAGES_MAX = 16  # pages that are awaited at once


@dataclass(frozen=True, slots=True)
class Question:
    """A page that is awaited."""

    room: str
    before: int | None
    limit: int
    answer: Deferred[HistoryPage]


class Pages:
    """One page is under way at a time: the server refuses a second one."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: dict[str, Question] = {}  # by id, in the order of the calls
        self._sent_id: str | None = None  # of the one that is under way

    def ask(self, room: str, before: int | None, limit: int) -> Call[HistoryPage]:
        if len(self._waiting) >= PAGES_MAX:
            return rejected(RoomcastError("queue_full", f"{PAGES_MAX} pages are awaited already"))
        answer: Deferred[HistoryPage] = Deferred()
        self._waiting[self._link.next_id("history")] = Question(room, before, limit, answer)
        self._next()
        return answer.call

    def take(self, id: str, page: HistoryPage) -> None:
        """A page has come."""
        question = self._take_out(id)
        if question:
            question.answer.resolve(page)
            self._next()

    def take_error(self, error: ServerError) -> bool:
        if error.id not in self._waiting:
            return False
        failure = RoomcastError(
            error.code, error.message, temporary=error.temporary, retry_after_ms=error.retry_after_ms
        )
        self.fail(error.id, failure)
        return True

    def fail_all(self, error: RoomcastError, room: str | None = None) -> None:
        """Those of one room, or all of them, are of no use any more."""
        for id, question in list(self._waiting.items()):
            if room is None or question.room == room:
                self.fail(id, error)

    def fail(self, id: str, error: RoomcastError) -> None:
        question = self._take_out(id)
        if question:
            question.answer.reject(error)
            self._next()

    def _next(self) -> None:
        if not self._waiting or self._sent_id is not None or not self._link.is_online:
            return
        timers = self._link.timers
        wait = self._link.pace_wait()
        if wait > 0:
            timers.set("history", wait, self._next)
            return
        id, question = next(iter(self._waiting.items()))
        self._sent_id = id
        late = RoomcastError("timeout", f"no answer within {ANSWER:.0f} s", temporary=True)
        timers.set("history", ANSWER, lambda: self.fail(id, late))
        message = {"type": "history", "room": question.room, "before": question.before, "limit": question.limit}
        self._link.send({**message, "id": id})

    def _take_out(self, id: str) -> Question | None:
        question = self._waiting.pop(id, None)
        if question and id == self._sent_id:
            self._sent_id = None
            self._link.timers.clear("history")
        return question
