"""What is in flight: room, admit, confirmed, due, renewed, settle.  Pure state: no clock, no I/O.

All times are monotonic seconds passed in; lock expirations are the engine's seconds.  An entry is
frozen; every change makes a new one.  `serial` names one admission: what arrives late for an
earlier admission of the same task finds another serial and changes nothing.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bridge.messages import LockWindow

# An entry with this due time is in somebody's hands: it is not handed out a second time.
BUSY = math.inf
SPARE_DUES = 1000


@dataclass(frozen=True, slots=True)
class Timing:
    """A topic's room and times, in tasks and seconds."""

    capacity: int
    publish_window: float
    lease_after: float
    lease: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One task that this replica answers for.

    `confirmed`: a queue holds its message; `confirmed_at` is when we heard it, None if we did not
    or took the task over.  `expiries`: the lock expirations that count as set by
    us.  `lock_ends`: the lock certainly runs until then.  `due`: when the lock keeper must look at
    it.  `deadline`: an answer is expected until then.
    """

    task_id: str
    topic: str
    retries: int | None
    serial: int
    since: float
    expiries: tuple[LockWindow, ...]
    lock_ends: float
    due: float
    deadline: float
    confirmed: bool = False
    leased: bool = False
    confirmed_at: float | None = None


class Ledger:
    """The tasks that this replica answers for.  Safe to use from every thread.

    `timings` may change, and grow, while they are used.
    """

    def __init__(self, timings: Mapping[str, Timing]) -> None:
        self._timings = timings
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._held: dict[str, int] = dict.fromkeys(timings, 0)
        self._due: list[tuple[float, int, str]] = []
        self._serials = itertools.count(1)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._entries

    def __repr__(self) -> str:
        topics = ", ".join(
            f"{topic} {held}/{self._timings[topic].capacity}" for topic, held in self._held.items()
        )
        return f"<Ledger {topics}>"

    def room(self, topic: str) -> int:
        """How many more tasks of the topic may be fetched; never negative."""
        return max(0, self._timings[topic].capacity - self._held.get(topic, 0))

    def held(self, topic: str) -> int:
        """How many tasks of the topic are in flight here."""
        return self._held.get(topic, 0)

    def admit(
        self,
        task_id: str,
        topic: str,
        retries: int | None,
        expires: float,
        began: float,
        *,
        now: float | None = None,
    ) -> Entry:
        """Take in a task that a fetch, begun at `began`, has locked for the publish window.

        Nobody knows when in its course: its lock is counted from `began`, the time that it is in
        flight from `now`.  Before it is published: its result may beat the broker's confirm.
        """
        timing = self._timings[topic]
        entry = Entry(
            task_id=task_id,
            topic=topic,
            retries=retries,
            serial=next(self._serials),
            since=began if now is None else now,
            expiries=(LockWindow.exactly(expires),),
            lock_ends=began + timing.publish_window,
            due=began + timing.publish_window / 2,
            deadline=began + timing.deadline,
        )
        with self._lock:
            self._put(entry)
        return entry

    def take_over(
        self,
        task_id: str,
        topic: str,
        retries: int | None,
        *,
        expiry: LockWindow,
        lock_ends: float,
        due: float,
        deadline: float,
        now: float,
    ) -> Entry:
        """Take in a task whose message is known to be out: adopted, or kept alive by its worker.

        Room does not count: the task is in flight whether we answer for it or not.
        """
        entry = Entry(
            task_id=task_id,
            topic=topic,
            retries=retries,
            serial=next(self._serials),
            since=now,
            expiries=(expiry,),
            lock_ends=lock_ends,
            due=min(due, self._last_look(topic, deadline)),
            deadline=deadline,
            confirmed=True,
            leased=True,
        )
        with self._lock:
            before = self._entries.get(task_id)
            if before is not None and before.retries == retries:
                entry = replace(entry, confirmed_at=before.confirmed_at)
            self._put(entry)
        return entry

    def confirmed(self, entry: Entry, now: float) -> bool:
        """A queue holds the message; False where the task is settled or admitted anew."""
        timing = self._timings[entry.topic]
        with self._lock:
            current = self._same(entry)
            if current is None or current.confirmed:
                return False
            due = BUSY if current.due == BUSY else now + timing.lease_after
            deadline = now + timing.deadline
            self._put(
                replace(current, confirmed=True, due=due, deadline=deadline, confirmed_at=now)
            )
            return True

    def settle(self, task_id: str) -> Entry | None:
        """Let go of a task, whoever finished it; None if it was not held."""
        with self._lock:
            return self._remove(task_id)

    def drop(self, entry: Entry) -> bool:
        """Let go of the task unless it was renewed or admitted anew since `entry` was handed
        out: then what was seen of it is older than what was done.
        """
        with self._lock:
            current = self._same(entry)
            if current is None or current.expiries is not entry.expiries:
                return False
            self._remove(entry.task_id)
            return True

    def forget(self, entry: Entry) -> bool:
        """Let go of the task unless it was admitted anew since."""
        with self._lock:
            return self._same(entry) is not None and self._remove(entry.task_id) is not None

    def current(self, entry: Entry) -> Entry | None:
        """The entry as it stands; None if it is settled or the task was admitted anew."""
        with self._lock:
            return self._same(entry)

    def due(self, now: float, limit: int) -> list[Entry]:
        """Up to `limit` entries to look at now, earliest first.  They count as busy until they
        are renewed, put off, dropped or settled.
        """
        taken: list[Entry] = []
        with self._lock:
            while self._due and self._due[0][0] <= now and len(taken) < limit:
                at, serial, task_id = heapq.heappop(self._due)
                entry = self._entries.get(task_id)
                if entry is None or entry.serial != serial or entry.due != at:
                    continue
                busy = replace(entry, due=BUSY)
                self._entries[task_id] = busy
                taken.append(busy)
        return taken

    def next_due(self) -> float:
        """When the next entry may be due; infinite where none is."""
        with self._lock:
            return self._due[0][0] if self._due else math.inf

    def unleased(self) -> list[Entry]:
        """The entries in flight without a lease, marked busy: what a stopping replica leases."""
        with self._lock:
            entries = [e for e in self._entries.values() if e.confirmed and not e.leased]
            for entry in entries:
                self._entries[entry.task_id] = replace(entry, due=BUSY)
            return entries

    def idle(self, topic: str) -> list[Entry]:
        """The topic's entries that are in nobody's hands."""
        with self._lock:
            return [e for e in self._entries.values() if e.topic == topic and e.due != BUSY]

    def renewed(
        self,
        entry: Entry,
        *,
        expiries: tuple[LockWindow, ...],
        lock_ends: float,
        due: float,
        leased: bool,
    ) -> None:
        """The lock was set anew; `expiries` has every expiration that the engine may now show.

        `leased` is False for the hold of a message that is not confirmed.
        """
        with self._lock:
            current = self._same(entry)
            if current is None:
                return
            timing = self._timings[current.topic]
            if current.confirmed and not leased:  # the confirm came while the hold was under way
                due = min(due, lock_ends - timing.publish_window + timing.lease_after)
            due = min(due, self._last_look(current.topic, current.deadline))
            leased = leased or current.leased
            self._put(
                replace(current, expiries=expiries, lock_ends=lock_ends, due=due, leased=leased)
            )

    def put_off(self, entry: Entry, due: float) -> None:
        """Nothing was done; look again at `due`."""
        with self._lock:
            current = self._same(entry)
            if current is not None:
                self._put(replace(current, due=due))

    def entry(self, task_id: str) -> Entry | None:
        """The task as it stands; None if it is not held."""
        return self._entries.get(task_id)

    def entries(self) -> list[Entry]:
        """Everything that is in flight, as it stands."""
        with self._lock:
            return list(self._entries.values())

    def oldest(self, topic: str) -> float | None:
        """Since when the topic's oldest entry is in flight."""
        with self._lock:
            return min((e.since for e in self._entries.values() if e.topic == topic), default=None)

    def _last_look(self, topic: str, deadline: float) -> float:
        # Unanswered at the deadline plus one lease: then it is reported, see DESIGN's rule 9.
        return deadline + self._timings[topic].lease

    def _same(self, entry: Entry) -> Entry | None:
        current = self._entries.get(entry.task_id)
        return current if current is not None and current.serial == entry.serial else None

    def _put(self, entry: Entry) -> None:
        before = self._entries.get(entry.task_id)
        if before is not None:
            self._held[before.topic] -= 1
        self._entries[entry.task_id] = entry
        self._held[entry.topic] = self._held.get(entry.topic, 0) + 1
        known = before is not None and (before.due, before.serial) == (entry.due, entry.serial)
        if entry.due != BUSY and not known:
            heapq.heappush(self._due, (entry.due, entry.serial, entry.task_id))
            if len(self._due) > 2 * len(self._entries) + SPARE_DUES:
                self._forget_old_dues()

    def _forget_old_dues(self) -> None:
        """Workers that report progress leave a due time behind with every report."""
        entries = self._entries.values()
        self._due = [(e.due, e.serial, e.task_id) for e in entries if e.due != BUSY]
        heapq.heapify(self._due)

    def _remove(self, task_id: str) -> Entry | None:
        entry = self._entries.pop(task_id, None)
        if entry is not None:
            self._held[entry.topic] -= 1
        return entry
