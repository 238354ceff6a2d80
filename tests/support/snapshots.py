"""Snapshots of a bridge as /status.json shows them, well and in each kind of trouble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def topic(name: str, **changed: Any) -> Json:
    """A topic whose tasks flow, but for what is `changed`."""
    return {
        "name": name,
        "queue": name,
        "resultQueue": f"{name}.results",
        "circuit": "closed",
        "problem": None,
        "inFlight": 4,
        "capacity": 1000,
        "oldestSeconds": 2.0,
        "lockMarginSeconds": 480.0,
        "events": {"fetched": 124, "completed": 120},
        "waiting": 0,
        "stuck": 0,
        "ready": 0,
        "unacked": 4,
        "consumers": 2,
        **changed,
    }


def snapshot(*topics: Json, **changed: Any) -> Json:
    """A bridge in which nothing is wrong, but for what is `changed`."""
    return {
        "schemaVersion": 1,
        "version": "0.1.0",
        "workerId": "bridge",
        "now": "2026-11-21T10:00:00Z",
        "uptimeSeconds": 7500.0,
        "ready": True,
        "problems": {},
        "engine": {"url": "http://localhost:8080/engine-rest", "problem": None},
        "publisher": {"problem": None},
        "consumer": {"problem": None},
        "parked": 0,
        "waitingResults": 0,
        "topics": list(topics) or [topic("demo-worker")],
        **changed,
    }


def fact(at: str | None, source: str, text: str) -> Json:
    return {"at": at, "source": source, "text": text}


def story(key: str, *facts: Mapping[str, Any], **changed: Any) -> Json:
    """What /why.json answers for the id of one task."""
    task = {
        "taskId": key,
        "topic": "payment-processing",
        "process": "payment",
        "processInstanceId": "2f1c9a41-c6b1-11f0-9e5a-0242ac110002",
        "businessKey": "order-4711",
        "state": "in flight",
        "waitsFor": "a consumer: queue payments has 12 ready and no consumer",
        "command": None,
        "facts": list(facts),
        **changed,
    }
    return {"schemaVersion": 1, "key": key, "found": "task", "note": None, "tasks": [task]}


_ID = "2f1c9a58-c6b1-11f0-9e5a-0242ac110002"
_FAILED = "an attempt failed, reported by worker id bridge: card service timed out"
STORY = story(
    _ID,
    fact(
        "2026-11-21T09:41:07Z", "engine", "created for topic payment-processing of process payment"
    ),
    fact("2026-11-21T09:41:22Z", "engine", _FAILED),
    fact("2026-11-21T09:41:43Z", "engine", _FAILED),
    fact("2026-11-21T09:42:29Z", "engine", _FAILED),
    fact(None, "engine", "an incident, no retries left: card service timed out"),
    fact(None, "engine", "nobody has locked it"),
    fact(None, "broker", "queue payments: 180 ready, 32 at consumers, 4 consumers"),
    state="failed",
    waitsFor="an operator: no retries left, incident: card service timed out",
    command=f"external-task-bridge retry {_ID}",
)


def well() -> Json:
    """Three topics at work."""
    return snapshot(
        topic(
            "payment-processing",
            queue="payments",
            inFlight=212,
            capacity=500,
            oldestSeconds=14.2,
            events={"fetched": 48_310, "completed": 47_902, "bpmn_error": 155, "failed": 41},
            waiting=36,
            ready=180,
            unacked=32,
            consumers=4,
        ),
        topic(
            "creditScoreChecker",
            inFlight=9,
            oldestSeconds=1.1,
            events={"fetched": 9_114, "completed": 9_105},
            ready=1,
            unacked=8,
            consumers=2,
        ),
        topic(
            "transcodeVideo",
            inFlight=3,
            capacity=20,
            oldestSeconds=1930.0,
            events={"fetched": 310, "completed": 301, "progress": 950, "failed": 6},
            waiting=0,
            ready=0,
            unacked=3,
            consumers=3,
        ),
    )


def troubled() -> Json:
    """The same, on a bad day."""
    made = well()
    payments, credit, video = made["topics"]
    payments.update(
        inFlight=500, ready=500, unacked=0, consumers=0, waiting=1204, oldestSeconds=840.0
    )
    full = "queue creditScoreChecker is full (reject-publish)"
    credit.update(circuit="open", problem=full)
    video["events"] = {**video["events"], "incident": 2}
    return {
        **made,
        "ready": False,
        "problems": {"topic creditScoreChecker": full},
        "parked": 3,
        "waitingResults": 1,
    }
