"""Loads what a command needs when it is asked for, as all of the package takes longer than most commands."""

import importlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def load(module: str) -> ModuleType:
    """A module of ours. Ctrl-C ends the process meanwhile, without a traceback: nothing has begun yet."""
    with _ended_by_interrupts():
        return importlib.import_module(module)


@contextmanager
def _ended_by_interrupts() -> Iterator[None]:
    # An exception in the middle of an import may be swallowed there, or be told in place of what it broke.
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
