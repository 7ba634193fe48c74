"""How long to wait: between attempts, and between messages."""

from __future__ import annotations

import math

BACKOFF_MIN = 0.5
BACKOFF_MAX = 20.0


def backoff(failures: int, chance: float) -> float:
    """The wait after so many failures, with full jitter.

    A crowd that lost its server together must not come back together.
    """
    spread: float = min(BACKOFF_MAX, BACKOFF_MIN * 2 ** min(failures, 10))
    return min(BACKOFF_MAX, BACKOFF_MIN + chance * spread)


class Pacer:
    """A token bucket somewhat smaller than the server's, which closes connections that flood (4501).

    A rate of 0 does not limit.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._per_second = rate * 0.8
        self._tokens_max = max(1.0, burst / 2)
        self._tokens = self._tokens_max
        self._at = -math.inf

    def wait(self, now: float) -> float:
        """How many seconds until the next message may go."""
        if self._per_second == 0:
            return 0.0
        self._tokens = min(self._tokens_max, self._tokens + max(0.0, now - self._at) * self._per_second)
        self._at = now
        # A timer may run a moment early, and rounding may leave the bucket short of a whole token.
        return 0.0 if self._tokens >= 1 - 1e-6 else (1 - self._tokens) / self._per_second

    def charge(self, now: float) -> None:
        self.wait(now)
        self._tokens -= 1

    def empty(self, now: float) -> None:
        self.wait(now)
        self._tokens = min(0.0, self._tokens)
