"""Tokens: asked for at every attempt, and again in time."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import Callable
from typing import Any

from fake import ClientTest, FakeSocket, code_of, settled
from roomcast import Client, Refreshed
from roomcast._handshake import Disconnect


class Tokens(ClientTest):
    async def with_tokens(self, seconds: float | None, give: Callable[[int], str] = "t{}".format) -> Client:
        """A client whose tokens are t1, t2 …, welcomed with the first, which expires so many seconds from now."""
        count = 0

        async def token() -> str:
            nonlocal count
            count += 1
            return give(count)

        client = self.client(token=token)
        client.connect()
        await settled()
        self.runtime.socket.welcome(None if seconds is None else self.in_seconds(seconds))
        return client

    def in_seconds(self, seconds: float) -> int:
        return self.runtime.unix_ms() + round(seconds * 1000)

    async def wait(self, seconds: int) -> None:
        """Lets time pass while the server answers pings."""
        while seconds > 0:
            step = min(25, seconds)
            seconds -= step
            self.runtime.tick(step)
            self.runtime.socket.says({"type": "pong"})
            await settled()

    def refreshes(self, socket: FakeSocket | None = None) -> list[str]:
        return [message["token"] for message in (socket or self.runtime.socket).all("refresh")]

    async def test_a_function_is_asked_at_every_attempt_and_says_who_the_user_is(self) -> None:
        tokens = iter(["t1", "t2"])
        self.client(token=lambda: next(tokens), user_id="alice", name="Alice").connect()
        await settled()
        self.assertEqual((self.runtime.socket.token, self.runtime.socket.url), ("t1", "wss://chat.example/ws"))
        self.runtime.socket.ends()
        self.runtime.tick(20)
        await settled()
        self.assertEqual(self.runtime.socket.token, "t2")

    async def test_a_token_that_comes_after_close_opens_nothing(self) -> None:
        gate = asyncio.Event()

        async def token() -> str:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)  # a function that goes on all the same
            return "late"

        client = self.client(token=token)
        client.connect()
        await settled()
        await client.close()
        gate.set()
        await settled()
        self.assertEqual((self.runtime.sockets, client.status), ([], "closed"))

    async def test_a_function_that_gives_nothing_in_time_is_asked_again(self) -> None:
        async def token() -> str:
            await asyncio.Event().wait()
            return "never"

        self.client(token=token).connect()
        await settled()
        self.runtime.tick(10)
        self.assertEqual((self.last("status").status, self.last("status").cause), ("offline", "unreachable"))

    async def test_a_function_that_fails_leaves_the_client_offline_and_is_asked_again(self) -> None:
        answers: list[Any] = [RuntimeError("the back-end is away"), "<html>Bad Gateway</html>", 5, "good"]

        def token() -> str:
            answer: Any = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[no-any-return]

        self.client(token=token).connect()
        for reason in ["the back-end is away", "what was given is no token", "what was given is no token"]:
            await settled()
            self.assertEqual((self.last("status").cause, self.runtime.sockets), ("token_unavailable", []))
            self.assertIn(reason, self.last("status").reason)
            self.runtime.tick(2)
        await settled()
        self.assertEqual(self.runtime.socket.token, "good")

    async def test_a_new_token_is_brought_a_minute_before_the_last_one_expires(self) -> None:
        await self.with_tokens(3600)
        await self.wait(3539)
        self.assertEqual(self.refreshes(), [])
        await self.wait(1)
        self.assertEqual(self.refreshes(), ["t2"])
        expires_at = self.in_seconds(600)
        self.runtime.socket.says(
            {"type": "refreshed", "expiresAt": expires_at, "id": self.runtime.socket.last("refresh")["id"]}
        )
        self.assertEqual(self.of("refreshed"), [Refreshed(expires_at)])
        await self.wait(539)
        self.assertEqual(self.refreshes(), ["t2"])
        await self.wait(1)
        self.assertEqual((self.refreshes(), len(self.runtime.sockets)), (["t2", "t3"], 1))

    async def test_a_token_that_is_good_for_a_short_time_is_replaced_when_a_fifth_of_that_is_left(self) -> None:
        await self.with_tokens(50)
        await self.wait(39)
        self.assertEqual(self.refreshes(), [])
        await self.wait(1)
        self.assertEqual(self.refreshes(), ["t2"])

    async def test_a_clock_that_is_ahead_of_the_server_causes_a_refresh_every_30_s_and_no_more(self) -> None:
        await self.with_tokens(-500)
        await self.wait(1)
        for count in range(1, 4):
            self.assertEqual(len(self.refreshes()), count)
            id = self.runtime.socket.last("refresh")["id"]
            self.runtime.socket.says({"type": "refreshed", "expiresAt": self.in_seconds(-400), "id": id})
            await self.wait(29)
            self.assertEqual(len(self.refreshes()), count)
            await self.wait(1)

    async def test_a_token_that_the_server_does_not_accept_is_asked_for_again(self) -> None:
        await self.with_tokens(50)
        await self.wait(40)
        for code in ["invalid_token", "rate_limited"]:
            count = len(self.refreshes())
            self.runtime.socket.error(code, self.runtime.socket.last("refresh")["id"], temporary=code == "rate_limited")
            self.assertEqual(self.last("error").code, code)
            await self.wait(29)
            self.assertEqual(len(self.refreshes()), count)
            await self.wait(1)
            self.assertEqual(len(self.refreshes()), count + 1)

    async def test_a_function_that_fails_once_is_asked_again_while_the_last_token_is_good(self) -> None:
        def give(count: int) -> str:
            if count == 2:
                raise RuntimeError("the back-end is away")
            return f"t{count}"

        await self.with_tokens(100, give)
        await self.wait(80)
        self.assertEqual(self.refreshes(), [])
        await self.wait(30)
        self.assertEqual(self.refreshes(), ["t3"])

    async def test_without_an_expiry_or_with_one_far_away_nothing_is_replaced(self) -> None:
        for seconds in [None, 100 * 24 * 3600]:
            await self.with_tokens(seconds)
            await self.wait(300)
            self.assertEqual(self.refreshes(), [])

    async def test_after_the_end_of_its_token_a_client_comes_back_with_a_new_one(self) -> None:
        await self.with_tokens(50)
        self.runtime.socket.ends(4003, "the token has expired")
        self.assertEqual((self.last("status").status, self.last("status").cause), ("offline", "token_expired"))
        self.runtime.tick(20)
        await settled()
        self.assertEqual(self.runtime.socket.token, "t2")

    async def test_a_refused_token_ends_the_client_unless_a_function_may_give_a_better_one(self) -> None:
        for token, status in [("always", "closed"), (lambda: "asked", "offline"), (None, "closed")]:
            client = self.client(token=token)
            call = client.connect()
            await settled()
            cause: Any = "token_refused" if token else "token_needed"
            self.runtime.socket.fails(Disconnect(cause, 401, "the token has expired"))
            self.assertEqual((client.status, self.last("status").cause, self.last("status").code), (status, cause, 401))
            self.assertEqual(await code_of(call), cause if status == "closed" else "pending")

    async def test_the_same_string_is_tried_again_after_4003(self) -> None:
        self.client(token="always").connect()
        self.runtime.socket.welcome(self.in_seconds(60))
        await self.wait(59)
        self.assertEqual(self.refreshes(), [])
        self.runtime.socket.ends(4003)
        self.runtime.tick(1)
        self.assertEqual((self.runtime.socket.token, len(self.runtime.sockets)), ("always", 2))

    async def test_a_late_token_of_an_earlier_connection_is_not_sent_on_the_next_one(self) -> None:
        gate = asyncio.Event()
        count = 0

        async def token() -> str:
            nonlocal count
            count += 1
            if count == 2:
                await gate.wait()
            return f"t{count}"

        self.client(token=token).connect()
        await settled()
        self.runtime.socket.welcome(self.in_seconds(10))
        await self.wait(8)
        self.assertEqual(count, 2)
        self.runtime.socket.ends()
        self.runtime.tick(20)
        await settled()
        self.runtime.socket.welcome()
        gate.set()
        await settled()
        self.assertEqual((self.refreshes(), self.runtime.socket.token), ([], "t3"))


if __name__ == "__main__":
    unittest.main()
