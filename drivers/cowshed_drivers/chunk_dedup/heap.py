"""Heap: giving memory back that was freed.

Frames and pages come and go in all sizes, and what stays between them keeps the C library from
giving the rest back by itself: 20 MB of an import that reads its own directories again and again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast


def give_back() -> None:
    """Give what isn't used back to the system (malloc_trim(3)), where the C library can."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    import ctypes

    try:
        found = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None  # not glibc
    found.argtypes = (ctypes.c_size_t,)
    return cast(Callable[[int], int], found)
