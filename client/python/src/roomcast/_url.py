"""The address of the WebSocket. A mistake is told when it is given, and not by attempts that fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


@dataclass(frozen=True)
class SocketUrl:
    """An address that was checked."""

    _base: str
    _query: str

    @property
    def is_secure(self) -> bool:
        return self._base.startswith("wss:")

    def asking(self, fields: Mapping[str, str]) -> str:
        """The address whose query asks for these fields; empty ones are left out."""
        pairs = [pair for pair in self._query.split("&") if pair]
        for field, value in fields.items():
            if value:
                pairs = [pair for pair in pairs if not pair.startswith(f"{field}=")]
                pairs.append(f"{field}={quote(value, safe='')}")
        return f"{self._base}?{'&'.join(pairs)}" if pairs else self._base


def socket_url(text: str) -> SocketUrl:
    """Checks an address; `http` becomes `ws`."""
    if not isinstance(text, str):
        raise TypeError(f"the URL is {type(text).__name__}; a string is allowed")
    example = "wss://chat.example/ws is one"
    if text == "" or any(character <= " " or character == "\x7f" for character in text):
        raise ValueError(f"{text!r} is no URL; {example}")
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname
        if host:
            host.encode("idna")  # as the connection will; a UnicodeError is a ValueError
    except ValueError as error:
        raise ValueError(f"{text!r} is no URL ({error}); {example}") from None
    if parts.scheme == "":
        raise ValueError(f"{text!r} is no URL, which must be whole; {example}")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{text!r} has the scheme {parts.scheme}; ws, wss, http and https are allowed")
    if not host or port == 0:
        raise ValueError(f"{text!r} names no {'port' if host else 'host'}; {example}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL has a user and a password, which are not sent; give a token or headers")
    base = urlunsplit((_SCHEMES[parts.scheme], parts.netloc, parts.path or "/", "", ""))
    return SocketUrl(base, parts.query)
