"""The rooms that the application wants to be in: joined on every connection, each message once and in order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import _wire
from ._errors import Call, Deferred, RoomcastError
from ._handshake import Disconnect
from ._link import Link
from ._membership import Deletion, Entry, Membership, in_order
from ._types import Deleted, Joined, Left, Members, Message, ServerError, Typing, User
from ._wire import Fields

if TYPE_CHECKING:
    from ._outbox import Outbox
    from ._pages import Pages
    from ._room import Room

HOLE = 10.0  # how long the server may take to explain a missing seq
ORPHAN = 10.0  # how long the server may take to answer for a room that it took us out of
TYPING_RENEW = 3.0
TYPING_EXPIRES = 6.0
PROVISIONAL_MAX = 10_000  # messages held back in a room until `joined`

Emit = Callable[[str, str | None, object], None]
"""Tells an event: its type, its room, and the event itself."""


class Memberships:
    """All memberships of a client."""

    outbox: Outbox  # set once they are made
    pages: Pages

    def __init__(self, link: Link, emit: Emit) -> None:
        self._all: dict[str, Membership] = {}
        self._link = link
        self._emit = emit

    def is_wanted(self, name: str) -> bool:
        return name in self._all

    def is_live(self, name: str) -> bool:
        one = self._all.get(name)
        return one is not None and one.is_live

    def epoch(self, name: str) -> str | None:
        one = self._all.get(name)
        return one.epoch if one else None

    def is_level(self) -> bool:
        return all(one.is_live for one in self._all.values())

    def join(self, room: Room, history: int) -> Call[Room]:
        one = self._all.get(room.name)
        if one is None:
            one = self._all[room.name] = Membership(room, history)
            if self._link.is_online:
                self._send_join(one)
        return one.answer.call

    def leave(self, name: str) -> None:
        one = self._all.get(name)
        if one is None:
            return
        self._forget(one, RoomcastError("left", "the room was left before this was done"))
        one.room._end_streams(None)
        if self._link.is_online:
            self._link.send({"type": "leave", "room": name, "id": self._link.next_id("leave")})

    def typing(self, name: str, is_active: bool) -> None:
        one = self._all.get(name)
        if one is None or not one.is_live:
            return
        now = self._link.runtime.now()
        age = now - one.typing_sent_at
        if age < TYPING_RENEW if is_active else age > TYPING_EXPIRES:
            return
        one.typing_sent_at = now if is_active else -math.inf
        self._link.send({"type": "typing", "room": name, "status": "start" if is_active else "stop"})

    def online(self) -> None:
        error = RoomcastError("left", "the room was left before the server confirmed this")
        self.outbox.fail_orphans(error, also_sent=True)
        # A listener of `welcome` may have joined rooms already.
        for one in list(self._all.values()):
            if one.join_id is None:
                self._send_join(one)

    def disconnected(self) -> None:
        for one in list(self._all.values()):
            one.disconnected()
            self._set_typing(one, ())

    def closed(self, error: RoomcastError) -> None:
        """The connection is closed for good. The rooms stay for another `connect`, and those who wait are told."""
        for one in self._all.values():
            if one.epoch is None:
                one.answer.reject(error)
                one.answer = Deferred()

    def _send_join(self, one: Membership) -> None:
        one.joining(self._link.next_id("join"))
        wait = self._link.pace_wait()
        if wait > 0:
            self._link.timers.set(f"join {one.name}", wait, lambda: self._send_join(one))
            return
        bound = self._link.limits.history_messages
        history = one.history if bound is None else min(one.history, bound)
        since = None if one.epoch is None else {"epoch": one.epoch, "seq": one.seq}
        self._link.send({"type": "join", "room": one.name, "since": since, "history": history, "id": one.join_id})

    def _forget(self, one: Membership, error: RoomcastError) -> None:
        name = one.name
        self._set_typing(one, ())
        self._link.timers.clear(f"hole {name}")
        self._link.timers.clear(f"join {name}")
        del self._all[name]
        one.room._is_joined = False
        self.pages.fail_all(error, room=name)
        # A message on its way is answered by an `ack` although we have left; `online` ends the wait if it is not.
        self.outbox.fail_orphans(error, also_sent=False)
        one.answer.reject(error)

    # ---- Receiving ----

    def on_joined(self, fields: Fields) -> None:
        name, id = fields.text("room"), fields.text_or_none("id")
        one = self._all.get(name)
        if one is None:
            return
        recovered = fields.truth_or_none("recovered")
        asked = one.join_id is not None and id == one.join_id
        if not asked and one.join_id is not None:
            # Without an id it says that what has come for the join so far counts no more.
            # With one it answers a join that we have left since.
            if id is None and recovered is False:
                one.provisional = []
            return
        epoch, seq, count, users = (
            fields.text("epoch"),
            fields.integer("seq"),
            fields.integer("count"),
            _wire.users(fields),
        )
        resumed = asked and one.epoch is not None
        replace = recovered is not True if asked else recovered is False
        after = 0 if replace or epoch != one.epoch else one.seq
        entries = in_order(one.provisional or [], after)
        messages = tuple(entry for entry in entries if isinstance(entry, Message))
        seqs = tuple(seq for entry in entries if isinstance(entry, Deletion) for seq in entry.seqs)
        if epoch != one.epoch:
            self.pages.fail_all(stale(), room=name)
        one.joined(epoch, seq)
        self._link.timers.clear(f"hole {name}")
        self._emit("joined", name, Joined(name, messages, replace, resumed, recovered, epoch, seq))
        if seqs:
            self._emit("deleted", name, Deleted(name, seqs))
        self._set_members(one, count, users)
        one.answer.resolve(one.room)
        self._link.check_level()
        self.outbox.flush()

    def on_left(self, fields: Fields) -> None:
        one = self._all.get(fields.text("room"))
        if one is None:
            return
        id = fields.text_or_none("id")
        if id is not None and id.startswith("leave-"):
            one.restart()  # ours, and we have joined anew since
            return
        code, message = one.removal or ("left", "the server took us out of the room")
        error = RoomcastError(code, message)
        self._forget(one, error)
        # A message that was accepted before has its copy dropped: nothing may come for it.
        self._link.timers.set("orphans", ORPHAN, lambda: self.outbox.fail_orphans(error, also_sent=True))
        self._emit("left", one.name, Left(one.name, code, message))
        one.room._end_streams(error)

    def on_chat(self, message: Message) -> None:
        one = self._all.get(message.room)
        if one is not None:
            self._stops_typing(one, message.user_id)
            self._take(one, message)

    def on_deleted(self, fields: Fields) -> None:
        """A deletion has a number of its own and names others, or it stands in the place of what is gone."""
        one = self._all.get(fields.text("room"))
        if one is not None:
            self._take(one, Deletion(fields.integer("seq"), _wire.deleted_seqs(fields)))

    def _take(self, one: Membership, entry: Entry) -> None:
        if one.provisional is not None:
            one.provisional.append(entry)
            if len(one.provisional) > PROVISIONAL_MAX:
                self._start_over(one)
        elif entry.seq == one.seq + 1:
            one.seq = entry.seq
            if isinstance(entry, Deletion):
                self._emit("deleted", one.name, Deleted(one.name, entry.seqs))
            else:
                self._emit("chat", one.name, entry)
        elif entry.seq > one.seq:
            # A hole. The server owes us a `joined` that says what became of the rest.
            # If none comes, we resume from where we stand.
            one.provisional = [entry]
            disconnect = Disconnect("lost", reason=f"messages missing in {one.name}")
            self._link.timers.set(f"hole {one.name}", HOLE, lambda: self._link.drop(disconnect))

    def on_presence(self, fields: Fields) -> None:
        presence = _wire.presence(fields)
        one = self._all.get(presence.room)
        if one is None:
            return
        is_online = presence.status == "online"
        if not is_online:
            self._stops_typing(one, presence.user_id)
        users = one.room.users
        self._emit("presence", one.name, presence)
        if users is None:
            return
        now = tuple(user for user in users if user.user_id != presence.user_id)
        if is_online:
            now += (User(presence.user_id, presence.name),)
        self._set_members(one, len(now), now)

    def on_members(self, fields: Fields) -> None:
        one = self._all.get(fields.text("room"))
        if one is not None:
            self._set_members(one, fields.integer("count"), _wire.users(fields))

    def on_typing(self, fields: Fields) -> None:
        one = self._all.get(fields.text("room"))
        user_id = fields.text("userId")
        if one is None or user_id == self._link.user_id:
            return
        if fields.text("status") != "start":
            self._stops_typing(one, user_id)
            return
        if user_id not in one.typing:
            self._set_typing(one, (*one.typing, user_id))
        self._link.timers.set(_typing_timer(one, user_id), TYPING_EXPIRES, lambda: self._stops_typing(one, user_id))

    def on_removed(self, error: ServerError) -> None:
        """`left` follows, and ends all."""
        one = self._all.get(error.room or "")
        if one is not None:
            one.removal = (error.code, error.message)

    def take_error(self, error: ServerError) -> None:
        """An error that answers a join: it is tried again later, or given up."""
        one = next((one for one in self._all.values() if error.id is not None and one.join_id == error.id), None)
        if one is None:
            return
        if not error.temporary:
            failure = RoomcastError(error.code, error.message)
            self._forget(one, failure)
            one.room._end_streams(failure)
            return
        if error.retry_after_ms is None:
            wait = self._link.backoff(one.refusals)
            one.refusals += 1
        else:
            wait = error.retry_after_ms / 1000
        self._link.timers.set(f"join {one.name}", wait, lambda: self._send_join(one))

    def _start_over(self, one: Membership) -> None:
        one.epoch = None
        self._link.drop(Disconnect("lost", reason=f"more than {PROVISIONAL_MAX} messages missed in {one.name}"))

    def _set_members(self, one: Membership, count: int, users: tuple[User, ...] | None) -> None:
        one.room._count = count
        one.room._users = users
        self._emit("members", one.name, Members(one.name, count, users))

    def _stops_typing(self, one: Membership, user_id: str) -> None:
        self._set_typing(one, tuple(other for other in one.typing if other != user_id))

    def _set_typing(self, one: Membership, user_ids: tuple[str, ...]) -> None:
        for gone in one.typing:
            if gone not in user_ids:
                self._link.timers.clear(_typing_timer(one, gone))
        has_changed = len(user_ids) != len(one.typing)
        one.typing = user_ids
        if has_changed:
            self._emit("typing", one.name, Typing(one.name, user_ids))


def stale() -> RoomcastError:
    return RoomcastError("stale", "the numbers of the room have begun anew", temporary=True)


def _typing_timer(one: Membership, user_id: str) -> str:
    return f"typing {one.name} {user_id}"  # names hold no spaces, so this is unambiguous
