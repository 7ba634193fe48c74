"""Listeners and streams of events."""

from __future__ import annotations

import asyncio
import gc
import unittest
from typing import Any

from fake import ClientTest, FakeRuntime, code_of, settled
from roomcast import Client, EventStream, Message, RoomcastError
from roomcast._emitter import BUFFER_MAX


class Listeners(ClientTest):
    async def test_names_of_events_and_listeners_are_checked(self) -> None:
        client = self.client()
        room = client.room("lobby")
        wrong: list[tuple[Any, Any, str]] = [
            (
                client.on,
                ("message", print),
                "there is no event 'message'; there are status, welcome, refreshed, joined",
            ),
            (room.on, ("welcome", print), "there is no event 'welcome'; there are joined, left, chat, sent"),
            (client.events, ("chat", "massage"), "there is no event 'massage'"),
        ]
        for call, arguments, words in wrong:
            with self.assertRaisesRegex(ValueError, words):
                call(*arguments)
        with self.assertRaisesRegex(TypeError, "is no function"):
            client.on("chat", "text")  # type: ignore[call-overload]

        async def listener(_: Message) -> None:
            pass

        with self.assertRaisesRegex(TypeError, "is async; plain functions are allowed, and events"):
            client.on("chat", listener)

    async def test_a_room_has_its_own_events_and_is_the_same_object_for_ever(self) -> None:
        client = self.live()
        heard: list[str] = []
        client.room("lobby").on("chat", lambda message: heard.append(f"lobby {message.room}"))
        client.room("hall").on("chat", lambda message: heard.append(f"hall {message.room}"))
        client.room("hall").join()
        self.runtime.socket.joined(room="hall", users=[{"userId": "bob"}], count=1)
        self.runtime.socket.chat(1)
        self.runtime.socket.chat(1, room="hall")
        self.assertEqual(heard, ["lobby lobby", "hall hall"])
        hall = client.room("hall")
        self.assertEqual((hall.is_joined, hall.count, [user.user_id for user in hall.users or ()]), (True, 1, ["bob"]))
        self.runtime.socket.ends()
        self.assertFalse(hall.is_joined)
        hall.leave()
        self.assertIs(client.room("hall"), hall)

    async def test_a_listener_stops_and_one_that_fails_takes_nothing_from_others(self) -> None:
        failures: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        client = self.live()
        heard: list[int] = []
        client.on("chat", lambda message: heard.append(message.seq // 0))
        stops = [client.on("chat", lambda message: heard.append(message.seq)) for _ in range(2)]
        self.runtime.socket.chat(1)
        stops[0]()
        stops[0]()
        self.runtime.socket.chat(2)
        self.assertEqual(heard, [1, 1, 2])
        self.assertEqual([type(failure) for failure in failures], [ZeroDivisionError] * 2)
        self.assertEqual(client.status, "online")

    async def test_a_failure_that_nobody_awaits_is_not_reported(self) -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        client = self.live()
        client.say("nowhere", "hello")
        client.say("lobby", "hello")
        client.join("a b")
        client.join("hall")
        client.history("lobby")
        self.runtime.socket.ends(4503)
        await settled()
        gc.collect()
        self.assertEqual(reported, [])


class Streams(ClientTest):
    async def taken(self, stream: EventStream[Any], count: int) -> list[Any]:
        async with asyncio.timeout(5):
            return [await anext(stream) for _ in range(count)]

    async def test_a_stream_has_what_comes_after_it_was_made(self) -> None:
        client = self.live()
        room = client.room("lobby")
        self.runtime.socket.chat(1)
        chats, mixed, everything = room.events("chat"), room.events("chat", "deleted"), room.events()
        self.runtime.socket.chat(2)
        self.runtime.socket.says({"type": "deleted", "room": "lobby", "deletes": [1], "seq": 3})
        self.runtime.socket.says({"type": "members", "room": "lobby", "count": 300})
        self.assertEqual([event.seq for event in await self.taken(chats, 1)], [2])
        self.assertEqual([type(event).__name__ for event in await self.taken(mixed, 2)], ["Message", "Deleted"])
        names = [type(event).__name__ for event in await self.taken(everything, 3)]
        self.assertEqual(names, ["Message", "Deleted", "Members"])
        waiting = asyncio.create_task(self.taken(chats, 1))
        await settled()
        self.runtime.socket.chat(4)
        self.assertEqual([event.seq for event in await waiting], [4])

    async def test_a_stream_ends_with_its_room_or_client_and_says_why(self) -> None:
        client = self.live()
        streams = [client.room("lobby").events("chat"), client.events("chat")]
        self.runtime.socket.chat(1)
        client.leave("lobby")
        self.assertEqual([message.seq async for message in streams[0]], [1])
        await client.close()
        self.assertEqual([message.seq async for message in streams[1]], [1])

        client = self.live()
        stream = client.room("lobby").events("chat", "left")
        self.runtime.socket.error("removed", room="lobby")
        self.runtime.socket.says({"type": "left", "room": "lobby"})
        self.assertEqual([type(event).__name__ for event in await self.taken(stream, 1)], ["Left"])
        self.assertEqual(await code_of(anext(stream)), "removed")

        client = self.live()
        streams = [client.room("lobby").events("chat"), client.events("chat")]
        self.runtime.socket.ends(4503, "contempt")
        self.assertEqual([await code_of(anext(stream)) for stream in streams], ["banned", "banned"])
        with self.assertRaises(StopAsyncIteration):
            await anext(streams[0])

    async def test_a_stream_outlives_a_connection(self) -> None:
        client = self.live()
        stream = client.room("lobby").events("chat")
        again = self.come_back()
        again.welcome()
        again.joined(recovered=True)
        again.chat(1)
        self.assertEqual([message.seq for message in await self.taken(stream, 1)], [1])

    async def test_a_loop_that_falls_too_far_behind_is_told_so(self) -> None:
        client = self.live()
        stream = client.room("lobby").events("chat")
        for seq in range(1, BUFFER_MAX + 5):
            self.runtime.socket.chat(seq)
        seen = []
        with self.assertRaises(RoomcastError) as caught:
            async for message in stream:
                seen.append(message.seq)
        self.assertEqual((caught.exception.code, seen), ("events_lost", list(range(1, BUFFER_MAX + 1))))

    async def test_a_stream_that_was_left_holds_nothing(self) -> None:
        client = self.live()
        stream = client.room("lobby").events("chat")
        stream.close()
        self.runtime.socket.chat(1)
        self.assertEqual([message async for message in stream], [])
        del stream
        gc.collect()
        streams = client.room("lobby")._streams["chat"]
        self.assertEqual(len(streams), 0)

    async def test_a_client_needs_no_loop_to_be_made(self) -> None:
        client = await asyncio.to_thread(lambda: Client("ws://localhost/ws", _runtime=FakeRuntime()))
        self.assertEqual(client.status, "closed")


if __name__ == "__main__":
    unittest.main()
