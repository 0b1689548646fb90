"""Memory that is freed goes back to the system."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of <malloc.h>
_TRIM_SIZE = 32 << 20
_MMAP_SIZE = 4 << 20
_ARENAS = 1


def bound_free_memory() -> None:
    """Let glibc keep little of what is freed.

    By itself it keeps freed memory once for each of its arenas, that is, for each thread: eight uploads at once made a
    server keep 600 MB for ever (malloc(3), mallopt(3)). One arena is no bottleneck, as threads of Python allocate one
    at a time mostly. Blocks of a MiB, of which the data of layers is made, come from it and not from the system each:
    that cost a fifth of the CPU time of a push. Other C libraries do nothing of the kind.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _TRIM_SIZE)
        mallopt(_MMAP_THRESHOLD, _MMAP_SIZE)
        mallopt(_ARENA_MAX, _ARENAS)
