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
        self.state = State.CLOSED
        self.reason: str | None = None

    def trip(self, now: float, reason: str) -> bool:
        """Open, for a longer pause each time; True if the reason is news."""
        with self._lock:
            news = self.reason != reason
            self.reason = reason
            if self.state is not State.OPEN:
                self.state = State.OPEN
                self._until = now + self._pause * self._jitter()
                self._pause = min(MAX_PAUSE_SECONDS, self._pause * 2)
            return news

    def begin_try(self, now: float) -> bool:
        """True, once, when the pause is over: the caller looks at the queue and says so."""
        with self._lock:
            if self.state is not State.OPEN or now < self._until:
                return False
            self.state = State.TRYING
            return True

    def half_open(self) -> None:
        """The queue is there; whether it takes messages the next one shows."""
        with self._lock:
            if self.state is State.TRYING:
                self.state = State.HALF_OPEN

    def close(self, *, proven: bool = False) -> bool:
        """A message arrived: it works again if that was tried, since a message sent before the
        refusal proves nothing.  `proven`: whatever was tried.  True if it did not work before.
        """
        with self._lock:
            if self.state is State.CLOSED or not (proven or self.state is State.HALF_OPEN):
                return False
            self.state, self.reason, self._pause = State.CLOSED, None, FIRST_PAUSE_SECONDS
            return True
