"""A clock that the test turns, and connections that it answers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import unittest
from collections.abc import Awaitable, Callable
from typing import Any

from roomcast import Client, Event, RoomcastError
from roomcast._events import EVENTS
from roomcast._handshake import Disconnect, cause_of_close
from roomcast._socket import SocketHost, Transport

START_MS = 1_700_000_000_000


class FakeTimer:
    def __init__(self, run: Callable[[], None]) -> None:
        self.run: Callable[[], None] | None = run

    def cancel(self) -> None:
        self.run = None


class FakeSocket:
    """A connection, on which the test says what the server would say."""

    def __init__(self, url: str, token: str | None, transport: Transport, host: SocketHost) -> None:
        self.url = url
        self.token = token
        self.transport = transport
        self.host = host
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    def send(self, text: str) -> None:
        self.sent.append(json.loads(text))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        pass

    def all(self, type: str) -> list[dict[str, Any]]:
        return [message for message in self.sent if message["type"] == type]

    def last(self, type: str) -> dict[str, Any]:
        return self.all(type)[-1]

    def says(self, message: dict[str, Any]) -> None:
        self.host.on_text(self, json.dumps(message))

    def ends(self, code: int = 1006, reason: str = "") -> None:
        self.host.on_end(self, Disconnect(cause_of_close(code), code, reason))

    def fails(self, disconnect: Disconnect) -> None:
        self.host.on_end(self, disconnect)

    def welcome(self, expires_at: int | None = None, **limits: int) -> None:
        message = {"type": "welcome", "userId": "guest-1", "pingInterval": 25_000, "limits": limits}
        self.says({**message, "expiresAt": expires_at})

    def joined(self, **fields: Any) -> None:
        message = {
            "type": "joined",
            "room": "lobby",
            "id": self.last("join")["id"],
            "epoch": "e1",
            "seq": 0,
            "count": 0,
        }
        self.says({**message, "users": [], **fields})

    def chat(self, seq: int, **fields: Any) -> None:
        message = {"type": "chat", "room": "lobby", "userId": "bob", "text": f"m{seq}", "ts": 1, "seq": seq}
        self.says({**message, **fields})

    def error(self, code: str, id: str | None = None, *, temporary: bool = False, **fields: Any) -> None:
        message = {"type": "error", "code": code, "message": "no", "temporary": temporary, **fields}
        self.says(message if id is None else {**message, "id": id})


class FakeRuntime:
    """Time that stands still until the test lets it pass."""

    def __init__(self, chance: float = 0.5) -> None:
        self.time = 1000.0
        self.sockets: list[FakeSocket] = []
        self._chance = chance
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self.time

    def unix_ms(self) -> int:
        return START_MS + round((self.time - 1000) * 1000)

    def later(self, seconds: float, run: Callable[[], None], /) -> FakeTimer:
        timer = FakeTimer(run)
        heapq.heappush(self._timers, (self.time + seconds, next(self._order), timer))
        return timer

    def random(self) -> float:
        return self._chance

    def open(self, url: str, token: str | None, transport: Transport, host: SocketHost, /) -> FakeSocket:
        self.sockets.append(FakeSocket(url, token, transport, host))
        return self.sockets[-1]

    def tick(self, seconds: float) -> None:
        """Lets time pass, and runs what falls due in its order."""
        end = self.time + seconds
        while self._timers and self._timers[0][0] <= end + 1e-9:
            due, _, timer = heapq.heappop(self._timers)
            self.time = max(self.time, due)
            if timer.run:
                timer.run()
        self.time = end

    @property
    def socket(self) -> FakeSocket:
        """The newest connection."""
        return self.sockets[-1]


async def settled() -> None:
    """Lets tasks that are ready go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def code_of(call: Awaitable[Any]) -> str:
    """The code with which a call fails; `pending` if it has not ended."""
    await settled()
    if not getattr(call, "done", True):
        return "pending"
    try:
        await call
    except RoomcastError as error:
        return error.code
    return "succeeded"


class ClientTest(unittest.IsolatedAsyncioTestCase):
    """Tests of a client with a clock and a network that the test plays."""

    def setUp(self) -> None:
        self.runtime = FakeRuntime()
        self.log: list[tuple[str, Any]] = []

    async def asyncSetUp(self) -> None:
        # These tests are slow where they make ten thousand messages, which asyncio need not tell.
        asyncio.get_running_loop().slow_callback_duration = 60

    def client(self, chance: float = 0.5, **options: Any) -> Client:
        self.runtime = FakeRuntime(chance)
        client = Client("https://chat.example/ws", _runtime=self.runtime, **options)
        self.log = []
        for type in EVENTS:
            self.listen(client, type)
        return client

    def listen(self, client: Client, type: Any) -> None:
        client.on(type, lambda event: self.log.append((type, event)))

    def live(self, seq: int = 0, chance: float = 0.5, limits: dict[str, int] | None = None, **options: Any) -> Client:
        """A client that is online and in the lobby."""
        client = self.client(chance, **options)
        client.join("lobby", history=50)
        client.connect()
        self.runtime.socket.welcome(None, **limits or {})
        self.runtime.socket.joined(seq=seq)
        return client

    def of(self, type: str) -> list[Any]:
        return [event for found, event in self.log if found == type]

    def last(self, type: str) -> Any:
        return self.of(type)[-1]

    def come_back(self, code: int = 1006) -> FakeSocket:
        socket = self.runtime.socket
        socket.ends(code)
        self.runtime.tick(20)
        self.assertIsNot(self.runtime.socket, socket, "a new attempt within 20 s")
        return self.runtime.socket


__all__ = ["START_MS", "ClientTest", "Event", "FakeRuntime", "FakeSocket", "code_of", "settled"]
