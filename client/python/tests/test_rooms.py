"""Rooms: joining, resuming, deletions, presence, typing."""

from __future__ import annotations

import unittest
from typing import Any

from fake import ClientTest, code_of
from roomcast import Deleted, User


def seqs(messages: Any) -> list[int]:
    return [message.seq for message in messages]


class Joining(ClientTest):
    async def test_history_comes_with_joined_and_replaces(self) -> None:
        client = self.client()
        client.join("lobby", history=50)
        client.connect()
        self.runtime.socket.welcome(None, historyMessages=20)
        self.assertEqual(self.runtime.socket.last("join")["history"], 20)
        self.runtime.socket.chat(4)
        self.runtime.socket.chat(5)
        self.assertEqual(self.of("chat"), [], "provisional until joined")
        self.runtime.socket.joined(seq=5)
        joined = self.last("joined")
        self.assertEqual((joined.replace, joined.resumed, seqs(joined.messages)), (True, False, [4, 5]))
        self.runtime.socket.chat(6)
        self.assertEqual(seqs(self.of("chat")), [6])

    async def test_join_resolves_with_the_room_and_fails_when_it_is_refused_left_or_closed_for_good(self) -> None:
        client = self.live()
        socket = self.runtime.socket
        hall = client.join("hall")
        self.assertIs(client.join("hall"), hall, "one join")
        self.assertEqual(await code_of(hall), "pending")
        socket.joined(room="hall")
        self.assertIs(await hall, client.room("hall"))
        self.assertIs(await client.join("hall"), client.room("hall"))
        refused = client.join("secret")
        socket.error("forbidden", socket.last("join")["id"], room="secret")
        self.assertEqual(await code_of(refused), "forbidden")
        left = client.join("cellar")
        client.leave("cellar")
        self.assertEqual(await code_of(left), "left")
        self.assertEqual(await code_of(client.join("a b")), "bad_name")
        hopeless = client.join("attic")
        socket.ends(4503, "banned")
        self.assertEqual(await code_of(hopeless), "banned")
        client.connect()
        self.runtime.socket.welcome()
        rooms = [message["room"] for message in self.runtime.socket.all("join")]
        self.assertEqual(rooms, ["lobby", "hall", "attic"], "the rooms are kept")
        self.runtime.socket.joined(room="attic")
        self.assertIs(await client.join("attic"), client.room("attic"))
        with self.assertRaisesRegex(ValueError, "history is -1"):
            client.join("lobby", history=-1)

    async def test_a_room_that_is_joined_by_a_listener_of_welcome_is_joined_once(self) -> None:
        client = self.client()
        client.on("welcome", lambda _: client.join("hall"))
        client.connect()
        self.runtime.socket.welcome()
        self.assertEqual(len(self.runtime.socket.all("join")), 1)

    async def test_a_join_that_is_refused_for_now_is_tried_again(self) -> None:
        client = self.client()
        client.join("lobby")
        client.connect()
        socket = self.runtime.socket
        socket.welcome()
        sending = client.say("lobby", "hello")
        socket.error("unavailable", socket.last("join")["id"], temporary=True)
        self.runtime.tick(1)
        self.assertEqual(len(socket.all("join")), 2)
        socket.error("forbidden", socket.last("join")["id"])
        self.assertEqual(self.last("failed").id, sending.id)
        self.assertEqual(await code_of(client.say("lobby", "again")), "not_joined")
        client.join("hall")
        socket.error("unavailable", socket.last("join")["id"], temporary=True)
        client.leave("hall")
        count = len(socket.all("join"))
        self.runtime.tick(20)
        self.assertEqual(len(socket.all("join")), count, "a room that was left is not joined by the retry")

    async def test_joins_keep_to_the_rate(self) -> None:
        client = self.live(limits={"messageRate": 50, "messageBurst": 20})
        for index in range(30):
            client.join(f"room-{index}")
        self.assertEqual(len(self.runtime.socket.all("join")), 10)
        self.runtime.tick(1)
        self.assertEqual(len({message["room"] for message in self.runtime.socket.all("join")}), 31)

    async def test_only_the_answer_to_the_newest_join_counts(self) -> None:
        client = self.live()
        ids = []
        for _ in range(2):
            client.leave("lobby")
            client.join("lobby", history=1)
            ids.append(self.runtime.socket.last("join")["id"])
        self.runtime.socket.joined(id=ids[0], seq=7)
        self.assertEqual(len(self.of("joined")), 1)
        self.runtime.socket.joined(id=ids[1], seq=8)
        self.assertEqual(self.last("joined").seq, 8)

    async def test_leaving_and_joining_again_keeps_the_two_stays_apart(self) -> None:
        client = self.live(seq=3)
        socket = self.runtime.socket
        client.leave("lobby")
        client.join("lobby", history=2)
        socket.chat(4)
        socket.says({"type": "left", "room": "lobby", "id": socket.last("leave")["id"]})
        socket.chat(3)
        socket.chat(4)
        socket.joined(seq=4)
        self.assertEqual(seqs(self.last("joined").messages), [3, 4])
        self.assertEqual(self.of("left"), [])
        socket.says({"type": "left", "room": "lobby"})
        self.assertEqual(len(self.of("left")), 1, "the server took us out")

    async def test_a_user_who_is_taken_out_is_told_why_and_joins_again_only_when_asked_to(self) -> None:
        client = self.live()
        socket = self.runtime.socket
        client.join("hall")
        socket.says({"type": "typing", "room": "lobby", "userId": "bob", "status": "start"})
        accepted = client.say("lobby", "its copy is dropped")
        socket.error("removed", room="lobby", message="out with you")
        socket.says({"type": "left", "room": "lobby"})
        self.assertEqual([(left.code, left.message) for left in self.of("left")], [("removed", "out with you")])
        self.assertEqual((self.of("error"), self.last("typing").user_ids), ([], ()))
        self.assertEqual(await code_of(client.say("lobby", "hello")), "not_joined")
        self.assertEqual(self.of("failed"), [])
        self.runtime.tick(10)
        self.assertEqual([(failed.id, failed.code) for failed in self.of("failed")], [(accepted.id, "removed")])
        again = self.come_back()
        again.welcome()
        self.assertEqual([message["room"] for message in again.all("join")], ["hall"])
        client.join("lobby", history=50)
        self.assertNotIn("since", again.last("join"), "a new stay")


