"""The driver of the Python client; README.md has the commands and events."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from roomcast import Client, HistoryPage, Joined, Members, Message, RoomcastError, Said, User

T = TypeVar("T")


def report(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def bare(message: Message) -> dict[str, Any]:
    return {"seq": message.seq, **identity(message), "text": message.text}


def identity(of: Message | User) -> dict[str, str]:
    return {"userId": of.user_id} if of.name is None else {"userId": of.user_id, "name": of.name}


class Driver:
    def __init__(self) -> None:
        self.client: Client | None = None
        self.asked: dict[int, asyncio.Future[str]] = {}  # tokens that the script has not given yet
        self.answers: set[asyncio.Task[None]] = set()

    def obey(self, command: dict[str, Any]) -> None:
        name = command.pop("do")
        if name == "connect":
            self.connect(command)
        elif name == "token":
            asked = self.asked.get(command["ref"])
            if asked and not asked.done():
                asked.set_result(command["token"])
        else:
            assert self.client, "connect comes first"
            self.act(self.client, name, command)

    def connect(self, command: dict[str, Any]) -> None:
        self.client = client = Client(
            command["url"],
            user_id=command.get("userId"),
            name=command.get("name"),
            queue_max=command.get("queueMax", 1000),
            token=self.ask if command.get("asks") else command.get("token"),
        )
        client.on("status", lambda it: report({"event": "status", "status": it.status, "cause": it.cause}))
        client.on("refreshed", lambda _: report({"event": "refreshed"}))
        client.on("joined", self.on_joined)
        client.on("chat", lambda it: report({"event": "chat", "room": it.room, "message": bare(it)}))
        client.on("deleted", lambda it: report({"event": "deleted", "room": it.room, "seqs": it.seqs}))
        client.on("members", self.on_members)
        client.on("left", lambda it: report({"event": "left", "room": it.room, "code": it.code}))
        client.connect()

    def on_joined(self, joined: Joined) -> None:
        messages = [bare(message) for message in joined.messages]
        report({"event": "joined", "room": joined.room, "replace": joined.replace, "messages": messages})

    def on_members(self, members: Members) -> None:
        users = None if members.users is None else [identity(user) for user in members.users]
        report({"event": "members", "room": members.room, "users": users})

    def act(self, client: Client, name: str, command: dict[str, Any]) -> None:
        match name:
            case "join":
                client.join(command["room"], history=command["history"])
            case "leave":
                client.leave(command["room"])
            case "say":
                self.answer(command["ref"], client.say(command["room"], command["text"]), said)
            case "history":
                page = client.history(command["room"], before=command.get("before"), limit=command["limit"])
                self.answer(command["ref"], page, older)
            case "close":
                client.close()
            case _:
                raise ValueError(f"there is no command {name!r}")

    async def ask(self) -> str:
        ref = len(self.asked) + 1
        self.asked[ref] = asyncio.get_running_loop().create_future()
        report({"event": "token", "ref": ref})
        return await self.asked[ref]

    def answer(self, ref: str, call: Awaitable[T], describe: Callable[[T], dict[str, Any]]) -> None:
        """Tells what becomes of a call."""

        async def wait() -> None:
            try:
                event = describe(await call)
            except RoomcastError as error:
                event = {"event": "failed", "code": error.code}
            report({**event, "ref": ref})

        task = asyncio.create_task(wait())
        self.answers.add(task)
        task.add_done_callback(self.answers.discard)


def said(result: Said) -> dict[str, Any]:
    return {"event": "sent", "seq": result.seq}


def older(page: HistoryPage) -> dict[str, Any]:
    return {"event": "history", "messages": [bare(message) for message in page.messages], "more": page.more}


async def main() -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    driver = Driver()
    report({"event": "ready"})
    async for line in lines:
        driver.obey(json.loads(line))


asyncio.run(main())
