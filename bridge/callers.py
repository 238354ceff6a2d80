"""The small pool of threads that call the engine.  Knows jobs and keys, nothing of tasks.

One job at a time per key (a task id), in order of submission: extending a lock and completing the
task must never race within a replica.  A job that asks to run again later frees its thread, so
that one bad topic cannot occupy the pool.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable

from bridge.clock import monotonic

Job = Callable[[], float | None]


class Callers:
    """A pool of `size` threads.  `run_one` is each thread's loop; whoever builds us starts them."""

    def __init__(self, size: int) -> None:
        self.size = size
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._lanes: dict[str, deque[Job]] = {}
        self._ready: deque[str] = deque()
        self._later: list[tuple[float, int, str]] = []
        self._ticket = itertools.count()
        self._stopping = False

    def __len__(self) -> int:
        """How many keys have work that is not done."""
        return len(self._lanes)

    def submit(self, key: str, job: Job) -> None:
        """Have the job run after everything submitted before for the key.  A job returns None when
        it is done, or the seconds after which it must be called again.
        """
        with self._changed:
            lane = self._lanes.get(key)
            if lane is not None:
                lane.append(job)
                return
            self._lanes[key] = deque([job])
            self._ready.append(key)
            self._changed.notify()

    def run_one(self) -> None:
        """Work until `stop`; a job that raises ends the loop: jobs handle what they can act on."""
        while (key := self._next()) is not None:
            again = self._lanes[key][0]()
            self._done(key, again)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is left that can run now; True if so.  Jobs put off do not count."""
        with self._idle:
            return self._idle.wait_for(lambda: len(self._lanes) <= len(self._later), timeout)

    def stop(self) -> None:
        """Have every loop end after the job it is in."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _next(self) -> str | None:
        with self._changed:
            while not self._stopping:
                now = monotonic()
                while self._later and self._later[0][0] <= now:
                    self._ready.append(heapq.heappop(self._later)[2])
                if self._ready:
                    return self._ready.popleft()
                self._changed.wait(self._later[0][0] - now if self._later else None)
            return None

    def _done(self, key: str, again: float | None) -> None:
        with self._changed:
            lane = self._lanes[key]
            if again is not None:
                heapq.heappush(self._later, (monotonic() + again, next(self._ticket), key))
            else:
                lane.popleft()
                if lane:
                    self._ready.append(key)
                else:
                    del self._lanes[key]
            # This thread takes what is ready next; the others sleep until a new key comes.
            if len(self._lanes) <= len(self._later):
                self._idle.notify_all()
