"""Names of rooms and users, and the ids of messages."""

from __future__ import annotations

import unicodedata

from ._errors import RoomcastError

NAME_BYTES_MAX = 128
_SIGNS = frozenset("-_.:@~+#=/")
# Letters within circles and squares, which Unicode counts as alphabetic although their category is that of symbols.
_CIRCLED = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))


def name_problem(name: object) -> str:
    """Says what is wrong with a room name or user id, in a sentence; empty if nothing is.

    The server has the last word: it knows the letters of its own version of Unicode.
    """
    if not isinstance(name, str):
        return f"A name is a string, not {type(name).__name__}."
    if name == "":
        return "A name needs at least one character."
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > NAME_BYTES_MAX:
        return f"That name has {size} bytes; {NAME_BYTES_MAX} are allowed."
    for character in name:
        if not _is_allowed(character):
            return f"{character!r} is not allowed in a name: use letters, digits and - _ . : @ ~ + # = /"
    return "" if unicodedata.is_normalized("NFC", name) else "That name is not in Unicode's form NFC."


def check_name(kind: str, name: str) -> None:
    problem = name_problem(name)
    if problem:
        raise RoomcastError("bad_name", f"{kind} name: {problem}")


def _is_allowed(character: str) -> bool:
    # Marks are letters in many scripts. Python does not tell which ones, so all of them pass here.
    if character in _SIGNS or unicodedata.category(character)[0] in "LNM":
        return True
    return any(first <= ord(character) <= last for first, last in _CIRCLED)
