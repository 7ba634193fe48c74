"""Messages of the server, checked and with types."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from ._types import Limits, Message, Presence, ServerError, User, Welcome

T = TypeVar("T")

PING_INTERVAL_MS = 25_000


class MessageError(ValueError):
    """The server has sent something else than a message."""


class Fields:
    """The fields of a JSON object. Those that are null count as absent."""

    def __init__(self, raw: object) -> None:
        if not isinstance(raw, dict):
            raise MessageError(f"{type(raw).__name__} in place of an object")
        self._raw: dict[str, Any] = raw

    def raw(self, name: str) -> Any:
        return self._raw.get(name)

    def text(self, name: str) -> str:
        return self._needed(name, self.text_or_none(name))

    def text_or_none(self, name: str) -> str | None:
        return self._of_type(name, str)

    def integer(self, name: str) -> int:
        return self._needed(name, self.integer_or_none(name))

    def integer_or_none(self, name: str) -> int | None:
        return self._of_type(name, int)

    def truth_or_none(self, name: str) -> bool | None:
        return self._of_type(name, bool)

    def list_or_none(self, name: str) -> list[Any] | None:
        return self._of_type(name, list)

    def _of_type(self, name: str, kind: type[T]) -> T | None:
        value = self._raw.get(name)
        # `bool` is a kind of `int` in Python, and not in JSON.
        if value is None or type(value) is kind:
            return value
        raise MessageError(f"{name} is {type(value).__name__}, not {kind.__name__}")

    def _needed(self, name: str, value: T | None) -> T:
        if value is None:
            raise MessageError(f"{self._raw.get('type', 'an entry')} has no {name}")
        return value


def encode(message: dict[str, Any]) -> str:
    """A message of the client as JSON; fields that are None are left out. Raises what `json` raises."""
    return encode_value({name: value for name, value in message.items() if value is not None})


def encode_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def well_formed(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which is no Unicode: no server can read it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def decode(text: str | bytes) -> Fields:
    try:
        return Fields(json.loads(text))
    except RecursionError:
        raise MessageError("JSON that is too deep") from None
    except MessageError:
        raise
    except ValueError as error:
        raise MessageError(f"no JSON: {error}") from None


def welcome(fields: Fields) -> Welcome:
    limits = Fields(fields.raw("limits") or {})
    ping_interval = fields.integer_or_none("pingInterval")
    return Welcome(
        user_id=fields.text("userId"),
        name=fields.text_or_none("name"),
        ping_interval=PING_INTERVAL_MS if ping_interval is None else ping_interval,
        expires_at=fields.integer_or_none("expiresAt"),
        limits=Limits(
            message_bytes=limits.integer_or_none("messageBytes"),
            data_bytes=limits.integer_or_none("dataBytes"),
            rooms_per_connection=limits.integer_or_none("roomsPerConnection"),
            message_rate=limits.integer_or_none("messageRate"),
            message_burst=limits.integer_or_none("messageBurst"),
            history_messages=limits.integer_or_none("historyMessages"),
            history_age_ms=limits.integer_or_none("historyAgeMs"),
            dedupe_window_ms=limits.integer_or_none("dedupeWindowMs"),
        ),
    )


def message(fields: Fields, own_user_id: str) -> Message:
    user_id = fields.text("userId")
    return Message(
        room=fields.text("room"),
        user_id=user_id,
        name=fields.text_or_none("name"),
        text=fields.text("text"),
        data=fields.raw("data"),
        id=fields.text_or_none("id"),
        ts=fields.integer("ts"),
        seq=fields.integer("seq"),
        own=user_id == own_user_id,
    )


def users(fields: Fields) -> tuple[User, ...] | None:
    found = fields.list_or_none("users")
    if found is None:
        return None
    return tuple(User(entry.text("userId"), entry.text_or_none("name")) for entry in map(Fields, found))


def presence(fields: Fields) -> Presence:
    return Presence(
        room=fields.text("room"),
        user_id=fields.text("userId"),
        name=fields.text_or_none("name"),
        status="online" if fields.text("status") == "online" else "offline",
    )


def deleted_seqs(fields: Fields) -> tuple[int, ...]:
    """The numbers that a deletion names, or its own where it stands in the place of what is gone."""
    found = fields.list_or_none("deletes")
    if found is None:
        return (fields.integer("seq"),)
    if not all(type(seq) is int for seq in found):
        raise MessageError("deletes has more than numbers")
    return tuple(found)


def error(fields: Fields) -> ServerError:
    return ServerError(
        code=fields.text("code"),
        message=fields.text_or_none("message") or "",
        temporary=fields.truth_or_none("temporary") or False,
        room=fields.text_or_none("room"),
        id=fields.text_or_none("id"),
        retry_after_ms=fields.integer_or_none("retryAfterMs"),
    )
