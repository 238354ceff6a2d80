"""Wait for a condition with a limit, instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], limit: float = 60.0, *, what: str = "") -> T:
    """The condition's first true value; AssertionError with the last one after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what or condition}; last: {value!r}")
        time.sleep(0.02)


def throughout(condition: Callable[[], object], seconds: float, *, what: str = "") -> None:
    """The condition stays true for that long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what or condition
        time.sleep(0.02)
