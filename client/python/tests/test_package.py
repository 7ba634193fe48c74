"""The package: what is built, its version, and its types."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import unittest
import zipfile
from pathlib import Path

import roomcast

PACKAGE = Path(__file__).parent.parent

RIGHT = """
from roomcast import Client, Joined, Message, RoomcastError

async def main() -> None:
    client = Client("wss://chat.example/ws", user_id="alice", name="Alice", token=lambda: "token", queue_max=10)
    async with client:
        shown: list[Message] = []
        stop = client.on("joined", lambda joined: shown.extend(joined.messages))
        client.on("status", lambda change: print(change.cause, change.retry_at))
        room = await client.join("lobby", history=50)
        room.on("deleted", lambda deleted: print(deleted.seqs[0] + 1))
        sending = room.say("hello", {"mood": "calm"})
        try:
            print(sending.id, (await sending).seq + 1)
        except RoomcastError as error:
            print(error.code, error.retry_after_ms)
        page = await room.history(before=5, limit=10)
        print(page.messages[0].text.upper(), page.more, page.before, room.users)
        async for message in room.events("chat"):
            print(message.text.upper())
        async for event in room.events("chat", "joined"):
            match event:
                case Message(text=text):
                    print(text.upper())
                case Joined(messages=messages):
                    shown.extend(messages)
        stop()
"""

WRONG = """
from roomcast import Client

async def main(client: Client) -> None:
    room = client.room("lobby")
    client.on("message", print)
    client.on("chat", lambda message: message.body)
    room.on("welcome", print)
    room.events("welcome")
    client.status = "online"
    Client("ws://localhost/ws", user="alice")
    Client("ws://localhost/ws", token=5)
    Client("ws://localhost/ws", name=5)
"""


class Package(unittest.TestCase):
    def test_wheel_and_source_have_the_modules_and_the_types(self) -> None:
        modules = sorted(path.name for path in (PACKAGE / "src/roomcast").iterdir() if path.is_file())
        self.assertIn("py.typed", modules)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "hatchling", "build", "--directory", folder]
            subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                names = wheel.namelist()
                wheel.extractall(Path(folder, "unpacked"))
            with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as source:
                sources = [name.split("/", 1)[1] for name in source.getnames()]
            program = "import roomcast, sys; sys.exit(not roomcast.__file__.endswith('unpacked/roomcast/__init__.py'))"
            subprocess.run([sys.executable, "-c", program], cwd=Path(folder, "unpacked"), check=True)
        self.assertEqual(
            sorted(name.removeprefix("roomcast/") for name in names if name.startswith("roomcast/")), modules
        )
        self.assertEqual([name for name in sources if "__pycache__" in name], [])
        self.assertTrue({"src/roomcast/py.typed", "README.md", "pyproject.toml"} <= set(sources))

    def test_its_version_is_that_of_the_server(self) -> None:
        ours = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["version"]
        servers = tomllib.loads((PACKAGE / "../../Cargo.toml").read_text())["package"]["version"]
        self.assertEqual(ours, servers)

    def test_the_types_accept_what_is_right_and_refuse_what_is_wrong(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in [("right", RIGHT), ("wrong", WRONG)]:
                Path(folder, f"{name}.py").write_text(text)
            command = [
                sys.executable,
                "-m",
                "mypy",
                "--strict",
                "--no-error-summary",
                "--cache-dir",
                str(PACKAGE / ".mypy_cache"),
                "right.py",
                "wrong.py",
            ]
            found = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
        lines = re.findall(r"^(right|wrong)\.py:(\d+): error", found.stdout, re.MULTILINE)
        wrong = [number for number, line in enumerate(WRONG.splitlines(), 1) if number > 5 and line]
        self.assertEqual(
            sorted({(name, int(number)) for name, number in lines}), [("wrong", number) for number in wrong]
        )

    def test_all_that_is_exported_exists(self) -> None:
        self.assertEqual([name for name in roomcast.__all__ if not hasattr(roomcast, name)], [])


if __name__ == "__main__":
    unittest.main()
