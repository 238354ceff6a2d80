"""The small pool of threads that call the engine.  Knows jobs, keys and groups, nothing of tasks.

One job at a time per key (a task id), in order of submission: extending a lock and completing the
task must never race within a replica.  Locks come first: an urgent job overtakes the others of its
key and has threads kept free for it.  One group (a topic) of several never takes the whole pool,
and a job that asks to run again later frees its thread.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.clock import monotonic

Job = Callable[[], float | None]


@dataclass(slots=True)
class _Lane:
    """The work of one key.  Guarded by the pool's lock."""

    group: str
    urgent: deque[Job] = field(default_factory=deque)
    jobs: deque[Job] = field(default_factory=deque)
    running: bool = False
    put_off: bool = False


class Callers:
    """A pool of `size` threads for jobs of that many groups.  `run_one` is each thread's loop;
    whoever builds us starts them.
    """

    def __init__(self, size: int, groups: int = 1) -> None:
        self.size = size
        self._limit = size - size // 4  # the rest is for urgent jobs alone
        self.share(groups)
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._lanes: dict[str, _Lane] = {}
        # Keys that may have something to run; looked at again when taken, so stale ones do no harm.
        self._urgent: deque[str] = deque()
        self._groups: dict[str, deque[str]] = {}
        self._running: dict[str, int] = {}
        self._later: list[tuple[float, int, str]] = []
        self._ticket = itertools.count()
        self._stopping = False

    def __len__(self) -> int:
        """How many keys have work that is not done."""
        return len(self._lanes)

    def __contains__(self, key: str) -> bool:
        """Whether the key has work that is not done."""
        return key in self._lanes

    def share(self, groups: int) -> None:
        """There are so many groups from now on."""
        self._group_limit = self._limit if groups == 1 else max(1, self.size * 5 // 8)

    def submit(self, key: str, job: Job, *, group: str = "", urgent: bool = False) -> None:
        """Have the job run after everything submitted before for the key.  A job returns None when
        it is done, or the seconds after which it must be called again; meanwhile only urgent jobs
        of its key run.  An urgent job runs once, whatever it returns.
        """
        with self._changed:
            lane = self._lanes.setdefault(key, _Lane(group))
            (lane.urgent if urgent else lane.jobs).append(job)
            self._offer(key, lane)
            self._changed.notify()

    def run_one(self) -> None:
        """Work until `stop`; a job that raises ends the loop: jobs handle what they can act on."""
        while (taken := self._next()) is not None:
            key, job, urgent = taken
            again = job()
            self._done(key, again, urgent)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is left that can run now; True if so.  Jobs put off do not count."""
        with self._idle:
            return self._idle.wait_for(self._is_idle, timeout)

    def stop(self) -> None:
        """Have every loop end after the job it is in."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    # -- under the lock --------------------------------------------------------------------------

    def _offer(self, key: str, lane: _Lane) -> None:
        if lane.running:
            return
        if lane.urgent:
            self._urgent.append(key)
        elif lane.jobs and not lane.put_off:
            self._groups.setdefault(lane.group, deque()).append(key)

    def _next(self) -> tuple[str, Job, bool] | None:
        with self._changed:
            while not self._stopping:
                now = monotonic()
                while self._later and self._later[0][0] <= now:
                    key = heapq.heappop(self._later)[2]
                    self._lanes[key].put_off = False
                    self._offer(key, self._lanes[key])
                taken = self._take_urgent() or self._take()
                if taken is not None:
                    return taken
                self._changed.wait(self._later[0][0] - now if self._later else None)
            return None

    def _take_urgent(self) -> tuple[str, Job, bool] | None:
        while self._urgent:
            key = self._urgent.popleft()
            lane = self._lanes.get(key)
            if lane is not None and lane.urgent and not lane.running:
                lane.running = True
                return key, lane.urgent.popleft(), True
        return None

    def _take(self) -> tuple[str, Job, bool] | None:
        """The next job of the first group that may run one more; groups take turns."""
        if sum(self._running.values()) >= self._limit:
            return None
        for group, keys in list(self._groups.items()):
            if self._running.get(group, 0) >= self._group_limit:
                continue
            while keys:
                key = keys.popleft()
                lane = self._lanes.get(key)
                if lane and lane.jobs and not (lane.running or lane.put_off or lane.urgent):
                    lane.running = True
                    self._running[group] = self._running.get(group, 0) + 1
                    self._groups[group] = self._groups.pop(group)
                    return key, lane.jobs[0], False
            del self._groups[group]
        return None

    def _done(self, key: str, again: float | None, urgent: bool) -> None:
        with self._changed:
            lane = self._lanes[key]
            lane.running = False
            if not urgent:
                self._running[lane.group] -= 1
                if not self._running[lane.group]:
                    del self._running[lane.group]
                if again is None:
                    lane.jobs.popleft()
                else:
                    lane.put_off = True
                    heapq.heappush(self._later, (monotonic() + again, next(self._ticket), key))
            if lane.urgent or lane.jobs:
                self._offer(key, lane)
            else:
                del self._lanes[key]
            # This thread takes what is ready next; the others sleep until a new key comes.
            if self._is_idle():
                self._idle.notify_all()

    def _is_idle(self) -> bool:
        return len(self._lanes) <= len(self._later) and not any(
            lane.running or lane.urgent for lane in self._lanes.values()
        )
