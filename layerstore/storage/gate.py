"""Keeps transactions out while LMDB's map changes its size: a map must not move under a reader."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets many transactions pass at once, or one change of the map's size alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._waiting = 0
        self._local = threading.local()

    def inside(self) -> bool:
        """Whether this thread runs a transaction."""
        return getattr(self._local, "depth", 0) > 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """A transaction runs inside; any number of threads may."""
        depth = getattr(self._local, "depth", 0)
        with self._condition:
            # A thread that is inside already must not wait for one that waits for it to leave.
            while self._waiting and not depth:
                self._condition.wait()
            self._inside += 1
        self._local.depth = depth + 1
        try:
            yield
        finally:
            self._local.depth = depth
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def exclusive(self, own: int = 0) -> Iterator[None]:
        """No transaction runs inside, but for ``own`` that the caller knows of."""
        with self._condition:
            self._waiting += 1
            try:
                while self._inside > own:
                    self._condition.wait()
                yield
            finally:
                self._waiting -= 1
                self._condition.notify_all()

    @contextmanager
    def upgraded(self) -> Iterator[None]:
        """`exclusive` for a thread that is inside `shared` and has not begun its transaction yet."""
        with self._condition:
            self._inside -= 1  # several threads may come here at once, and must not wait for each other
            self._condition.notify_all()
        try:
            with self.exclusive(own=getattr(self._local, "depth", 1) - 1):
                yield
        finally:
            with self._condition:
                self._inside += 1
