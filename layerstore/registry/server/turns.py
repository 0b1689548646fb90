"""Turns: how many put something into the store at the same time, as each of them takes memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """So many at once. Its methods may be called from several threads."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._waiting = 0
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and have it until the block is left."""
        with self._lock:
            self._waiting += 1
        try:
            self._free.acquire()
        finally:
            with self._lock:
                self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()

    def take(self) -> bool:
        """Have a turn if one is free and nobody waits for it, until `give_back`."""
        return not self._waiting and self._free.acquire(blocking=False)

    def give_back(self) -> None:
        """End a turn that was taken."""
        self._free.release()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._waiting > 0
