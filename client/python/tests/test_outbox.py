"""Messages and pages of history: answered, repeated, paced, refused."""

from __future__ import annotations

import unittest
from typing import Any

from fake import ClientTest, code_of
from roomcast import Failed, RoomcastError, Said, Sent, ServerError


class Saying(ClientTest):
    def texts(self) -> list[str]:
        return [message["text"] for message in self.runtime.socket.all("chat")]

    def ids(self) -> list[str]:
        return [message["id"] for message in self.runtime.socket.all("chat")]

    async def test_say_resolves_with_the_seq_and_fails_with_the_code_of_the_protocol(self) -> None:
        client = self.live()
        room, socket = client.room("lobby"), self.runtime.socket
        first, second, third = (room.say(text) for text in "abc")
        assert first.id and second.id
        socket.chat(1, userId="guest-1", id=first.id)
        self.assertEqual(await first, Said(first.id, 1))
        socket.says({"type": "ack", "room": "lobby", "id": second.id, "seq": 2, "duplicate": True})
        self.assertEqual((await second).seq, 2)
        socket.error("muted", third.id, temporary=True, room="lobby", message="muted: too loud", retryAfterMs=500)
        with self.assertRaises(RoomcastError) as caught:
            await third
        error = caught.exception
        self.assertEqual(
            (error.code, error.message, error.retry_after_ms, error.id), ("muted", "muted: too loud", 500, third.id)
        )

    async def test_a_message_that_cannot_be_said_fails_at_once_and_has_no_id(self) -> None:
        client = self.live(limits={"messageBytes": 200, "dataBytes": 20})
        loop: list[Any] = []
        loop.append(loop)
        wrong: list[tuple[Any, Any, str]] = [
            ("", None, "bad_message"),
            (5, None, "bad_message"),
            ("x" * 200, None, "too_large"),
            ("x", "y" * 20, "too_large"),
            ("x", {1, 2}, "bad_message"),
            ("x", float("nan"), "bad_message"),
            ("x", "\ud800", "bad_message"),
            ("x", loop, "bad_message"),
        ]
        for text, data, code in wrong:
            sending = client.say("lobby", text, data)
            self.assertEqual((sending.id, await code_of(sending)), (None, code), repr(data))
        self.assertEqual(await code_of(client.say("elsewhere", "x")), "not_joined")
        self.assertEqual(self.texts(), [])
        self.assertEqual(client.unsent("lobby"), [])

    async def test_half_a_surrogate_pair_becomes_what_every_server_can_read(self) -> None:
        client = self.live()
        client.say("lobby", "a\ud800b \ud83d\ude42")
        self.assertEqual(self.texts(), ["a\ufffdb 🙂"])

    async def test_an_unacknowledged_message_is_sent_again_with_the_same_id_after_joined(self) -> None:
        client = self.live()
        sending = client.say("lobby", "hello", {"mood": "calm"})
        said = {"type": "chat", "room": "lobby", "text": "hello", "data": {"mood": "calm"}, "id": sending.id}
        self.assertEqual(self.runtime.socket.last("chat"), said)
        again = self.come_back()
        again.welcome()
        self.assertEqual(again.all("chat"), [])
        again.joined(recovered=True)
        self.assertEqual(again.last("chat"), said)
        again.chat(1, userId="somebody-else", id=sending.id)
        self.assertEqual(self.of("sent"), [], "the copy of another user with the same id")
        again.chat(2, userId="guest-1", id=sending.id)
        self.assertEqual(self.of("sent"), [Sent("lobby", str(sending.id), 2)])
        self.assertTrue(self.last("chat").own)
        self.assertEqual(client.unsent("lobby"), [])

    async def test_a_copy_among_the_missed_messages_acknowledges(self) -> None:
        client = self.live()
        sending = client.say("lobby", "hello")
        again = self.come_back()
        again.welcome()
        again.chat(1, userId="guest-1", id=sending.id)
        again.joined(seq=1, recovered=True)
        self.assertEqual(again.all("chat"), [])
        self.assertEqual(len(self.of("sent")), 1)

    async def test_a_message_without_an_answer_is_sent_again_after_15_s_until_there_is_one(self) -> None:
        client = self.live()
        socket = self.runtime.socket
        first = client.say("lobby", "hello").id
        self.runtime.tick(5)
        later, answered = client.say("lobby", "again").id, client.say("lobby", "answered").id
        socket.says({"type": "ack", "room": "lobby", "id": answered, "seq": 1, "duplicate": False})
        self.runtime.tick(9.9)
        self.assertEqual(self.ids(), [first, later, answered], "not before its time")
        self.runtime.tick(0.1)
        self.assertEqual(self.ids(), [first, later, answered, first])
        self.runtime.tick(5)
        self.assertEqual(self.ids()[4:], [later])
        socket.says({"type": "ack", "room": "lobby", "id": later, "seq": 2, "duplicate": True})
        self.runtime.tick(10)
        self.assertEqual(self.ids()[5:], [first])
        socket.says({"type": "ack", "room": "lobby", "id": first, "seq": 3, "duplicate": True})
        self.runtime.tick(20)
        self.assertEqual(len(self.ids()), 6, "all are answered")
        self.assertEqual([sent.id for sent in self.of("sent")], [answered, later, first])

    async def test_messages_of_an_offline_client_are_kept_in_order_up_to_a_bound(self) -> None:
        client = self.live(queue_max=3)
        self.runtime.socket.ends()
        for text in "abc":
            client.say("lobby", text)
        self.assertEqual(await code_of(client.say("lobby", "d")), "queue_full")
        self.assertEqual([message.text for message in client.unsent("lobby")], ["a", "b", "c"])
        self.runtime.tick(1)
        self.runtime.socket.welcome()
        self.runtime.socket.joined(recovered=True)
        self.assertEqual(self.texts(), ["a", "b", "c"])

    async def test_a_full_queue_is_sent_no_faster_than_the_server_allows(self) -> None:
        client = self.live(limits={"messageRate": 50, "messageBurst": 100})
        for index in range(1000):
            client.say("lobby", f"m{index}")
        before = len(self.runtime.socket.sent)
        self.assertLessEqual(before, 100)
        self.runtime.tick(10)
        sent = len(self.runtime.socket.sent) - before
        self.assertTrue(300 < sent <= 500, f"{sent} in 10 s")

    async def test_a_temporary_error_waits_and_holds_back_those_behind(self) -> None:
        client = self.live()
        first = client.say("lobby", "first")
        self.runtime.socket.error("rate_limited", first.id, temporary=True, room="lobby", retryAfterMs=700)
        client.say("lobby", "second")
        self.runtime.tick(0.699)
        self.assertEqual(self.texts(), ["first"])
        self.runtime.tick(0.001)
        self.assertEqual(self.texts(), ["first", "first", "second"])
        self.assertEqual((self.of("failed"), self.of("error")), ([], []))

    async def test_rate_limited_stands_for_all_that_is_under_way(self) -> None:
        client = self.live(limits={"messageRate": 50, "messageBurst": 100})
        first = client.say("lobby", "a")
        for text in "bc":
            client.say("lobby", text)
        self.runtime.socket.chat(1, userId="guest-1", id=first.id)
        self.runtime.socket.error("rate_limited", temporary=True, retryAfterMs=1)
        self.runtime.tick(0.2)
        self.assertEqual(self.texts(), ["a", "b", "c", "b", "c"])

    async def test_temporary_errors_without_a_wait_back_off_and_end(self) -> None:
        client = self.live()
        sending = client.say("lobby", "hello")
        for _ in range(21):
            self.runtime.socket.error("room_busy", sending.id, temporary=True, room="lobby")
            self.runtime.tick(11)
        self.assertEqual(len(self.texts()), 21)
        self.assertEqual(self.of("failed"), [Failed("lobby", str(sending.id), "hello", None, "room_busy", "no")])

    async def test_a_message_of_a_muted_user_fails_at_once_and_others_do_not_wait(self) -> None:
        client = self.live()
        refused = client.say("lobby", "hello")
        self.runtime.socket.error("muted", refused.id, temporary=True, room="lobby", retryAfterMs=3_600_000)
        self.assertEqual(
            [(failed.id, failed.retry_after_ms) for failed in self.of("failed")], [(refused.id, 3_600_000)]
        )
        self.assertEqual(self.of("error"), [ServerError("muted", "no", True, "lobby", refused.id, 3_600_000)])
        client.say("lobby", "later")
        self.assertEqual(self.texts(), ["hello", "later"])

    async def test_a_permanent_error_fails_the_message(self) -> None:
        client = self.live()
        sending = client.say("lobby", "hello")
        self.runtime.socket.error("forbidden", sending.id, room="lobby")
        self.assertEqual(await code_of(sending), "forbidden")
        self.come_back().welcome()
        self.runtime.socket.joined(recovered=True)
        self.assertEqual(self.texts(), [])

    async def test_an_ack_acknowledges_also_after_leaving(self) -> None:
        client = self.live()
        sending = client.say("lobby", "hello")
        client.leave("lobby")
        self.runtime.tick(40)
        self.assertEqual(len(self.texts()), 1, "nothing is sent again into a room that was left")
        self.runtime.socket.says({"type": "ack", "room": "lobby", "id": sending.id, "seq": 9, "duplicate": False})
        self.assertEqual((await sending).seq, 9)

    async def test_a_message_that_was_under_way_when_its_room_was_left_does_not_wait_for_ever(self) -> None:
        client = self.live()
        sending = client.say("lobby", "hello")
        client.leave("lobby")
        self.come_back().welcome()
        self.assertEqual(await code_of(sending), "left")

    async def test_after_the_end_for_good_nothing_waits_until_connect(self) -> None:
        client = self.live()
        waiting = client.say("lobby", "hello")
        self.runtime.socket.ends(4503, "contempt")
        self.assertEqual(await code_of(waiting), "banned")
        self.assertEqual([(failed.code, failed.text) for failed in self.of("failed")], [("banned", "hello")])
        with self.assertRaisesRegex(RoomcastError, "banned: contempt"):
            await client.say("lobby", "again")
        client.connect()
        self.assertIsNotNone(client.say("lobby", "waits").id)
        await client.close()
        self.assertEqual(len(client.unsent("lobby")), 1, "our own close() keeps it")

    async def test_messages_that_became_too_large_fail_on_the_next_connection(self) -> None:
        client = self.live()
        self.runtime.socket.ends()
        sending = client.say("lobby", "x" * 300)
        self.runtime.tick(20)
        self.runtime.socket.welcome(None, messageBytes=200)
        self.runtime.socket.joined(recovered=True)
        self.assertEqual(await code_of(sending), "too_large")


