"""Connections: attempts, back-off, close codes, silence."""

from __future__ import annotations

import asyncio
import ssl
import unittest
from typing import Any

from fake import START_MS, ClientTest, FakeSocket, code_of, settled
from roomcast import Client, RoomcastError, StatusChange
from roomcast._handshake import Disconnect

CAUSES = {4501: "flooded", 4502: "stalled", 4503: "banned", 4504: "replaced"}


class Connecting(ClientTest):
    async def test_the_address_the_user_and_the_display_name_are_those_asked_for(self) -> None:
        asked: list[tuple[dict[str, Any], str]] = [
            ({"user_id": "alice"}, "?userId=alice"),
            ({"user_id": "alice", "name": ""}, "?userId=alice"),
            ({"user_id": "bob", "name": "Bob Müller & sons"}, "?userId=bob&name=Bob%20M%C3%BCller%20%26%20sons"),
            ({"name": "Bob"}, "?name=Bob"),
            ({"name": "B\ud800b"}, "?name=B%EF%BF%BDb"),
        ]
        for options, query in asked:
            self.client(**options).connect()
            socket = self.runtime.socket
            self.assertEqual((socket.url, socket.token), (f"wss://chat.example/ws{query}", None))

    async def test_the_display_name_is_asked_for_at_every_attempt(self) -> None:
        self.live(name="Bob")
        self.assertEqual(self.come_back().url, "wss://chat.example/ws?userId=guest-1&name=Bob")

    async def test_connect_resolves_once_online_over_failed_attempts_and_at_once_when_online(self) -> None:
        client = self.client()
        first = client.connect()
        self.runtime.socket.ends()
        self.runtime.tick(1)
        self.assertEqual(await code_of(first), "pending")
        self.assertIs(client.connect(), first)
        self.runtime.socket.welcome(None, messageRate=50)
        self.assertEqual((await first).user_id, "guest-1")
        self.assertEqual((await client.connect()).limits.message_rate, 50)
        self.assertEqual((client.status, client.user_id, client.limits.message_rate), ("online", "guest-1", 50))

    async def test_connect_fails_when_the_client_is_closed_or_closed_for_good(self) -> None:
        client = self.client()
        first = client.connect()
        await client.close()
        self.assertEqual(await code_of(first), "closed")
        second = client.connect()
        self.runtime.socket.ends(4503, "contempt")
        with self.assertRaises(RoomcastError) as caught:
            await second
        error = caught.exception
        self.assertEqual((error.code, error.message, error.status), ("banned", "contempt", 4503))

    async def test_cancelling_who_awaits_takes_nothing_back(self) -> None:
        client = self.client()
        call = client.connect()
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(call, 0.001)
        self.runtime.socket.welcome()
        self.assertEqual((await call).user_id, "guest-1")

    async def test_async_with_connects_and_closes(self) -> None:
        client = self.client()
        entering = asyncio.create_task(client.__aenter__())
        await settled()
        self.runtime.socket.welcome()
        self.assertIs(await entering, client)
        await client.__aexit__(None, None, None)
        self.assertEqual((client.status, self.runtime.socket.closed), ("closed", True))

    async def test_async_with_that_does_not_come_to_its_body_leaves_nothing_behind(self) -> None:
        client = self.client()
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.001), client:
                self.fail("there is no connection")
        self.runtime.tick(3600)
        self.assertEqual((client.status, len(self.runtime.sockets)), ("closed", 1))
        self.assertEqual(len(self.of("status")), 2)

        client = self.client()
        entering = asyncio.create_task(client.__aenter__())
        await settled()
        self.runtime.socket.fails(Disconnect("banned", 403, "contempt", is_final=True))
        with self.assertRaisesRegex(RoomcastError, "banned: contempt"):
            await entering
        self.assertEqual(self.last("status").cause, "banned", "closing what is closed tells nothing")

    async def test_options_are_checked_when_they_are_given(self) -> None:
        wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"token": 5}, TypeError, "token is int; a string or a function is allowed"),
            ({"name": 5}, TypeError, "name is int; a string is allowed"),
            ({"queue_max": 0}, ValueError, "queue_max is 0; numbers from 1 are allowed"),
            ({"queue_max": "10"}, TypeError, "queue_max is str"),
            ({"user_id": "a b"}, RoomcastError, "bad_name: user name: ' '"),
            ({"user_id": "e\u0301"}, RoomcastError, "NFC"),
            ({"token": "two words"}, ValueError, "what was given is no token"),
            ({"token": ""}, ValueError, "what was given is no token"),
            ({"headers": {"Cookie": "a\r\nX: b"}}, ValueError, "the header Cookie has characters"),
            ({"headers": {"X Y": "a"}}, ValueError, "'X Y' is no name of a header"),
            ({"token": "t", "headers": {"authorization": "x"}}, ValueError, "Authorization"),
        ]
        for options, kind, words in wrong:
            with self.assertRaisesRegex(kind, words):
                self.client(**options)
        with self.assertRaisesRegex(ValueError, "takes no ssl"):
            Client("ws://chat.example/ws", ssl=ssl.create_default_context())
        with self.assertRaisesRegex(ValueError, "is no URL"):
            Client("/ws")


