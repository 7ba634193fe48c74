"""Real connections to a server that the test plays: handshakes, closing, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
import tempfile
import unittest
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from roomcast import Client, StatusChange, _socket

Answer = Callable[[ServerConnection, Request], Response | None]
WELCOME = json.dumps({"type": "welcome", "userId": "alice", "pingInterval": 25_000, "limits": {}})


class RealTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.stack = AsyncExitStack()
        self.addAsyncCleanup(self.stack.aclose)
        self.requests: list[Request] = []
        self.received: list[Any] = []
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.statuses: list[StatusChange] = []
        self.told, self.over = asyncio.Event(), asyncio.Event()
        # Making a client reads certificates, and making one takes a while.
        asyncio.get_running_loop().slow_callback_duration = 60

    async def serve(
        self,
        answer: Answer | None = None,
        run: Callable[[ServerConnection], Awaitable[None]] | None = None,
        **options: Any,
    ) -> int:
        """Starts a server that welcomes, keeps what comes, and notes with which code it was left; returns its port."""

        async def hold(connection: ServerConnection) -> None:
            await connection.send(WELCOME)
            try:
                if run:
                    await run(connection)
                async for text in connection:
                    self.received.append(json.loads(text))
            except ConnectionClosed:
                pass
            finally:
                if not self.ended.done():
                    self.ended.set_result(connection.close_code)

        def decide(connection: ServerConnection, request: Request) -> Response | None:
            self.requests.append(request)
            return answer(connection, request) if answer else None

        made = serve(hold, "127.0.0.1", 0, process_request=decide, subprotocols=["roomcast.v1"], **options)  # type: ignore[list-item]
        server: Server = await self.stack.enter_async_context(made)
        port: int = next(iter(server.sockets)).getsockname()[1]
        return port

    def client(self, port: int, scheme: str = "ws", **options: Any) -> Client:
        client = Client(f"{scheme}://127.0.0.1:{port}/ws", **options)
        client.on("status", self.on_status)
        self.stack.push_async_callback(lambda: asyncio.ensure_future(_close(client)))
        return client

    async def until(self, status: str) -> StatusChange:
        async with asyncio.timeout(10):
            while not self.statuses or self.statuses[-1].status != status:
                self.told.clear()
                await self.told.wait()
        return self.statuses[-1]

    def on_status(self, change: StatusChange) -> None:
        self.statuses.append(change)
        self.told.set()

    async def stop_reading(self, connection: ServerConnection) -> None:
        """A server that takes nothing until the test ends."""
        connection.transport.pause_reading()
        self.stack.callback(self.over.set)
        await self.over.wait()


async def _close(client: Client) -> None:
    await client.close()


class Handshakes(RealTest):
    async def test_the_handshake_has_token_subprotocol_and_headers(self) -> None:
        port = await self.serve()
        client = self.client(port, token="abc.def-ghi", headers={"Cookie": "session=1"}, user_id="alice")
        self.assertEqual((await client.connect()).user_id, "alice")
        request = self.requests[0]
        names = ["Authorization", "Sec-WebSocket-Protocol", "Cookie"]
        self.assertEqual([request.headers[name] for name in names], ["Bearer abc.def-ghi", "roomcast.v1", "session=1"])
        self.assertEqual(request.path, "/ws")
        await self.client(port, user_id="Zoë").connect()
        self.assertEqual(self.requests[1].path, "/ws?userId=Zo%C3%AB")

    async def test_the_cause_of_a_refusal_is_told(self) -> None:
        for status, text, wanted, cause in [
            (401, "a token is needed", "closed", "token_needed"),
            (403, "banned: contempt", "closed", "banned"),
            (404, "nothing is here", "offline", "not_found"),
            (426, "this is a WebSocket", "offline", "no_upgrade"),
            (503, "the server is shutting down", "offline", "unavailable"),
        ]:
            port = await self.serve(lambda connection, _, status=status, text=text: connection.respond(status, text))  # type: ignore[misc]
            client = self.client(port)
            client.connect()
            found = await self.until(wanted)
            self.assertEqual((found.cause, found.code, found.reason), (cause, status, text.replace("banned: ", "")))
            await client.close()

    async def test_a_server_that_is_not_there_yet_is_found_later(self) -> None:
        port = await self.serve()
        await self.stack.aclose()
        client = self.client(port)
        call = client.connect()
        found = await self.until("offline")
        self.assertEqual((found.cause, found.code), ("unreachable", 0))
        server = await serve(lambda connection: connection.send(WELCOME), "127.0.0.1", port)
        self.stack.push_async_callback(server.wait_closed)
        self.stack.callback(server.close)
        client.reconnect()
        self.assertEqual((await call).user_id, "alice")

    async def test_a_redirect_is_not_followed(self) -> None:
        port = await self.serve()

        def redirect(connection: ServerConnection, _: Request) -> Response:
            response = connection.respond(302, "over there")
            response.headers["Location"] = f"ws://127.0.0.1:{port}/ws"
            return response

        client = self.client(await self.serve(redirect), token="secret")
        client.connect()
        found = await self.until("offline")
        self.assertEqual((found.cause, found.code, len(self.requests)), ("unreachable", 302, 1))

    async def test_no_token_is_logged(self) -> None:
        port = await self.serve()
        root = logging.getLogger()
        with self.assertLogs(level=logging.DEBUG) as logs:
            root.debug("the test has begun")
            client = self.client(port, token="secret")
            await client.connect()
            await client.close()
        ours = [line for record, line in zip(logs.records, logs.output, strict=True) if "server" not in record.name]
        self.assertEqual([line for line in ours if "secret" in line], [])

    async def test_a_proxy_that_is_none_ends_the_client(self) -> None:
        client = self.client(await self.serve(), proxy="gopher://127.0.0.1:1")
        client.connect()
        found = await self.until("closed")
        self.assertEqual(found.cause, "blocked")
        self.assertIn("gopher", found.reason)

    async def test_a_server_without_http_is_unreachable(self) -> None:
        async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        self.stack.callback(server.close)
        client = self.client(server.sockets[0].getsockname()[1])
        client.connect()
        self.assertEqual((await self.until("offline")).cause, "unreachable")


class Closing(RealTest):
    async def test_close_codes_are_obeyed(self) -> None:
        for code, status, cause in [
            (4503, "closed", "banned"),
            (4003, "offline", "token_expired"),
            (1001, "offline", "lost"),
        ]:
            port = await self.serve(run=lambda connection, code=code: connection.close(code, "because"))  # type: ignore[misc]
            client = self.client(port)
            client.connect()
            found = await self.until(status)
            self.assertEqual((found.cause, found.code, found.reason), (cause, code, "because"))
            await client.close()

    async def test_a_connection_that_breaks_is_lost(self) -> None:
        async def abort(connection: ServerConnection) -> None:
            connection.transport.abort()

        self.client(await self.serve(run=abort)).connect()
        found = await self.until("offline")
        self.assertEqual((found.cause, found.code), ("lost", 1006))

    async def test_messages_before_close_are_sent_and_nothing_is_left_behind(self) -> None:
        port = await self.serve()
        before = asyncio.all_tasks()
        client = self.client(port)
        await client.connect()
        # More than the buffers of the system take at once.
        for _ in range(20):
            client._link.send({"type": "ping", "id": "x" * 500_000})
        client.join("lobby")
        client.leave("lobby")
        await client.close()
        self.assertEqual(await self.ended, 1000)
        self.assertEqual([message["type"] for message in self.received], [*["ping"] * 20, "join", "leave"])
        ours = {task for task in asyncio.all_tasks() - before if "roomcast" in repr(task)}
        self.assertEqual(ours, set())

    async def test_close_while_connecting_ends_the_attempt(self) -> None:
        gate = asyncio.Event()

        async def wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            writer.close()

        server = await asyncio.start_server(wait, "127.0.0.1", 0)
        self.stack.callback(server.close)
        self.stack.callback(gate.set)
        client = self.client(server.sockets[0].getsockname()[1])
        client.connect()
        await asyncio.sleep(0.02)
        async with asyncio.timeout(2):
            await client.close()
        self.assertEqual(client.status, "closed")

    async def test_closing_takes_no_longer_than_its_bound(self) -> None:
        with mock.patch.object(_socket, "CLOSE_SECONDS", 0.2):
            client = self.client(await self.serve(run=self.stop_reading, close_timeout=0.1))
            for size in [0, 20_000_000]:
                await client.connect()
                client._link.send_text("x" * size)
                async with asyncio.timeout(5):
                    await client.close()

    async def test_a_server_that_takes_nothing_costs_the_connection(self) -> None:
        with mock.patch.object(_socket, "UNSENT_MAX", 100):
            client = self.client(await self.serve(run=self.stop_reading, close_timeout=0.1), queue_max=1)
            await client.connect()
            for index in range(111):
                client.join(f"room-{index}")
            found = await self.until("offline")
        self.assertEqual((found.cause, found.reason), ("lost", "the connection took nothing"))

    async def test_a_full_queue_is_sent_at_once_where_the_server_has_no_limit(self) -> None:
        async def live(connection: ServerConnection) -> None:
            join = json.loads(await connection.recv())
            joined = {"type": "joined", "room": "lobby", "id": join["id"], "epoch": "e1", "seq": 0, "count": 0}
            await connection.send(json.dumps(joined))

        with mock.patch.object(_socket, "UNSENT_MAX", 10):
            client = self.client(await self.serve(run=live), queue_max=500)
            await client.connect()
            room = await client.join("lobby")
            for _ in range(500):
                room.say("hello")
            await client.close()
        await self.ended
        self.assertEqual((len(self.received), [change.cause for change in self.statuses]), (500, [None] * 3))


class Secure(RealTest):
    async def test_tls_needs_a_certificate_that_is_trusted(self) -> None:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
        words = [
            *command.split(),
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ]
        await asyncio.to_thread(subprocess.run, words, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        port = await self.serve(ssl=context)
        client = self.client(port, "wss", ssl=ssl.create_default_context(cafile=str(certificate)))
        self.assertEqual((await client.connect()).user_id, "alice")
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server tells that it was left
        self.client(port, "https").connect()
        found = await self.until("offline")
        self.assertEqual(found.cause, "unreachable")
        self.assertIn("certificate", found.reason)


if __name__ == "__main__":
    unittest.main()
