"""Why a connection could not be opened, or was closed."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from websockets.exceptions import InvalidHeader, InvalidStatus
from websockets.http11 import Response

from ._types import Cause

# Refusals that do not pass by waiting. A 404 may: proxies answer it while a server is being replaced.
_FINAL: frozenset[Cause] = frozenset({"banned", "origin", "forbidden", "bad_request"})
_NO_NETWORK = frozenset({errno.ENETUNREACH, errno.ENETDOWN})

_CLOSE_CAUSES: dict[int, Cause] = {
    4003: "token_expired",
    4501: "flooded",
    4502: "stalled",
    4503: "banned",
    4504: "replaced",
}


@dataclass(frozen=True)
class Disconnect:
    """Why there is no connection."""

    cause: Cause
    code: int = 0
    reason: str = ""
    #: How long the server asks to wait, in seconds.
    wait: float = 0.0
    #: Whether waiting changes nothing.
    is_final: bool = False


def explain_handshake(error: Exception, *, with_token: bool) -> Disconnect:
    """Why a handshake has failed."""
    if isinstance(error, InvalidStatus):
        return _refused(error.response, with_token)
    if isinstance(error, InvalidHeader):
        # The answer was 101, but of something between that does not pass the upgrade on.
        return Disconnect("no_upgrade", reason=str(error))
    if isinstance(error, OSError) and error.errno in _NO_NETWORK:
        return Disconnect("network", reason="there is no network")
    return Disconnect("unreachable", reason=f"the server cannot be reached: {str(error) or type(error).__name__}")


def _refused(response: Response, with_token: bool) -> Disconnect:
    status = response.status_code
    # Another program's page, of a firewall for example, says nothing about what the server would say.
    is_ours = _header(response, "Content-Type").startswith("text/plain")
    reason = bytes(response.body or b"").decode(errors="replace").strip() if is_ours else response.reason_phrase
    cause = _cause_of_status(status, reason, with_token)
    retry_after = _header(response, "Retry-After")
    return Disconnect(
        cause,
        code=status,
        reason=re.sub("^banned: ", "", reason),
        wait=float(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else 0.0,
        is_final=is_ours and cause in _FINAL,
    )


def _header(response: Response, name: str) -> str:
    """The first header of this name; something between may have added another one."""
    return next(iter(response.headers.get_all(name)), "")


def _cause_of_status(status: int, reason: str, with_token: bool) -> Cause:
    match status:
        case 400:
            return "bad_request"
        case 401:
            return "token_refused" if with_token else "token_needed"
        case 403 if reason.startswith("banned"):
            return "banned"
        case 403 if reason.startswith("pages of origin"):
            return "origin"
        case 403:
            return "forbidden"
        case 404:
            return "not_found"
        case 426:
            return "no_upgrade"
        case 429:
            return "too_many"
        case _:
            return "unavailable" if status >= 500 else "unreachable"


def cause_of_close(code: int) -> Cause:
    """The cause that a close code tells."""
    return _CLOSE_CAUSES.get(code, "server" if 4500 <= code <= 4999 else "lost")