class Losing(ClientTest):
    async def test_the_waits_grow_and_are_kept(self) -> None:
        waits = {0.0: [0.5] * 4, 1.0: [1, 1.5, 2.5, 4.5, 8.5, 16.5, 20]}
        for chance, wanted in waits.items():
            client = self.client(chance)
            client.connect()
            for wait in wanted:
                count = len(self.runtime.sockets)
                self.runtime.socket.ends()
                self.assertEqual(self.last("status").retry_at - self.runtime.unix_ms(), wait * 1000)
                self.runtime.tick(wait - 0.001)
                self.assertEqual(len(self.runtime.sockets), count, "not before its time")
                self.runtime.tick(0.001)
                self.assertEqual(len(self.runtime.sockets), count + 1, "in time")

    async def test_codes_below_4500_reconnect_and_those_up_to_4999_do_not(self) -> None:
        for code in [1000, 1001, 1006, 1009, 4000, 4002, 4499]:
            self.live()
            self.come_back(code)
        for code in [4500, 4501, 4502, 4503, 4504, 4999]:
            self.live()
            count = len(self.runtime.sockets)
            self.runtime.socket.ends(code, "go away")
            self.runtime.tick(3600)
            self.assertEqual(len(self.runtime.sockets), count, f"no attempt after {code}")
            cause: Any = CAUSES.get(code, "server")
            self.assertEqual(self.last("status"), StatusChange("closed", cause, code, "go away"))

    async def test_a_refusal_for_good_ends_the_client_and_another_does_not(self) -> None:
        client = self.client()
        client.connect()
        self.runtime.socket.fails(Disconnect("forbidden", 403, "no", is_final=True))
        self.assertEqual(self.last("status"), StatusChange("closed", "forbidden", 403, "no"))
        client.connect()
        self.runtime.socket.fails(Disconnect("unavailable", 503, "busy", wait=7))
        self.assertEqual(self.last("status").retry_at, START_MS + 7_750)

    async def test_a_wait_that_the_server_asks_for_is_bounded(self) -> None:
        self.client().connect()
        self.runtime.socket.fails(Disconnect("unavailable", 503, "busy", wait=86_400))
        self.assertEqual(self.last("status").retry_at, START_MS + 60_750)

    async def test_close_ends_it_and_connect_begins_again_in_the_same_rooms(self) -> None:
        client = self.live()
        await client.close()
        self.assertTrue(self.runtime.socket.closed)
        self.runtime.tick(3600)
        self.assertEqual(len(self.runtime.sockets), 1)
        client.connect()
        self.runtime.socket.welcome()
        self.assertEqual(self.runtime.socket.last("join")["room"], "lobby")

    async def test_the_back_off_starts_afresh_only_after_30_s_level(self) -> None:
        self.live(chance=1.0)

        def wait_after_loss() -> int:
            self.runtime.socket.ends()
            wait: int = self.last("status").retry_at - self.runtime.unix_ms()
            self.runtime.tick(wait / 1000)
            self.runtime.socket.welcome()
            return wait

        self.assertEqual(wait_after_loss(), 1000)
        self.runtime.socket.joined(recovered=True)
        self.runtime.tick(29.9)
        self.assertEqual(wait_after_loss(), 1500, "level for less than 30 s")
        self.runtime.socket.joined(recovered=True)
        self.runtime.tick(30)
        self.assertEqual(wait_after_loss(), 1000, "level for 30 s")
        self.runtime.tick(40)
        self.assertEqual(wait_after_loss(), 1500, "welcomed but never joined is not level")

    async def test_no_welcome_within_10_s_is_a_lost_connection(self) -> None:
        self.client().connect()
        self.runtime.tick(10)
        self.assertTrue(self.runtime.sockets[0].closed)
        self.assertEqual(self.last("status").cause, "unreachable")
        self.runtime.tick(1)
        self.assertEqual(len(self.runtime.sockets), 2)

    async def test_a_listener_may_close_the_client_at_any_time(self) -> None:
        moments: list[Any] = ["connecting", "online", "welcome", "joined"]
        for moment in moments:
            client = self.client()
            client.join("lobby")

            def close(event: Any, one: Client = client, moment: str = moment) -> None:
                if getattr(event, "status", moment) == moment:
                    one.close()

            stop = client.on(moment if moment in ("welcome", "joined") else "status", close)
            client.connect()
            if client.status == "connecting":
                self.runtime.socket.welcome()
            if client.status == "online":
                self.runtime.socket.joined()
            self.runtime.tick(3600)
            count = int(moment != "connecting")
            self.assertEqual((client.status, len(self.runtime.sockets)), ("closed", count), moment)
            stop()
            client.connect()
            self.runtime.socket.welcome()
            self.runtime.socket.joined()
            self.assertTrue(client.room("lobby").is_joined, moment)

    async def test_a_text_that_is_no_message_costs_the_connection(self) -> None:
        for text in ["[]", "{", '{"type": 5}', '{"type": "chat", "room": "lobby", "seq": 1}']:
            self.live()
            self.runtime.socket.host.on_text(self.runtime.socket, text)
            self.assertEqual((self.last("status").status, self.last("status").cause), ("offline", "lost"))
            self.assertIn("no message", self.last("status").reason)
            self.assertTrue(self.runtime.socket.closed)

    async def test_unknown_types_are_ignored(self) -> None:
        self.live()
        count = len(self.log)
        self.runtime.socket.says({"type": "weather", "sky": "blue"})
        self.assertEqual(len(self.log), count)


