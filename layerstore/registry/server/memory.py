"""Memory that is freed goes back to the system."""

import ctypes

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # M_MMAP_THRESHOLD and M_ARENA_MAX of <malloc.h>
_SIZE = 256 << 10
_ARENAS = 2


def return_large_blocks() -> None:
    """Let glibc give every block of 256 KiB or more back as soon as it is freed.

    By itself it raises that size to the largest block that it has seen, and keeps the freed ones once for each of its
    arenas, that is, for each thread: eight uploads at once made a server keep 600 MB for ever (malloc(3), mallopt(3)).
    Other C libraries do nothing of the kind.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _SIZE)
        mallopt(_ARENA_MAX, _ARENAS)
