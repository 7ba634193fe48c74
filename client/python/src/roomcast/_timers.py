"""Timers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Later(Protocol):
    def __call__(self, seconds: float, run: Callable[[], None], /) -> Cancellable: ...


class Timers:
    """Timers by name: setting one replaces it, and one that has run is gone."""

    def __init__(self, later: Later) -> None:
        self._later = later
        self._handles: dict[str, Cancellable] = {}

    def set(self, name: str, seconds: float, run: Callable[[], None]) -> None:
        self.clear(name)

        def fire() -> None:
            del self._handles[name]
            run()

        self._handles[name] = self._later(max(0.0, seconds), fire)

    def has(self, name: str) -> bool:
        return name in self._handles

    def clear(self, name: str) -> None:
        handle = self._handles.pop(name, None)
        if handle:
            handle.cancel()

    def clear_all(self) -> None:
        for name in list(self._handles):
            self.clear(name)
