"""How many threads an operation uses."""

import os

_WORKERS_MAX = 16


def worker_count() -> int:
    """As many as processors that this process may use; more would only wait for each other."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _WORKERS_MAX)
