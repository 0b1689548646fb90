"""Bytes between the event loop, which must not wait, and threads, which may."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import ParamSpec, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request

from layerstore.registry.protocol import ErrorCode
from layerstore.registry.server.problems import ProblemError

_BLOCK_SIZE = 1 << 20
_END = object()

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that may wait, on a thread of those that answer requests."""
    return await to_thread.run_sync(lambda: function(*args, **kwargs))


async def received(request: Request, size_max: int) -> AsyncIterator[bytes]:
    """The body of a request in blocks of about 1 MiB. Raises `ProblemError` if it is larger than ``size_max``."""
    parts: list[bytes] = []
    size = total = 0
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            total += len(part)
            if total > size_max:
                raise ProblemError(413, ErrorCode.SIZE_INVALID, f"more than {size_max} bytes are not accepted here")
            if size >= _BLOCK_SIZE:
                yield b"".join(parts)
                parts, size = [], 0
    except ClientDisconnect:
        if parts:
            yield b"".join(parts)  # whoever comes again goes on behind it
        raise
    if parts:
        yield b"".join(parts)


async def body_of(request: Request, size_max: int) -> bytes:
    """The whole body of a request. Raises `ProblemError` if it is larger than ``size_max``."""
    return b"".join([part async for part in received(request, size_max)])


async def sent(blocks: Iterator[bytes], length: int | None, limiter: CapacityLimiter) -> AsyncIterator[bytes]:
    """The first ``length`` bytes of what an iterator gives, or all, which waits in threads of ``limiter``.

    What the iterator holds is let go of at the end, whoever ends it.
    """

    def next_block() -> object:
        return next(blocks, _END)

    try:
        left = length
        while left != 0:
            block = await to_thread.run_sync(next_block, limiter=limiter)
            if not isinstance(block, bytes):
                return
            yield block[:left]
            if left is not None:
                left -= min(left, len(block))
    finally:
        if isinstance(blocks, Generator):
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(blocks.close, limiter=limiter)
