"""One WebSocket connection, and the clock, chance and network that a client uses."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxy
from websockets.typing import Subprotocol

from ._handshake import Disconnect, cause_of_close, explain_handshake
from ._timers import Cancellable

CLOSE_SECONDS = 5.0  # for what is not sent yet, and for the answer to our close
MESSAGE_BYTES_MAX = 64 * 1024 * 1024  # the largest message that a server can be set to
UNSENT_MAX = 10_000  # messages that a connection which takes nothing may have waiting, besides what is said

_SUBPROTOCOL = Subprotocol("roomcast.v1")
_ABNORMAL = 1006

# At the level DEBUG the library logs headers and messages. Tokens and messages belong in no log,
# so the level of the application as a whole does not count here.
_LOGGER = logging.getLogger("roomcast.socket")
_LOGGER.setLevel(logging.INFO)


@dataclass(frozen=True)
class Transport:
    """How connections are made, besides address and token."""

    headers: Mapping[str, str] = field(default_factory=dict)
    ssl: ssl.SSLContext | None = None
    proxy: str | bool = True
    #: How many messages may be said before the first of them is sent. Each is sent again every 15 s.
    queue_max: int = 0


def check_headers(headers: Mapping[str, str]) -> None:
    """A line break in a header would be another header."""
    for name, value in headers.items():
        if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
            raise ValueError(f"{name!r} is no name of a header")
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            raise ValueError(f"the header {name} has characters that no header may have")


class SocketHost(Protocol):
    """The owner of a socket: it is told of texts and of the end."""

    def on_text(self, socket: Socket, text: str | bytes, /) -> None: ...

    def on_end(self, socket: Socket, disconnect: Disconnect, /) -> None: ...


class Socket(Protocol):
    """A connection, as a link uses it."""

    def send(self, text: str, /) -> None: ...

    def close(self) -> None:
        """Says the rest, and closes."""

    def abort(self) -> None:
        """Gives the connection up."""

    async def wait_closed(self) -> None: ...


class Runtime(Protocol):
    """Time, chance and connections."""

    def now(self) -> float:
        """Seconds of a clock that is never set."""

    def unix_ms(self) -> int: ...

    def later(self, seconds: float, run: Callable[[], None], /) -> Cancellable: ...

    def random(self) -> float:
        """A number from 0 up to 1."""

    def open(self, url: str, token: str | None, transport: Transport, host: SocketHost, /) -> Socket: ...


class AsyncioRuntime:
    """Time and connections of the event loop that runs."""

    def now(self) -> float:
        return time.monotonic()

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def later(self, seconds: float, run: Callable[[], None], /) -> Cancellable:
        return asyncio.get_running_loop().call_later(seconds, run)

    def random(self) -> float:
        return random.random()

    def open(self, url: str, token: str | None, transport: Transport, host: SocketHost, /) -> Socket:
        return WebSocket(url, token, transport, host)


class WebSocket:
    """A connection by the library `websockets`, in a task of its own."""

    def __init__(self, url: str, token: str | None, transport: Transport, host: SocketHost) -> None:
        self._host = host
        self._unsent_max = UNSENT_MAX + 10 * transport.queue_max
        self._unsent: deque[str] = deque()
        self._changed = asyncio.Event()
        self._is_open = False
        self._is_closing = False
        self._task = asyncio.get_running_loop().create_task(self._live(url, token, transport))
        self._task.add_done_callback(self._ended)

    def send(self, text: str) -> None:
        if len(self._unsent) >= self._unsent_max:
            self._task.cancel()
            return
        self._unsent.append(text)
        self._changed.set()

    def close(self) -> None:
        if not self._is_open:
            self.abort()
        elif not self._is_closing:
            self._is_closing = True
            self._changed.set()
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)

    def abort(self) -> None:
        self._task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[Disconnect]) -> None:
        if task.cancelled():
            disconnect = Disconnect("lost", _ABNORMAL, "the connection took nothing")
        elif error := task.exception():
            context = {"message": "a message of the server could not be handled", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            disconnect = Disconnect("lost", _ABNORMAL, repr(error))
        else:
            disconnect = task.result()
        self._host.on_end(self, disconnect)

    async def _live(self, url: str, token: str | None, transport: Transport) -> Disconnect:
        try:
            connection = await _connect(url, token, transport)
        except InvalidProxy as error:
            return Disconnect("blocked", reason=str(error), is_final=True)
        except Exception as error:
            return explain_handshake(error, with_token=token is not None)
        self._is_open = True
        writer = asyncio.create_task(self._write(connection))
        try:
            while True:
                self._host.on_text(self, await connection.recv())
        except ConnectionClosed as closed:
            close = closed.rcvd
            code, reason = (close.code, close.reason) if close else (_ABNORMAL, "")
            return Disconnect(cause_of_close(code), code, reason)
        finally:
            writer.cancel()
            connection.transport.abort()

    async def _write(self, connection: ClientConnection) -> None:
        try:
            while True:
                while self._unsent:
                    await connection.send(self._unsent[0])
                    self._unsent.popleft()
                if self._is_closing:
                    await connection.close()
                    return
                self._changed.clear()
                await self._changed.wait()
        except ConnectionClosed:
            pass  # which the reader tells


class _ConnectOnce(connect):
    """Follows no redirect, as browsers do not: the token is for the server that was named."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def _connect(url: str, token: str | None, transport: Transport) -> ClientConnection:
    headers = dict(transport.headers)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return await _ConnectOnce(
        url,
        subprotocols=[_SUBPROTOCOL],
        additional_headers=headers,
        # The link has a deadline of its own, for asking for a token as well, and notices silence by itself.
        open_timeout=None,
        ping_interval=None,
        logger=_LOGGER,
        close_timeout=CLOSE_SECONDS,
        compression=None,
        max_size=MESSAGE_BYTES_MAX,
        proxy=True if transport.proxy is True else transport.proxy or None,
        ssl=transport.ssl or (True if url.startswith("wss:") else None),
    )
