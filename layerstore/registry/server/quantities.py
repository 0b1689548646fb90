"""Sizes and durations, as a configuration file has them."""

import re

_SIZE = re.compile(r"([0-9]{1,18}) ?(?:([KMGT])iB)?")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)?")
_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_MAX = 2**62
_DURATION_MAX = 100 * 366 * 86400.0


def size_of(value: object) -> int:
    """Bytes: a number, or for example ``64GiB``. Raises `ValueError`."""
    match = None if isinstance(value, bool) else _SIZE.fullmatch(str(value))
    if match is None:
        raise ValueError("it is no size; write for example 64GiB, 4MiB or 1000000")
    size = int(match[1]) << (10 * (" KMGT".index(match[2]) if match[2] else 0))
    if size > _SIZE_MAX:
        raise ValueError("it is too large")
    return size


def duration_of(value: object) -> float:
    """Seconds: a number, or for example ``90s``, ``5m`` or ``24h``. Raises `ValueError`."""
    match = None if isinstance(value, bool) else _DURATION.fullmatch(str(value))
    if match is None:
        raise ValueError("it is no duration; write for example 90s, 5m, 24h or 7d")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _DURATION_MAX:
        raise ValueError("it is too long")
    return seconds
