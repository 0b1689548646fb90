"""Figures that take long to make are kept for a while."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SECONDS_MIN = 5.0
_SECONDS_MAX = 600.0
_WORTH = 20.0
"""A figure is kept for so many times the time that it took, so that they take a twentieth of a core, whoever asks."""


class Remembered(Generic[K, V]):
    """What was made for a key, until it is too old. It may be used by several threads; one of them makes a value."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._turns: dict[K, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value for a key, made if there is none, or none that is new enough."""
        found = self._fresh(key)
        if found is not None:
            return found[0]
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        try:
            with turn:
                found = self._fresh(key)
                return self._made(key, make) if found is None else found[0]
        finally:
            with self._lock:
                self._turns.pop(key, None)

    def _fresh(self, key: K) -> tuple[V, float] | None:
        with self._lock:
            entry = self._entries.get(key)
        return entry if entry is not None and entry[1] > time.monotonic() else None

    def _made(self, key: K, make: Callable[[], V]) -> V:
        begun = time.monotonic()
        value = make()
        now = time.monotonic()
        seconds = min(max(_SECONDS_MIN, _WORTH * (now - begun)), _SECONDS_MAX)
        with self._lock:
            self._entries[key] = (value, now + seconds)
            self._entries.move_to_end(key)
            while len(self._entries) > self._entries_max:
                self._entries.popitem(last=False)
        return value
