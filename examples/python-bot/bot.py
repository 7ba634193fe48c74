"""A bot that repeats what it is asked to repeat: say “echo hello” in its room, and it says “hello”.

pip install ./client/python
python examples/python-bot/bot.py ws://localhost:8080/ws lobby
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

from roomcast import Client, Room, RoomcastError

PREFIX = "echo "


async def answer(room: Room) -> None:
    """Ends when the room is left or the client is closed, with the error of the server if that has done so."""
    messages = room.events("chat")
    await room.join()
    print(f"listening in {room.name}", flush=True)
    async for message in messages:
        text = message.text.removeprefix(PREFIX)
        # A bot that answers itself, or another bot like it, never stops.
        if message.own or text in ("", message.text) or text.startswith(PREFIX):
            continue
        try:
            await room.say(text)
        except RoomcastError as error:
            print(f"not said: {error}", file=sys.stderr)


async def main(url: str, name: str) -> None:
    me = asyncio.current_task()
    assert me
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    client = Client(url, user_id="echo-bot", token=os.environ.get("CHAT_TOKEN"))
    client.on("status", lambda change: print(change.status, change.cause or "", flush=True))
    async with client:
        await answer(client.room(name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A bot that repeats what it is asked to repeat.")
    parser.add_argument("url")
    parser.add_argument("room")
    given = parser.parse_args()
    try:
        asyncio.run(main(given.url, given.room))
    except RoomcastError as error:
        sys.exit(f"the bot has ended: {error}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
