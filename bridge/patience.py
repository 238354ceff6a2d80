"""How long and how often one result is tried against an engine that does not take it.  Pure: no
clock, no I/O; decides nothing about what follows when its patience is at its end.
"""

from __future__ import annotations

import random

# Pauses between the tries of a call that fails in the engine: a listener or an expression of the
# process, mostly, but a database that is away for a while answers in the same way.
BROKEN_PAUSES_SECONDS = (0.5, 1.5, 4.0, 8.0)
PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 10.0
# Between tries that only an operator can help: what the waiting room lets a result wait.
REST_SECONDS = 60.0
# How often a result that waits for the engine's return looks whether it is back.  Costs no call.
LOOK_SECONDS = 0.5


class Patience:
    """The tries of one result.  Belongs to the one caller that works on it; times in seconds."""

    def __init__(self, received: float) -> None:
        self.received = received
        self._tries = 0
        self._broken = 0
        self._random = random.Random()  # noqa: S311 (jitter)

    def held(self, now: float) -> float:
        """Since how many seconds it is in our hands."""
        return now - self.received

    def pause(self) -> float:
        """The pause before the next try: longer each time, with jitter."""
        self._tries += 1
        ceiling = min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2 ** min(self._tries, 10))
        return self._random.uniform(PAUSE_SECONDS / 2, ceiling)

    def look(self) -> float:
        """The pause before the next look at the gate."""
        return LOOK_SECONDS * self._random.uniform(0.5, 1.5)

    def rest(self) -> float:
        """The pause before the next try of what an operator has to mend."""
        return REST_SECONDS * self._random.uniform(0.75, 1.25)

    def broken(self) -> float | None:
        """The pause after a call that failed in the engine; None: it has failed often enough."""
        if self._broken == len(BROKEN_PAUSES_SECONDS):
            return None
        self._broken += 1
        return BROKEN_PAUSES_SECONDS[self._broken - 1] * self._random.uniform(0.75, 1.25)