class Silence(ClientTest):
    async def test_after_two_intervals_it_pings_and_reconnects_if_nothing_comes(self) -> None:
        client = self.live()
        socket = self.runtime.socket
        self.runtime.tick(54.9)
        self.assertEqual(socket.all("ping"), [])
        self.runtime.tick(0.1)
        self.assertEqual(len(socket.all("ping")), 1)
        self.runtime.tick(9)
        socket.says({"type": "pong"})
        self.runtime.tick(2)
        self.assertFalse(socket.closed)
        self.runtime.tick(53)
        self.assertEqual(len(socket.all("ping")), 2)
        self.runtime.tick(10)
        self.assertTrue(socket.closed)
        self.assertEqual(self.last("status").cause, "lost")
        self.runtime.tick(1)
        self.assertEqual(len(self.runtime.sockets), 2)
        socket.chat(1)
        socket.ends(4501)
        self.assertEqual((self.of("chat"), client.status), ([], "connecting"), "what the old one says no longer counts")

    async def test_every_message_counts_as_life(self) -> None:
        self.live()
        for seq in range(1, 20):
            self.runtime.tick(50)
            self.runtime.socket.chat(seq)
        self.assertEqual(self.runtime.socket.all("ping"), [])

    async def test_reconnect_tries_at_once_when_offline_and_pings_when_online(self) -> None:
        client = self.live()
        socket: FakeSocket = self.runtime.socket
        client.reconnect()
        self.assertEqual(len(socket.all("ping")), 1)
        socket.ends()
        client.reconnect()
        self.assertEqual(len(self.runtime.sockets), 2)
        self.runtime.tick(9)
        self.assertEqual(len(self.runtime.sockets), 2, "the planned attempt has been taken back")


if __name__ == "__main__":
    unittest.main()
