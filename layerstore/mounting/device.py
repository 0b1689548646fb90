"""/dev/fuse: requests are read from it and answered by a few threads."""

import errno
import logging
import os
import threading
from collections.abc import Callable

from layerstore.errors import LayerstoreError
from layerstore.mounting.answers import Answers
from layerstore.mounting.protocol import IN_HEADER, OUT_HEADER, REQUEST_SIZE_MAX, Opcode

THREADS = 3
_UNANSWERED = frozenset((Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT))

_log = logging.getLogger(__name__)


class Device:
    """An open /dev/fuse that stands for one mount."""

    def __init__(self, descriptor: int, answers: Answers, on_end: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._answers = answers
        self._on_end = on_end
        self._threads = [threading.Thread(target=self._serve, name=f"fuse-{count}") for count in range(THREADS)]

    def start(self) -> None:
        """Begin to answer. ``on_end`` is called, by any thread, when the file system is mounted no more."""
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def _serve(self) -> None:
        buffer = memoryview(bytearray(REQUEST_SIZE_MAX))
        try:
            while True:
                try:
                    length = os.readv(self._descriptor, [buffer])
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                        continue  # whoever asked was killed meanwhile
                    if error.errno != errno.ENODEV:
                        _log.error("cannot read requests: %s", error)
                    return
                self._handle(buffer[:length])
        finally:
            self._on_end()

    def _handle(self, request: memoryview) -> None:
        _, opcode, unique, number, *_ = IN_HEADER.unpack_from(request)
        if opcode in _UNANSWERED:
            return
        answer: bytes | memoryview = b""
        code = 0
        try:
            answer = self._answers.answer(opcode, number, request[IN_HEADER.size :])
        except LayerstoreError as error:
            _log.error("cannot answer request %s about inode %s: %s", opcode, number, error)
            code = errno.EIO
        except OSError as error:
            code = error.errno or errno.EIO
        except Exception:
            _log.exception("request %s about inode %s failed", opcode, number)
            code = errno.EIO
        try:
            os.writev(self._descriptor, [OUT_HEADER.pack(OUT_HEADER.size + len(answer), -code, unique), answer])
        except OSError as error:
            # ENOENT: whoever asked was killed meanwhile. ENODEV: unmounted; the next read tells so.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                _log.error("cannot answer request %s about inode %s: %s", opcode, number, error)
