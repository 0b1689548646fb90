"""Runs a scenario that kills itself with SIGKILL at its N-th durable step, before it, after it or half way through.

Nothing in the store knows of this: the functions of `os` that change files are wrapped here, and `Index._write_once`,
whose commit happens inside LMDB.
"""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crash_scenarios

from layerstore.storage.index import Index, Transaction

_STEPS = ("fdatasync", "fsync", "ftruncate", "rename", "replace", "unlink", "mkdir")


class Killer:
    """Counts steps; dies at one of them."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._lock = threading.Lock()
        self.steps = 0

    def step(self) -> None:
        """One more; the last one for the process if it is the chosen one."""
        if self.is_next():
            die()

    def is_next(self) -> bool:
        with self._lock:
            self.steps += 1
            return self.steps == self._at


def die() -> None:
    """No handler, no `finally`, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def install(killer: Killer) -> None:
    """Wrap what changes files in this process."""
    for name in _STEPS:
        setattr(os, name, _counted(killer, getattr(os, name)))
    os.pwrite = _counted_pwrite(killer, os.pwrite)
    os.open = _counted_open(killer, os.open)
    _count_commits(killer)


def _counted(killer: Killer, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        killer.step()
        return real(*arguments, **options)

    return call


def _counted_pwrite(killer: Killer, real: Callable[..., int]) -> Callable[..., int]:
    def call(descriptor: int, data: Any, offset: int) -> int:
        killer.step()
        if killer.is_next():
            view = memoryview(data)
            real(descriptor, view[: max(1, len(view) // 2)], offset)
            die()
        return real(descriptor, data, offset)

    return call


def _counted_open(killer: Killer, real: Callable[..., int]) -> Callable[..., int]:
    def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            killer.step()
        return real(path, flags, *arguments, **options)

    return call


def _count_commits(killer: Killer) -> None:
    real = Index._write_once

    def write_once(self: Index, change: Callable[[Transaction], Any]) -> Any:
        def counted(transaction: Transaction) -> Any:
            result = change(transaction)
            killer.step()
            return result

        result = real(self, counted)
        killer.step()
        return result

    Index._write_once = write_once


def run(scenario: str, at: int, paths: list[str]) -> None:
    """In a child process: run a scenario until step ``at``."""
    install(Killer(at))
    getattr(crash_scenarios, scenario)(*map(Path, paths))
