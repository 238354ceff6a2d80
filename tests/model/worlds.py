"""The configurations that are searched: each lets another few faults happen."""

from __future__ import annotations

from tests.model.world import DEADLINE, LEASE, Fault, World

F = Fault
# A task that nobody fetched for longer than the deadline and a lease.
OLD = DEADLINE + LEASE

WORLDS = [
    World("healthy", {}),
    World("crash and failures", {F.CRASH: 2, F.WORKER_FAILS: 2}, retry_pauses=(1, 6)),
    World(
        "crash and two answers",
        {F.CRASH: 1, F.WORKER_FAILS: 1, F.ANSWERED_TWICE: 1},
        retry_pauses=(1, 6),
    ),
    World(
        "named retries",
        {F.WORKER_FAILS: 2, F.ANSWERED_TWICE: 1},
        named_retries=(2,),
        attempts=3,
    ),
    World("freeze", {F.FREEZE: 1, F.WORKER_FAILS: 1}, retry_pauses=(1, 6)),
    World("connection", {F.CONNECTION: 2, F.CRASH: 1}),
    World("lost answers", {F.LOST_ANSWER: 2, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("operator unlocks", {F.UNLOCK: 1, F.CRASH: 1}),
    World("operator sets retries", {F.SET_RETRIES: 1, F.CRASH: 1}),
    World("operator suspends", {F.SUSPEND: 1, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("suspended and frozen", {F.SUSPEND: 1, F.FREEZE: 1}),
    World("stop", {F.SIGTERM: 2, F.WORKER_FAILS: 1}),
    World("stop and crash", {F.SIGTERM: 1, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("given back", {F.GIVEN_BACK: 1, F.CRASH: 1}),
    World("given back and frozen", {F.GIVEN_BACK: 1, F.FREEZE: 1}),
    World("progress", {F.PROGRESS: 1, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("deadline", {F.LOST_MESSAGE: 1, F.CRASH: 1}, deadlines=True, ages=(0, OLD)),
    World("expiration", {F.EXPIRES: 2}, deadlines=True),
    World("progress and deadline", {F.PROGRESS: 1}, deadlines=True),
]

# Not in every run: more faults of more kinds together, some minutes.
DEEP_WORLDS = [
    World("deep: crashes", {F.CRASH: 3, F.WORKER_FAILS: 2}, retry_pauses=(1, 6)),
    World("deep: freeze and crash", {F.FREEZE: 1, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("deep: two freezes", {F.FREEZE: 2, F.WORKER_FAILS: 1}),
    World("deep: lost answers", {F.LOST_ANSWER: 1, F.FREEZE: 1, F.WORKER_FAILS: 1}),
    World("deep: connection", {F.CONNECTION: 2, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("deep: operator", {F.UNLOCK: 1, F.SET_RETRIES: 1, F.CRASH: 1}),
    World("deep: operator and failure", {F.UNLOCK: 1, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("deep: operator and freeze", {F.UNLOCK: 1, F.SUSPEND: 1, F.FREEZE: 1}),
    World("deep: stop", {F.SIGTERM: 2, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("deep: given back", {F.GIVEN_BACK: 1, F.CRASH: 1, F.WORKER_FAILS: 1}),
    World("deep: deadline", {F.LOST_MESSAGE: 1, F.CRASH: 2}, deadlines=True, ages=(0, OLD)),
    World("deep: progress", {F.PROGRESS: 1, F.CRASH: 1}, deadlines=True),
]
