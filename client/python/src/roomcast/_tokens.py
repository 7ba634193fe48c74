"""The token of a connection, and the one that replaces it in time."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from typing import Protocol

from ._socket import Runtime
from ._timers import Timers
from ._types import ServerError, TokenSource

EARLY = 60.0  # how long before a token expires a new one is asked for, or a fifth of its time if that is less
PAUSE = 30.0  # between two refreshes; the server takes one in 10 s


class TokenHost(Protocol):
    """The link of tokens, as they use it."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def timers(self) -> Timers: ...

    def next_id(self, kind: str, /) -> str: ...

    def send(self, message: dict[str, object], /) -> None: ...


class Tokens:
    """A string, or a function that is asked for one, and again before the last one expires."""

    def __init__(self, source: TokenSource | None, link: TokenHost) -> None:
        self._source = source
        self._link = link
        self._refresh_id: str | None = None  # of the refresh that is not answered yet
        self._asking: asyncio.Task[None] | None = None

    @property
    def can_change(self) -> bool:
        """Whether a new token may be had."""
        return callable(self._source)

    def ask(self, use: Callable[[str | None], None], fail: Callable[[Exception], None]) -> None:
        """Has a token used: at once if it is known, and else once the function has given it."""
        if callable(self._source):
            self._asking = asyncio.get_running_loop().create_task(self._ask(use, fail))
        else:
            use(self._source)

    def plan(self, expires_at: int | None, pause: float = 0.0) -> None:
        """Brings a new token before the last one expires, so that the connection stays."""
        if expires_at is None or not self.can_change:
            return
        left = (expires_at - self._link.runtime.unix_ms()) / 1000
        wait = max(pause, left - min(EARLY, left / 5))
        self._link.timers.set("refresh", wait, self._refresh)

    def refreshed(self, expires_at: int | None) -> None:
        self._refresh_id = None
        self.plan(expires_at, PAUSE)

    def take_error(self, error: ServerError) -> bool:
        """Whether an error answers our refresh.

        The last token goes on; the server ends the connection if no other comes in time.
        """
        if error.id is None or error.id != self._refresh_id:
            return False
        self._later(max(PAUSE, (error.retry_after_ms or 0) / 1000))
        return True

    def disconnected(self) -> None:
        self._refresh_id = None
        if self._asking:
            self._asking.cancel()
            self._asking = None

    async def _ask(self, use: Callable[[str | None], None], fail: Callable[[Exception], None]) -> None:
        try:
            assert callable(self._source)
            given = self._source()
            token = await given if inspect.isawaitable(given) else given
            check_token(token)
        except Exception as error:
            if self._takes_answer():
                fail(error)
        else:
            if self._takes_answer():
                use(token)

    def _takes_answer(self) -> bool:
        """Whether the answer that is there counts: a function may go on after it was cancelled."""
        if self._asking is not asyncio.current_task():
            return False
        self._asking = None
        return True

    def _refresh(self) -> None:
        self.ask(self._send, lambda _: self._later(PAUSE))

    def _send(self, token: str | None) -> None:
        self._refresh_id = self._link.next_id("refresh")
        self._link.send({"type": "refresh", "token": token, "id": self._refresh_id})

    def _later(self, wait: float) -> None:
        self._refresh_id = None
        self._link.timers.set("refresh", wait, self._refresh)


def check_token(token: object) -> None:
    # Anything else could not stand in a header: a page of an error, for example.
    if not isinstance(token, str) or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", token, re.ASCII):
        raise ValueError("what was given is no token")