class Resuming(ClientTest):
    async def test_it_comes_back_as_the_user_that_welcome_named_from_the_position_it_had(self) -> None:
        self.live(seq=7)
        self.runtime.socket.chat(8)
        again = self.come_back()
        self.assertEqual(again.url, "wss://chat.example/ws?userId=guest-1")
        again.welcome()
        join = again.last("join")
        self.assertEqual((join["since"], join["history"]), ({"epoch": "e1", "seq": 8}, 50))

    async def test_recovered_adds_what_was_missed_each_message_once(self) -> None:
        self.live(seq=2)
        self.runtime.socket.chat(3)
        self.runtime.socket.chat(3)
        self.assertEqual(len(self.of("chat")), 1)
        again = self.come_back()
        again.welcome()
        for seq in [3, 4, 5, 5]:
            again.chat(seq)
        again.joined(seq=5, recovered=True)
        joined = self.last("joined")
        self.assertEqual((joined.replace, joined.resumed, seqs(joined.messages)), (False, True, [4, 5]))

    async def test_not_recovered_replaces_whatever_the_old_position_was(self) -> None:
        self.live(seq=100)
        again = self.come_back()
        again.welcome()
        again.chat(1)
        again.chat(2)
        again.joined(epoch="e2", seq=2, recovered=False)
        joined = self.last("joined")
        self.assertEqual((joined.replace, joined.recovered, seqs(joined.messages)), (True, False, [1, 2]))
        again.chat(3)
        self.assertEqual(self.last("chat").seq, 3)

    async def test_history_that_was_declared_void_before_joined_does_not_hide_what_follows_it(self) -> None:
        client = self.client()
        client.join("lobby", history=50)
        client.connect()
        socket = self.runtime.socket
        socket.welcome()
        for seq in [1, 2, 3]:
            socket.chat(seq)
        socket.joined(id=None, epoch="e2", recovered=False)
        self.assertEqual(self.of("joined"), [], "not joined yet")
        socket.chat(1, text="of the new epoch")
        socket.joined(epoch="e2", seq=1, recovered=False)
        self.assertEqual([message.text for message in self.last("joined").messages], ["of the new epoch"])

    async def test_an_unasked_joined_with_a_new_epoch_moves_the_position(self) -> None:
        self.live(seq=100)
        self.runtime.socket.joined(id=None, epoch="e2", seq=0)
        self.assertEqual((self.last("joined").epoch, self.last("joined").replace), ("e2", False))
        self.runtime.socket.chat(1)
        self.assertEqual(self.last("chat").seq, 1)
        again = self.come_back()
        again.welcome()
        self.assertEqual(again.last("join")["since"], {"epoch": "e2", "seq": 1})

    async def test_messages_after_a_hole_wait_for_the_joined_that_explains_it(self) -> None:
        self.live(seq=1)
        self.runtime.socket.chat(5)
        self.runtime.socket.chat(6)
        self.assertEqual(self.of("chat"), [])
        self.runtime.socket.joined(id=None, seq=6, recovered=False)
        self.assertEqual((self.last("joined").replace, seqs(self.last("joined").messages)), (True, [5, 6]))
        self.runtime.tick(15)
        self.assertFalse(self.runtime.socket.closed)

    async def test_a_hole_that_nobody_explains_is_closed_by_resuming_before_it(self) -> None:
        self.live(seq=1)
        self.runtime.socket.chat(5)
        self.runtime.tick(10)
        self.assertTrue(self.runtime.socket.closed)
        self.runtime.tick(1)
        self.runtime.socket.welcome()
        self.assertEqual(self.runtime.socket.last("join")["since"], {"epoch": "e1", "seq": 1})

    async def test_more_missed_messages_than_fit_are_given_up_for_a_fresh_start(self) -> None:
        self.live(seq=1)
        again = self.come_back()
        again.welcome()
        for seq in range(2, 10_003):
            again.chat(seq)
        self.assertTrue(again.closed)
        self.runtime.tick(20)
        self.runtime.socket.welcome()
        self.assertNotIn("since", self.runtime.socket.last("join"))