class History(ClientTest):
    def answers(self, epoch: str = "e1", messages: Any = (), *, more: bool = False) -> None:
        id = self.runtime.socket.last("history")["id"]
        message = {"type": "history", "room": "lobby", "epoch": epoch, "messages": list(messages), "more": more}
        self.runtime.socket.says({**message, "id": id})

    async def test_a_page_comes_without_deleted_messages_and_with_the_place_of_the_next(self) -> None:
        client = self.live(seq=9)
        page = client.room("lobby").history(before=9, limit=3)
        asked = {key: value for key, value in self.runtime.socket.last("history").items() if key != "id"}
        self.assertEqual(asked, {"type": "history", "room": "lobby", "before": 9, "limit": 3})
        chat = {"type": "chat", "room": "lobby", "text": "m", "ts": 1}
        chats = [{**chat, "userId": "guest-1", "seq": 7}, {**chat, "userId": "bob", "seq": 8}]
        self.answers(messages=[{"type": "deleted", "room": "lobby", "seq": 6}, *chats], more=True)
        found = await page
        self.assertEqual([(message.seq, message.own) for message in found.messages], [(7, True), (8, False)])
        self.assertEqual((found.more, found.before), (True, 6))

    async def test_pages_are_asked_for_one_after_the_other_and_one_of_another_epoch_is_dropped(self) -> None:
        client = self.live(seq=9)
        first, second, third = (client.history("lobby", before=before) for before in [9, 5, 2])
        self.assertEqual([message["before"] for message in self.runtime.socket.all("history")], [9])
        self.answers()
        self.assertEqual(((await first).messages, (await first).before), ((), None))
        self.assertEqual([message["before"] for message in self.runtime.socket.all("history")], [9, 5])
        self.answers("e2")
        self.assertEqual(await code_of(second), "stale")
        self.runtime.tick(15)
        self.assertEqual(await code_of(third), "timeout")

    async def test_history_fails_with_the_code_of_the_server(self) -> None:
        client = self.live()
        for code in ["unknown_type", "forbidden", "rate_limited"]:
            page = client.history("lobby")
            self.runtime.socket.error(code, self.runtime.socket.last("history")["id"], temporary=code == "rate_limited")
            self.assertEqual(await code_of(page), code)
        self.assertEqual(self.of("error"), [])

    async def test_history_fails_where_it_cannot_come(self) -> None:
        client = self.live()
        self.assertEqual(await code_of(client.history("hall")), "not_joined")
        stale = client.history("lobby")
        self.runtime.socket.joined(id=None, epoch="e2", recovered=False)
        self.assertEqual(await code_of(stale), "stale")
        left = client.history("lobby")
        many = [client.history("lobby") for _ in range(16)]
        self.assertEqual(await code_of(many[-1]), "queue_full")
        client.leave("lobby")
        self.assertEqual(await code_of(left), "left")
        client.join("lobby")
        self.assertEqual(await code_of(client.history("lobby")), "offline")
        self.runtime.socket.joined()
        lost = client.history("lobby")
        self.runtime.socket.ends()
        self.assertEqual(await code_of(lost), "offline")

    async def test_numbers_are_checked_when_they_are_given(self) -> None:
        client = self.live()
        for options, kind in [({"limit": 0}, ValueError), ({"limit": "5"}, TypeError), ({"before": 1.5}, TypeError)]:
            with self.assertRaises(kind):
                client.history("lobby", **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
