"""Runs the Python snippets of a page one after the other, as `python -m asyncio` does: `await` is allowed anywhere.

Reads one JSON object a line, {"text"}, and answers each with {"error"}, which is null if all went well.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import sys
import traceback
from typing import Any


async def run(text: str, names: dict[str, Any]) -> None:
    code = compile(text, "<snippet>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result
    # Tasks of the snippet go on for a moment, so that their failures are seen.
    await asyncio.sleep(0.05)


async def main() -> None:
    # Lines that snippets print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    failures: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(str(context.get("exception") or context["message"])))
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    names: dict[str, Any] = {"__name__": "__main__"}
    async for line in lines:
        try:
            await run(json.loads(line)["text"], names)
        except Exception:
            failures.append(traceback.format_exc())
        print(json.dumps({"error": "\n".join(failures) or None}), file=answers)


asyncio.run(main())
