"""Several sources of bytes, each read in a thread of its own, whose bytes come out one source after the other."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

Source = Callable[[], Iterable[bytes]]


class _Abandoned(Exception):
    """The consumer has stopped."""


class _Channel:
    """What one source has yielded and nobody has taken yet. A producer that is too far ahead waits."""

    def __init__(self, capacity: int) -> None:
        self._condition = threading.Condition()
        self._capacity = capacity
        self._blocks: deque[bytes] = deque()
        self._size = 0
        self._ended = self._abandoned = False
        self._error: BaseException | None = None

    def fill(self, source: Source) -> None:
        """Read the source to its end or to its error, which the consumer then gets."""
        error = None
        try:
            for block in source():
                self._put(block)
        except _Abandoned:
            pass
        except BaseException as caught:
            error = caught
        with self._condition:
            self._ended, self._error = True, error
            self._condition.notify_all()

    def _put(self, block: bytes) -> None:
        with self._condition:
            while self._size >= self._capacity and not self._abandoned:
                self._condition.wait()
            if self._abandoned:
                raise _Abandoned
            self._blocks.append(block)
            self._size += len(block)
            self._condition.notify_all()

    def drain(self) -> Iterator[bytes]:
        """All blocks, in their order. Raises what the source raised."""
        while True:
            with self._condition:
                while not self._blocks and not self._ended:
                    self._condition.wait()
                if not self._blocks:
                    break
                block = self._blocks.popleft()
                self._size -= len(block)
                self._condition.notify_all()
            yield block
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Let the producer stop."""
        with self._condition:
            self._abandoned = True
            self._condition.notify_all()


def run_in_order(sources: Sequence[Source], threads: int, buffer_size: int) -> Iterator[bytes]:
    """Everything that the sources yield, source after source, while ``threads`` of them are read at once.

    About ``buffer_size`` bytes of each may wait. An error ends it where the bytes before it have been yielded. All
    threads have ended when the iterator is exhausted or closed.
    """
    channels: deque[tuple[_Channel, threading.Thread]] = deque()
    waiting = iter(sources)

    def start_next() -> None:
        if (source := next(waiting, None)) is not None:
            channel = _Channel(buffer_size)
            thread = threading.Thread(target=channel.fill, args=(source,), daemon=True)
            channels.append((channel, thread))
            thread.start()

    try:
        for _ in range(threads):
            start_next()
        while channels:
            yield from channels[0][0].drain()
            channels.popleft()[1].join()
            start_next()
    finally:
        for channel, _ in channels:
            channel.abandon()
        for _, thread in channels:
            thread.join()