class Deletions(ClientTest):
    async def test_a_deletion_takes_its_place_in_the_order_and_names_what_is_gone(self) -> None:
        self.live(seq=5)
        socket = self.runtime.socket
        socket.chat(6)
        socket.says({"type": "deleted", "room": "lobby", "deletes": [2, 6], "ts": 1, "seq": 7})
        socket.chat(8)
        self.assertEqual(self.of("deleted"), [Deleted("lobby", (2, 6))])
        self.assertEqual(seqs(self.of("chat")), [6, 8], "no hole at 7")
        socket.says({"type": "deleted", "room": "lobby", "deletes": [6], "ts": 1, "seq": 7})
        self.assertEqual(len(self.of("deleted")), 1, "each once")
        again = self.come_back()
        again.welcome()
        self.assertEqual(again.last("join")["since"]["seq"], 8)
        again.chat(9)
        again.says({"type": "deleted", "room": "lobby", "seq": 10})
        again.says({"type": "deleted", "room": "lobby", "deletes": [8], "ts": 1, "seq": 11})
        again.joined(seq=11, recovered=True)
        self.assertEqual([type for type, _ in self.log[-3:]], ["joined", "deleted", "members"])
        self.assertEqual((seqs(self.last("joined").messages), self.last("deleted").seqs), ([9], (10, 8)))


class Attendance(ClientTest):
    async def test_presence_keeps_the_list_of_members_a_big_room_only_their_number(self) -> None:
        client = self.live()

        def presence(user_id: str, status: str) -> None:
            self.runtime.socket.says({"type": "presence", "room": "lobby", "userId": user_id, "status": status})

        presence("guest-1", "online")
        presence("bob", "online")
        presence("guest-1", "offline")
        self.assertEqual(self.last("members").users, (User("bob"),))
        room = client.room("lobby")
        self.assertEqual((room.count, room.users), (1, (User("bob"),)))
        self.runtime.socket.says({"type": "members", "room": "lobby", "count": 201})
        self.assertEqual((self.last("members").count, room.count, room.users), (201, 201, None))
        presence("bob", "offline")
        self.assertEqual(room.count, 201)

    async def test_typing_is_told_every_3_s_and_stopped_by_speaking(self) -> None:
        client = self.live()
        for _ in range(40):
            client.typing("lobby")
            self.runtime.tick(0.1)
        self.assertEqual([message["status"] for message in self.runtime.socket.all("typing")], ["start", "start"])
        client.say("lobby", "done")
        found = [message.get("status") or message["type"] for message in self.runtime.socket.sent[-2:]]
        self.assertEqual(found, ["stop", "chat"])
        client.say("lobby", "more")
        self.assertEqual(len(self.runtime.socket.all("typing")), 3)

    async def test_the_typing_of_others_expires_after_6_s_or_ends_with_what_they_say(self) -> None:
        client = self.live()

        def types(user_id: str) -> None:
            self.runtime.socket.says({"type": "typing", "room": "lobby", "userId": user_id, "status": "start"})

        types("guest-1")
        self.assertEqual(self.of("typing"), [], "our own does not count")
        types("bob")
        self.runtime.tick(5)
        types("bob")
        types("carol")
        self.runtime.socket.chat(1, userId="carol")
        self.runtime.tick(5.9)
        self.assertEqual(self.last("typing").user_ids, ("bob",))
        self.runtime.tick(0.1)
        self.assertEqual(self.last("typing").user_ids, ())
        types("bob")
        client.leave("lobby")
        self.assertEqual(self.last("typing").user_ids, (), "leaving ends it too")


if __name__ == "__main__":
    unittest.main()
