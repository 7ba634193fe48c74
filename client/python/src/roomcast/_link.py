"""One connection after another: back-off, tokens, silence, pace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import _wire
from ._handshake import Disconnect
from ._pacer import BACKOFF_MIN, Pacer, backoff
from ._socket import Runtime, Socket, Transport
from ._timers import Timers
from ._tokens import Tokens
from ._types import Limits, ServerError, Status, StatusChange, TokenSource, Welcome
from ._url import SocketUrl
from ._wire import Fields, MessageError

LEVEL = 30.0  # how long all must be well before the back-off starts afresh
WELCOME = 10.0  # from the attempt to `welcome`
PONG = 10.0
RETRY_AFTER_MAX = 60.0  # a longer wait that the server asks for is cut to this


@dataclass(frozen=True, slots=True)
class LinkHost:
    """The owner of a link: it is told of changes, and asked whether all is well."""

    on_status: Callable[[StatusChange], None]
    on_down: Callable[[], None]
    on_welcome: Callable[[Welcome], None]
    on_message: Callable[[Fields], None]
    #: Whether all is well.
    is_level: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class AskedIdentity:
    """The user that the application wants to be. A server that knows better chooses another one."""

    user_id: str
    name: str
    token: TokenSource | None


class Link:
    """Keeps a connection, and tells its host what comes and goes."""

    def __init__(
        self,
        url: SocketUrl,
        asked: AskedIdentity,
        transport: Transport,
        runtime: Runtime,
        host: LinkHost,
    ) -> None:
        self.status: Status = "closed"
        self.user_id = asked.user_id
        self.limits = Limits()
        self.runtime = runtime
        self.timers = Timers(runtime.later)
        self._url = url
        self._name = asked.name
        self._transport = transport
        self._host = host
        self._tokens = Tokens(asked.token, self)
        self._socket: Socket | None = None
        self._closing: set[Socket] = set()
        self._failures = 0  # connections lost since the last level time
        self._requests = 0
        self._paused_until = 0.0
        self._silence = 55.0
        self._heard_at = 0.0
        self._pacer = Pacer(0, 0)

    @property
    def is_online(self) -> bool:
        return self.status == "online"

    @property
    def _is_connecting(self) -> bool:
        return self.status == "connecting"

    def connect(self) -> None:
        if self._socket or self._is_connecting:
            return
        self._set_status(StatusChange("connecting"))
        if not self._is_connecting:
            return  # a listener has closed the client
        self.timers.set("welcome", WELCOME, lambda: self.drop(Disconnect("unreachable", reason="no welcome")))
        self._tokens.ask(self._open, self._on_no_token)

    def reconnect(self) -> None:
        """Tries again at once when offline, and makes sure of the connection when online."""
        if self.status == "offline":
            self.connect()
        elif self.is_online:
            self._probe()

    def close(self) -> None:
        socket = self._socket
        self._disconnected()
        if socket:
            socket.close()
        self._set_status(StatusChange("closed"))

    async def wait_closed(self) -> None:
        """Waits until no connection is left that was closed or given up."""
        for socket in list(self._closing):
            await socket.wait_closed()

    def drop(self, disconnect: Disconnect) -> None:
        """Gives up a connection that is silent."""
        socket = self._socket
        self._lost(disconnect)
        if socket:
            socket.abort()

    def send(self, message: dict[str, object]) -> None:
        self.send_text(_wire.encode(message))

    def send_text(self, text: str) -> None:
        self._pacer.charge(self.runtime.now())
        # A listener may have closed the connection while messages were being sent.
        if self._socket:
            self._socket.send(text)

    def wait(self) -> float:
        """How long the pace, or a refusal, has the next message wait."""
        now = self.runtime.now()
        return max(self._paused_until - now, self._pacer.wait(now))

    def pace_wait(self) -> float:
        """Joins and requests keep to the pace, too, but a refused message does not hold them back."""
        return self._pacer.wait(self.runtime.now())

    def next_id(self, kind: str) -> str:
        self._requests += 1
        return f"{kind}-{self._requests}"

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self.runtime.now() + seconds)

    def slow_down(self, retry_after_ms: int | None) -> None:
        """The server tells of one refusal a second and drops the rest in silence."""
        self._pacer.empty(self.runtime.now())
        self.pause(BACKOFF_MIN if retry_after_ms is None else retry_after_ms / 1000)

    def backoff(self, failures: int) -> float:
        return backoff(failures, self.runtime.random())

    def take_error(self, error: ServerError) -> bool:
        return self._tokens.take_error(error)

    def check_level(self) -> None:
        """Starts the back-off afresh once all has been well for a while.

        Being welcomed is not enough: a server in trouble welcomes, and fails a second later.
        """
        if self.timers.has("level") or not self._host.is_level():
            return
        self.timers.set("level", LEVEL, self._start_afresh)

    def _start_afresh(self) -> None:
        self._failures = 0

    # ---- The socket ----

    def _open(self, token: str | None) -> None:
        # With a token it is the token that says who we are.
        url = self._url.asking({} if token else {"userId": self.user_id, "name": self._name})
        self._socket = self.runtime.open(url, token, self._transport, self)
        self._closing.add(self._socket)

    def _on_no_token(self, error: Exception) -> None:
        self._lost(Disconnect("token_unavailable", reason=f"no token: {str(error) or type(error).__name__}"))

    def on_text(self, socket: Socket, text: str | bytes) -> None:
        if socket is not self._socket:
            return
        self._heard_at = self.runtime.now()
        if self.timers.has("pong"):
            self.timers.clear("pong")
            self._watch()
        try:
            self._receive(_wire.decode(text))
        except MessageError as error:
            self.drop(Disconnect("lost", reason=f"the server sent what is no message: {error}"))

    def on_end(self, socket: Socket, disconnect: Disconnect) -> None:
        self._closing.discard(socket)
        if socket is self._socket:
            self._lost(disconnect)

    def _receive(self, fields: Fields) -> None:
        kind = fields.text("type")
        if kind == "welcome":
            self._on_welcome(_wire.welcome(fields))
            return
        if kind == "refreshed":
            self._tokens.refreshed(fields.integer_or_none("expiresAt"))
        self._host.on_message(fields)

    def _on_welcome(self, welcome: Welcome) -> None:
        self.timers.clear("welcome")
        self.user_id = welcome.user_id
        self.limits = welcome.limits
        self._silence = 2 * welcome.ping_interval / 1000 + 5
        self._pacer = Pacer(welcome.limits.message_rate or 0, welcome.limits.message_burst or 0)
        self._paused_until = 0.0
        self._set_status(StatusChange("online"))
        if not self.is_online:
            return  # a listener has closed the client
        self._watch()
        self._tokens.plan(welcome.expires_at)
        self._host.on_welcome(welcome)
        self.check_level()

    def _lost(self, disconnect: Disconnect) -> None:
        self._disconnected()
        # A token that is always the same does not become good again, and without any there is nobody to ask for one.
        is_hopeless = disconnect.cause in ("token_needed", "token_refused") and not self._tokens.can_change
        if disconnect.is_final or is_hopeless or 4500 <= disconnect.code <= 4999:
            self._set_status(StatusChange("closed", disconnect.cause, disconnect.code, disconnect.reason))
            return
        delay = min(disconnect.wait, RETRY_AFTER_MAX) + self.backoff(self._failures)
        self._failures += 1
        self.timers.set("retry", delay, self.connect)
        retry_at = self.runtime.unix_ms() + round(delay * 1000)
        self._set_status(StatusChange("offline", disconnect.cause, disconnect.code, disconnect.reason, retry_at))

    def _disconnected(self) -> None:
        self._socket = None
        self.timers.clear_all()
        self._tokens.disconnected()
        self._host.on_down()

    def _set_status(self, change: StatusChange) -> None:
        self.status = change.status
        self._host.on_status(change)

    # ---- Silence ----

    def _watch(self) -> None:
        self.timers.set("silence", self._heard_at + self._silence - self.runtime.now(), self._check_silence)

    def _check_silence(self) -> None:
        if self.runtime.now() - self._heard_at < self._silence:
            self._watch()
        else:
            self._probe()

    def _probe(self) -> None:
        if not self.is_online or self.timers.has("pong"):
            return
        self.send({"type": "ping"})
        self.timers.set("pong", PONG, lambda: self.drop(Disconnect("lost", reason="no answer")))
