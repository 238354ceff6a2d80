"""What a task waits for, in one sentence, and the command that helps.  Judges facts; asks nobody.

The first rule that holds is the answer, from what nobody else can mend to what time alone mends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bridge.desk.facts import Around, told
from bridge.desk.tasks import first_line, lasts, pause_before
from bridge.engine.record_shapes import TaskRecord
from bridge.queue_counts import QueueCount
from bridge.settings import TopicSettings

COMMAND = "external-task-bridge"
# An answer that comes within this time is on its way, whatever the counts of queues say: those of
# the management API are some seconds old.
YOUNG_SECONDS = 10.0

_PERHAPS = "or an answer, if a replica that was not asked has it in flight"
_REASON = re.compile(r"[a-z]+(-[a-z]+)+: ")


@dataclass(frozen=True)
class Verdict:
    """`state` is a plain word; `command` None where no command of ours helps."""

    state: str
    waits_for: str
    command: str | None = None


def judge(task: TaskRecord, around: Around, failures: int = 0) -> Verdict:
    """What the task waits for; `failures` as the engine's history has them (none: not known)."""
    settings, expires = around.settings, task.lock_expires
    left = None if expires is None or expires <= around.now else expires - around.now
    if task.suspended:
        return Verdict("suspended", "the process instance to be resumed: it is suspended")
    if task.retries == 0:
        why = f"an operator: no retries left, incident: {_incident(task, around)}"
        return Verdict("failed", why, f"{COMMAND} retry {task.id}")
    if left is not None and task.worker_id != settings.worker_id:
        why = f"worker id {task.worker_id}, which holds it for {lasts(left)} more (not this bridge)"
        return Verdict("held elsewhere", why)
    topic = settings.topics.get(task.topic_name)
    if topic is None:
        why = f"a bridge for topic {task.topic_name}, which is configured nowhere in these settings"
        return Verdict("waiting", why, f"{COMMAND} topics")
    if left is None:
        return _to_be_fetched(task, topic, around)
    if around.entry(task.id) is None:
        pause = pause_before(settings, task, left, around.entries is not None)
        if pause is not None:
            other = "" if pause == "sure" else f", {_PERHAPS}"
            return _paused(task, f"its next attempt, in {lasts(left)}{other}", failures)
    return _to_be_answered(task, topic, around)


def _incident(task: TaskRecord, around: Around) -> str:
    said = first_line(task.error_message) or "without a message"
    parked = around.counts.get(around.settings.broker.names.parked)
    # What the bridge refused for its reason, such as "bad-json: ...", it has kept.
    if parked is not None and parked.ready and _REASON.match(said):
        said += f"; the answer itself is kept ({COMMAND} parked list)"
    return said


def _paused(task: TaskRecord, what: str, failures: int) -> Verdict:
    times = {0: "before", 1: "once"}.get(failures, f"{failures} times")
    why = f"{what}: it has failed {times}, attempts left: {task.retries}"
    return Verdict("failed before", why, f"{COMMAND} release {task.id}")


def _to_be_fetched(task: TaskRecord, topic: TopicSettings, around: Around) -> Verdict:
    if excluded := _excluded(task, topic):
        why = f"a bridge that takes it: topics.{topic.name}.{excluded} leaves it out"
        return Verdict("waiting", why, f"{COMMAND} config show")
    if around.silent is not None:
        return Verdict("waiting", f"a bridge: {around.silent}", f"{COMMAND} check")
    problems, told_topic = around.problems(), around.topic(topic.name)
    for part in ("engine", "publisher", f"queue {topic.queue}", f"topic {topic.name}"):
        if part in problems:
            why = f"the bridge, which cannot fetch for it: {part}: {problems[part]}"
            return Verdict("waiting", why, f"{COMMAND} check")
    count = around.counts.get(topic.queue)
    if topic.wait_for_consumer and count is not None and count.consumers == 0:
        why = f"a consumer: queue {topic.queue} has none, and wait_for_consumer is set"
        return Verdict("waiting", why)
    if _full(told_topic):
        why = (
            f"room: {told_topic['inFlight']} tasks of {topic.name} are in flight, which is all "
            f"that max_in_flight allows; {_busy(topic.queue, count)}"
        )
        return Verdict("waiting", why, f"{COMMAND} top")
    return Verdict("waiting", "the bridge's next fetch")


