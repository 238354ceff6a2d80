"""The invariants that every round must keep, whatever died in it.  Pure: reads the evidence only.

Each function is one invariant of the reliability page and yields its violations as text.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from tests.chaos.evidence import Answer, Evidence, Usage

DEADLINE = "no answer within the deadline"
REJECTED = "rejected the message"
GARBAGE = "bad-json"
WORKER = "a worker failed"
# What pools may grow by while a process runs: caller threads, keep-alive connections, caches.
MORE_THREADS, MORE_HANDLES, MORE_MEGABYTES = 8, 40, 80.0

Invariant = Callable[[Evidence], Iterator[str]]


def nothing_is_lost(seen: Evidence) -> Iterator[str]:
    """I1: every instance that was started ended, or shows an operator why it did not."""
    if not seen.healed:
        yield "the round did not come to rest in time"
    for instance in sorted(seen.started - seen.instances.keys()):
        yield f"instance {instance} was started and is unknown to the engine"
    for instance, record in seen.instances.items():
        if not record.ended and instance not in seen.incidents:
            yield f"instance {instance} of {record.topic} has neither ended nor an incident"


def messages_are_bounded(seen: Evidence) -> Iterator[str]:
    """I2: messages are as many as attempts, plus what the faults put at risk."""
    if seen.duplicates > seen.allowed:
        yield f"{seen.duplicates} messages were published again, {seen.allowed} may be"


def duplicates_name_their_attempt(seen: Evidence) -> Iterator[str]:
    """I3: a message_id names one attempt, and only attempts that the engine made are published."""
    failed: dict[str, float] = {}  # task -> its earliest attempt that failed
    for entry in seen.told:
        if not entry.success:
            earliest = failed.get(entry.task_id, -1.0)
            failed[entry.task_id] = max(earliest, _number(entry.retries))
    tokens: dict[str, set[str]] = defaultdict(set)
    for message in seen.published:
        tokens[message.message_id].add(message.token)
        number = "-" if message.retries is None else str(message.retries)
        if message.message_id != f"{message.task_id}:{number}":
            yield f"message {message.message_id} says it is attempt {number} of {message.task_id}"
        elif message.retries is not None and message.retries >= failed.get(message.task_id, -1.0):
            yield f"message {message.message_id} is of an attempt that the engine never made"
    for message_id, found in tokens.items():
        if len(found) > 1:
            yield f"message {message_id} carried {len(found)} tokens"


def _number(retries: int | None) -> float:
    """Attempts count downwards; the first one has no number."""
    return math.inf if retries is None else retries


def no_lock_outlives_its_holder(seen: Evidence) -> Iterator[str]:
    """I4: no lock was ever set for longer than a renewal may, and none runs at the end."""
    yield from seen.overlong
    for task in seen.locked:
        yield f"task {task} is locked and nobody answers for it"


def faults_cost_no_retry(seen: Evidence) -> Iterator[str]:
    """I5: every failure the engine was told of is a worker's, or a message's that really was lost;
    each attempt failed once.
    """
    garbage = {answer.task_id for answer in seen.answers if answer.verb == "garbage"}
    missed = 0
    failures = [entry for entry in seen.told if not entry.success]
    for entry in failures:
        if DEADLINE in entry.message:
            missed += 1
        elif not (
            entry.message.startswith(WORKER)
            or REJECTED in entry.message
            or (GARBAGE in entry.message and entry.task_id in garbage)
        ):
            yield f"task {entry.task_id} failed without a worker's doing: {entry.message}"
    purged = sum(fault.purged for fault in seen.struck)
    if missed > purged:
        yield f"{missed} deadlines were missed, and {purged} messages purged"
    for (task_id, retries), times in Counter((f.task_id, f.retries) for f in failures).items():
        if times > 1:
            yield f"attempt {retries} of task {task_id} failed {times} times"


def every_result_ends_once(seen: Evidence) -> Iterator[str]:
    """I6: every result was applied, was stale or lies parked; none is left, none unacknowledged."""
    for queue, count in seen.left.items():
        if count:
            yield f"{count} messages are left in {queue}"
    if seen.unacknowledged:
        yield f"{seen.unacknowledged} messages are not acknowledged"
    parked = {message.token for message in seen.parked}
    for answer in seen.answers:
        if not answer.confirmed:
            continue
        if answer.verb in ("garbage", "forged"):
            if answer.token not in parked:
                yield f"the {answer.verb} result of {answer.message_id} is not parked"
        elif not _left_its_mark(answer, seen):
            yield f"the result {answer.verb} of {answer.message_id} had no effect"
    unfit = {answer.token for answer in seen.answers if answer.verb in ("garbage", "forged")}
    for message in seen.parked:
        if message.token not in unfit:
            yield f"a good result was parked ({message.reason}): {message.token}"
    for task, times in Counter(e.task_id for e in seen.told if e.success).items():
        if times > 1:
            yield f"task {task} was completed {times} times"


def _left_its_mark(answer: Answer, seen: Evidence) -> bool:
    """Progress and releases leave none in the history.  Where the task is not done, the attempt
    must have failed: by this answer, or before it came.
    """
    record = seen.instances.get(answer.instance)
    if answer.verb in ("extendLock", "unlock") or (record is not None and record.ended):
        return True
    return answer.verb == "failure" and any(
        entry.task_id == answer.task_id and entry.retries == answer.retries for entry in seen.told
    )


def topics_keep_to_themselves(seen: Evidence) -> Iterator[str]:
    """I7: no result of one topic's worker changed a task of another topic."""
    for record in seen.instances.values():
        if record.answered_by not in (None, record.topic):
            yield f"instance {record.id} of {record.topic} was answered by {record.answered_by}"


def nothing_leaks(seen: Evidence) -> Iterator[str]:
    """I8: threads, handles and memory of the replicas that are left are near their start."""
    for number, usage in enumerate(seen.after):
        for name, found, limit in _limits(seen.before, usage):
            if found > limit:
                yield f"replica {number} has {found:g} {name}, {limit:g} may be"


def _limits(before: Usage | None, usage: Usage) -> Iterator[tuple[str, float, float]]:
    if before is not None:
        yield "threads", usage.threads, before.threads + MORE_THREADS
        yield "handles", usage.handles, before.handles + MORE_HANDLES
        yield "megabytes", usage.megabytes, before.megabytes + MORE_MEGABYTES


def faults_went_as_planned(seen: Evidence) -> Iterator[str]:
    """A stop that was asked for is graceful, a part that was restarted came up."""
    for fault in seen.struck:
        if fault.problem:
            yield f"{fault.kind}: {fault.problem}"


INVARIANTS: tuple[tuple[str, Invariant], ...] = (
    ("I1 nothing is lost", nothing_is_lost),
    ("I2 messages are bounded", messages_are_bounded),
    ("I3 duplicates name their attempt", duplicates_name_their_attempt),
    ("I4 no lock outlives its holder", no_lock_outlives_its_holder),
    ("I5 faults cost no retry", faults_cost_no_retry),
    ("I6 every result ends once", every_result_ends_once),
    ("I7 topics keep to themselves", topics_keep_to_themselves),
    ("I8 nothing leaks", nothing_leaks),
    ("   faults went as planned", faults_went_as_planned),
)


def check(seen: Evidence) -> dict[str, list[str]]:
    """Every invariant with its violations, empty where it holds."""
    return {name: list(invariant(seen)) for name, invariant in INVARIANTS}
