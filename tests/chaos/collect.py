"""Brings the evidence of a round together: asks engine, broker, workers' record and replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import requests

from tests.chaos.evidence import Evidence, Instance, Parked, Published, Struck, Told
from tests.chaos.workers import Record
from tests.chaos.world import AUDIT, World, exit_code
from tests.support.amqp import Amqp
from tests.support.bridge import Bridge
from tests.support.engine import EngineRest
from tests.support.waiting import eventually

PAGE = 5000
SETTLED_SECONDS = 30.0
QUIET_SECONDS = 3.0  # a stream that gives nothing for so long has been read
STOP_SECONDS = 40.0


def collect(world: World, record: Record, keys: tuple[str, ...], workers: ExitStack) -> Evidence:
    """Stops the workers (by closing their stack) and the replicas on its way, so that what they
    had not acknowledged lies in its queue again.
    """
    counts = _counts(world)
    unacknowledged = _unacknowledged(world)
    workers.close()
    stops = [stop for bridge in world.alive if (stop := _stop(bridge)) is not None]
    rest = EngineRest(world.engine.url)
    with Amqp(world.broker.url) as amqp:
        left = {name: amqp.count(name) or 0 for name in world.queues() if name != "bridge.parked"}
        parked = tuple(
            Parked(m.properties.correlation_id or "", str(m.headers.get("reason")))
            for m in amqp.drain("bridge.parked")
        )
    return Evidence(
        healed=False,
        instances=_instances(rest, keys),
        told=tuple(_told(rest, keys)),
        incidents=frozenset(i["processInstanceId"] for key in keys for i in rest.incidents(key)),
        published=tuple(_audit(world)),
        answers=tuple(record.answers),
        parked=parked,
        left=left,
        unacknowledged=unacknowledged,
        locked=tuple(task["id"] for task in world.locked() if task["retries"] != 0),
        struck=tuple(stops),
        counts=counts,
        expired=_expired(world),
        redelivered=len(record.redelivered),
    )


def _stop(bridge: Bridge) -> Struck | None:
    if exit_code(bridge) is not None:
        return None
    code = bridge.stop(STOP_SECONDS)
    return Struck("last stop", problem=f"ended with {code}: {bridge.tail()}") if code else None


def _unacknowledged(world: World) -> int:
    """What is not acknowledged once the management API has had time to notice."""

    def count() -> int:
        return sum(unacknowledged for _, unacknowledged in world.queues().values())

    try:
        eventually(lambda: count() == 0, SETTLED_SECONDS)
    except AssertionError:
        return count()
    return 0


def _instances(rest: EngineRest, keys: tuple[str, ...]) -> dict[str, Instance]:
    by = {
        variable["processInstanceId"]: variable["value"]
        for key in keys
        for variable in rest.call(
            "GET", "/history/variable-instance", processDefinitionKey=key, variableName="by"
        )
    }
    return {
        i["id"]: Instance(i["id"], key, i["state"] == "COMPLETED", by.get(i["id"]))
        for key in keys
        for i in rest.call("GET", "/history/process-instance", processDefinitionKey=key)
    }


def _told(rest: EngineRest, keys: tuple[str, ...]) -> Iterator[Told]:
    for key in keys:
        log = rest.call("GET", "/history/external-task-log", processDefinitionKey=key)
        for entry in log:
            if entry["successLog"] or entry["failureLog"]:
                yield Told(
                    task_id=entry["externalTaskId"],
                    instance=entry["processInstanceId"],
                    success=entry["successLog"],
                    retries=entry["retries"],
                    message=entry["errorMessage"] or "",
                )


def _audit(world: World) -> Iterator[Published]:
    with Amqp(world.broker.url) as amqp:
        channel = amqp.channel
        channel.basic_qos(prefetch_count=500)
        reading: Any = channel.consume(
            AUDIT, arguments={"x-stream-offset": "first"}, inactivity_timeout=QUIET_SECONDS
        )
        for method, properties, _ in reading:
            if method is None:
                return
            channel.basic_ack(method.delivery_tag)
            headers = properties.headers
            yield Published(
                message_id=properties.message_id,
                task_id=headers["taskId"],
                retries=headers.get("retries"),
                topic=headers["topicName"],
                token=properties.correlation_id,
            )


def _counts(world: World) -> dict[str, int]:
    """The counts of the replicas that are left, by event."""
    total: Counter[str] = Counter()
    for bridge in world.alive:
        if exit_code(bridge) is not None:
            continue
        text = requests.get(f"{bridge.status_url()}/metrics", timeout=5).text
        for line in text.splitlines():
            if line.startswith("bridge_tasks_total{"):
                event = line.split('event="')[1].split('"')[0]
                total[event] += round(float(line.rpartition(" ")[2]))
    return dict(total)


def _expired(world: World) -> int:
    """Messages that came back unread, and were released for it."""
    return sum(
        not line["stale"]
        for bridge in world.bridges
        for line in bridge.events("dead letter", reason="expired")
    )
