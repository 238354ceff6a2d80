"""Whether a topic may be fetched: open after a refused message, tried again with growing pauses.

Pure state; times are monotonic seconds passed in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 30.0


class State(Enum):
    """What a circuit lets through."""

    CLOSED = "closed"  # tasks flow
    OPEN = "open"  # nothing, until the pause is over
    TRYING = "trying"  # nothing, while the queue is being looked at
    HALF_OPEN = "half-open"  # one task at a time, until one of them reaches its queue


class Circuit:
    """One topic's circuit.  Safe to use from every thread."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._lock = threading.Lock()
        self._pause = FIRST_PAUSE_SECONDS
        self._until = 0.0
        self._untried = False  # nothing was refused yet, but nobody has looked either
        self.state = State.CLOSED
        self.reason: str | None = None

    def trip(self, now: float, reason: str) -> bool:
        """Open, for a longer pause each time; True if the reason is news."""
        with self._lock:
            news = self.reason != reason
            self.reason = reason
            if self.state is not State.OPEN:
                self._untried = self._untried and self.state is State.TRYING
                self.state = State.OPEN
                self._until = now + self._pause * self._jitter()
                self._pause = min(MAX_PAUSE_SECONDS, self._pause * 2)
            return news

    def look_first(self, now: float) -> None:
        """Let nothing through before the queue has been looked at, which is to be done now; what
        was known of it is out of date.
        """
        with self._lock:
            self.state, self.reason, self._untried = State.OPEN, None, True
            self._until, self._pause = now, FIRST_PAUSE_SECONDS

    def begin_try(self, now: float) -> bool:
        """True, once, when the pause is over: the caller looks at the queue and says so."""
        with self._lock:
            if self.state is not State.OPEN or now < self._until:
                return False
            self.state = State.TRYING
            return True

    def half_open(self) -> bool:
        """The queue is there; whether it takes messages the next one shows.  Where none was refused
        yet, tasks flow at once; True if that ends what `trip` had told.
        """
        with self._lock:
            if self.state is not State.TRYING:
                return False
            if not self._untried:
                self.state = State.HALF_OPEN
                return False
            told = self.reason is not None
            self.state, self.reason, self._pause = State.CLOSED, None, FIRST_PAUSE_SECONDS
            return told

    def close(self, *, proven: bool = False) -> bool:
        """A message arrived: it works again if that was tried, since a message sent before the
        refusal proves nothing.  `proven`: whatever was tried.  True if it did not work before.
        """
        with self._lock:
            if self.state is State.CLOSED or not (proven or self.state is State.HALF_OPEN):
                return False
            self.state, self.reason, self._pause = State.CLOSED, None, FIRST_PAUSE_SECONDS
            return True
