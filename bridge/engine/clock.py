"""The engine's time, read off its answers.

The local wall clock is never compared with the engine's dates.  The engine's time is the `Date`
header of its latest answer (one second coarse) carried on by the monotonic clock.
"""

from __future__ import annotations

import threading
from email.utils import parsedate_to_datetime
from functools import lru_cache

from bridge.clock import monotonic
from bridge.errors import EngineMisconfigured
from bridge.messages import LockWindow

# The Date header has no fractions of a second.
DATE_SECONDS = 1.0


class EngineClock:
    """The engine's time as its answers tell it.  Safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether any answer has told the time yet."""
        return self._offset is not None

    def observe(self, date_header: str | None, at: float) -> float:
        """Take the `Date` of an answer that arrived at monotonic time `at`; returns it in seconds.

        Raises EngineMisconfigured where no answer has ever carried a date: without the engine's
        time no lock can be judged.
        """
        try:
            date = _seconds(date_header or "")
        except ValueError:
            return self.now(at)
        with self._lock:
            self._offset = date - at
        return date

    def now(self, at: float | None = None) -> float:
        """The engine's seconds since the epoch, at monotonic time `at` (default: now)."""
        with self._lock:
            offset = self._offset
        if offset is None:
            raise EngineMisconfigured("the engine's answers carry no Date header")
        return offset + (monotonic() if at is None else at)


@lru_cache(maxsize=8)  # a second has many answers
def _seconds(date: str) -> float:
    return parsedate_to_datetime(date).timestamp()


def lock_window(duration: float, dated: float, took: float) -> LockWindow:
    """Where the expiration lies that a call has set which took so many seconds.

    `dated` is what its own answer says of the time: of two nodes, whose clocks differ, the one
    that set the lock has written that date too.
    """
    return LockWindow(dated - took + duration, dated + DATE_SECONDS + duration)
