"""Whether the engine is known not to answer.  Pure state: no clock, no I/O; sends nothing itself.

What one call has learned, all callers share: hundreds of results held for an engine that is away
need one call that asks whether it is back, not hundreds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from bridge.errors import EngineError, EngineMisconfigured, EngineUnauthorized, EngineUnavailable

FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 10.0
# A proxy may ask for hours of patience; an engine that is back must not be left alone for long.
MAX_RETRY_AFTER_SECONDS = 60.0

Jitter = Callable[[float, float], float]


class Gate:
    """Open until the engine is found away; then one caller passes per pause, until it answers.

    Times are monotonic seconds; `jitter` gives a number between its two arguments.  Safe to use
    from every thread.  Locks are never kept waiting here: the lock keeper does not ask.
    """

    def __init__(self, jitter: Jitter) -> None:
        self._jitter = jitter
        self._lock = threading.Lock()
        self._answered = float("-inf")
        self._pause: float | None = None
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether everybody may pass."""
        return self._pause is None

    def passes(self, now: float) -> bool:
        """Whether a call may go out at `now`.  Of a closed gate, True once per pause: a probe,
        which need not tell how it ended.
        """
        with self._lock:
            if self._pause is None:
                return True
            if now < self._probe_at:
                return False
            self._pause = min(MAX_PAUSE_SECONDS, self._pause * 2)
            self._probe_at = now + self._jitter(self._pause / 2, self._pause)
            return True

    def answered(self, now: float) -> None:
        """The engine has answered a call of anybody's, be it by a refusal: the gate is open."""
        with self._lock:
            self._answered = now
            self._pause = None

    def refused(self, error: EngineError, began: float, now: float) -> bool:
        """A call that began at `began` ended in `error`: close, if that says the engine is away.
        True if it was open and is closed now.

        It does not where the engine has answered anybody since `began`: then the one call was
        slow, or one proxy busy, and everybody else goes on.
        """
        if not isinstance(error, EngineUnavailable | EngineUnauthorized | EngineMisconfigured):
            return False
        asked = error.retry_after if isinstance(error, EngineUnavailable) else 0.0
        later = min(MAX_RETRY_AFTER_SECONDS, asked)
        with self._lock:
            closes = self._pause is None and self._answered <= began
            if closes:
                self._pause = FIRST_PAUSE_SECONDS
                self._probe_at = now + self._jitter(self._pause / 2, self._pause)
            if self._pause is not None and later:
                self._probe_at = max(self._probe_at, now + later)
            return closes