def _to_be_answered(task: TaskRecord, topic: TopicSettings, around: Around) -> Verdict:
    entry = around.entry(task.id)
    if entry is not None and not entry.get("confirmed"):
        why = "RabbitMQ, which has not confirmed its message yet"
        return Verdict("in flight", why, f"{COMMAND} check")
    if around.broker_problem is not None:
        why = f"an answer; RabbitMQ cannot be asked where its message is: {around.broker_problem}"
        return Verdict("in flight", why, f"{COMMAND} check")
    answers = around.counts.get(topic.result_queue)
    if answers is not None and answers.ready and answers.consumers == 0:
        why = f"a bridge: queue {topic.result_queue} has {answers.ready} answers and no consumer"
        return Verdict("in flight", why, f"{COMMAND} check")
    if topic.exchange:
        why = f"an answer; its message went to exchange {topic.exchange}"
        return Verdict("in flight", why)
    count = around.counts.get(topic.queue)
    if count is None:
        why = f"an answer; queue {topic.queue} does not exist, or must not be looked at"
        return Verdict("in flight", why, f"{COMMAND} check")
    if count.ready and count.consumers == 0:
        why = f"a consumer: queue {topic.queue} has {count.ready} ready and no consumer"
        return Verdict("in flight", why)
    return _at_a_worker(task, topic, count, around)


def _at_a_worker(
    task: TaskRecord, topic: TopicSettings, count: QueueCount, around: Around
) -> Verdict:
    entry, name = around.entry(task.id), topic.queue
    seconds = None if entry is None else float(entry.get("seconds") or 0.0)
    since = "" if seconds is None else f", for {lasts(seconds)} now"
    if count.ready:
        return Verdict("in flight", f"its turn in queue {name}{since}: {_busy(name, count)}")
    if parked := _parked(around):
        why = f"an answer: queue {name} is empty, and {parked}"
        return Verdict("in flight", why, f"{COMMAND} parked list")
    nobody = count.unacked == 0 or (count.unacked is None and count.consumers == 0)
    if nobody and (seconds is None or seconds > YOUNG_SECONDS):
        why = (
            f"an answer that may never come{since}: queue {name} is empty and nobody "
            f"{'works on it' if count.unacked == 0 else 'consumes'}; "
            "was it purged, or did a worker lose it?"
        )
        return Verdict("in flight", why, f"{COMMAND} release {task.id}")
    return Verdict("in flight", f"a worker's answer{since}: queue {name} has {told(count)}")


def _parked(around: Around) -> str | None:
    names, counts = around.settings.broker.names, around.counts
    waiting, parked = counts.get(names.wait), counts.get(names.parked)
    if waiting is not None and waiting.ready:
        return f"{waiting.ready} answers wait in {names.wait}"
    if parked is not None and parked.ready:
        return f"{parked.ready} messages are parked, perhaps its answer"
    return None


def _busy(queue: str, count: QueueCount | None) -> str:
    if count is None:
        return f"queue {queue} cannot be looked at"
    if count.consumers == 0:
        return f"queue {queue} has {count.ready} ready and no consumer"
    who = "1 consumer is" if count.consumers == 1 else f"{count.consumers} consumers are"
    others = f"{who} busy with {count.unacked} others" if count.unacked else f"{who} there"
    return f"{count.ready} ready, {others}"


def _full(topic: Any) -> bool:
    in_flight, capacity = topic.get("inFlight"), topic.get("capacity")
    return in_flight is not None and capacity is not None and in_flight >= capacity


def _excluded(task: TaskRecord, topic: TopicSettings) -> str | None:
    """The filter of the topic that the task does not pass, as far as its record tells."""
    filters = {
        "business_key": (topic.business_key, task.business_key),
        "process_definition_id": (topic.process_definition_id, task.process_definition_id),
        "process_definition_key": (topic.process_definition_key, task.process_definition_key),
    }
    for key, (wanted, has) in filters.items():
        if wanted is not None and wanted != has:
            return key
    lists = {
        "process_definition_id_in": (topic.process_definition_id_in, task.process_definition_id),
        "process_definition_key_in": (topic.process_definition_key_in, task.process_definition_key),
        "tenant_id_in": (topic.tenant_id_in, task.tenant_id),
    }
    for key, (allowed, has) in lists.items():
        if allowed is not None and has not in allowed:
            return key
    return "without_tenant_id" if topic.without_tenant_id and task.tenant_id else None
