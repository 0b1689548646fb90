"""Signals of this process, handed on to a program that runs for it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PATIENCE = 3
"""Which of the signals that ask for an end is no longer a question: a program that is the first of its namespace does
not get those that it has no handler for."""


class Forwarding:
    """Where signals go. Those that come before it is known are kept until then."""

    def __init__(self) -> None:
        self._send: Callable[[int], None] | None = None
        self._early: list[int] = []
        self._count = 0

    def connect(self, send: Callable[[int], None], send_early: Callable[[int], None]) -> None:
        """Let ``send`` have every signal from now on, ``send_early`` those that have come already."""
        self._send = send
        while self._early:
            send_early(self._early.pop(0))

    def receive(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        if self._send is None:
            self._early.append(number)
            return
        self._count += 1
        self._send(number if self._count < _PATIENCE else signal.SIGKILL)


@contextmanager
def forwarded_signals() -> Iterator[Forwarding]:
    """Hand signals on instead of ending with them, while the block runs. For the main thread only.

    What this process ignores, as after ``nohup``, is nobody's business.
    """
    forwarding = Forwarding()
    numbers = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forwarding.receive) for number in numbers}
    try:
        yield forwarding
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
