"""Pushes that begin before their upload ends: what has come of it is decoded and cut while the rest still comes.

So a client waits for the slower of the network and the store, not for one after the other. Nothing of it can be seen
until the upload is finished and its bytes have the digest that was promised; until then it may be given up at any
time, and the upload is pushed from its file when it ends, as if nobody had begun.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from layerstore.digest import Digest, PromisedDigest
from layerstore.errors import LayerstoreError
from layerstore.os_errors import translate_os_errors
from layerstore.registry.server.turns import Turns

_BLOCK_SIZE = 1 << 20
_PATIENCE_SECONDS = 10.0
"""How long it keeps its turn while no byte comes."""
_PATIENCE_IF_WANTED_SECONDS = 0.3
"""How long in all it waits for bytes while others wait for a turn: whoever has all bytes goes first."""
_LOOK_SECONDS = 0.05

Push = Callable[[Callable[[], Iterator[bytes]], PromisedDigest], float]
"""Pushes the blocks that the function gives; when the lease ends that holds the blob (seconds since 1970)."""


class _GivenUpError(Exception):
    """The bytes end here, and it is no fault."""


class Ahead:
    """One such push, on a thread of its own. It has taken a turn, which it gives back at its end."""

    def __init__(self, path: Path, size: int, algorithm: str, push: Push, turns: Turns) -> None:
        self._path = path
        self._size = size
        self._algorithm = algorithm
        self._push = push
        self._turns = turns
        self._changed = threading.Condition()
        self._digest: Digest | None = None
        self._is_given_up = False
        self._waited = 0.0
        """Seconds for which it waited for bytes since others have been waiting for its turn."""
        self._expires: float | None = None
        self._error: LayerstoreError | None = None
        self._thread = threading.Thread(target=self._run, name="push-ahead", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it was given up, or failed; the upload has to be pushed from its file."""
        with self._changed:
            return self._is_given_up

    def extend(self, size: int) -> None:
        """So many bytes are in the file now."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def give_up(self) -> None:
        """End it, without a blob. It does not wait for that."""
        with self._changed:
            self._is_given_up = True
            self._changed.notify_all()

    def finish(self, digest: Digest, size: int) -> float | None:
        """All bytes are there, so many, and have this digest: wait for the blob. When the lease ends that holds it.

        None if it was given up. Raises what the push raises.
        """
        if digest.algorithm != self._algorithm:
            self.give_up()
        with self._changed:
            self._size = size  # other processes may have added some
            self._digest = digest
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._expires

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._expires = self._push(self._blocks, PromisedDigest(self._algorithm, self._promised))
        except _GivenUpError:
            pass
        except LayerstoreError as error:
            self._error = error
        finally:
            with self._changed:
                # What fails before all bytes are there may go well later: then there is room, for example.
                self._is_given_up = self._expires is None
                if self._digest is None:
                    self._error = None
            self._turns.give_back()

    def _promised(self) -> Digest:
        assert self._digest is not None, "the bytes end when it is known"
        return self._digest

    def _blocks(self) -> Iterator[bytes]:
        offset = 0
        with translate_os_errors(f"cannot read {self._path}"), self._path.open("rb", buffering=0) as file:
            while (end := self._wait_for_more(offset)) > offset:
                while offset < end:
                    if self._is_given_up:
                        raise _GivenUpError
                    block = file.read(min(_BLOCK_SIZE, end - offset))
                    if not block:
                        raise _GivenUpError  # somebody has cut the file
                    offset += len(block)
                    yield block

    def _wait_for_more(self, offset: int) -> int:
        """How many bytes there are, when they are more than ``offset`` or all."""
        begun = time.monotonic()
        with self._changed:
            while True:
                if self._is_given_up:
                    raise _GivenUpError
                if self._size > offset or self._digest is not None:
                    return self._size
                if time.monotonic() - begun > _PATIENCE_SECONDS or self._waited > _PATIENCE_IF_WANTED_SECONDS:
                    raise _GivenUpError
                since = time.monotonic()
                self._changed.wait(_LOOK_SECONDS)
                self._waited = self._waited + time.monotonic() - since if self._turns.is_wanted else 0.0
