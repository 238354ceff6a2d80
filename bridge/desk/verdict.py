"""What a task waits for, in one sentence, and the command that helps.  Judges facts; asks nobody.

The first rule that holds is the answer, from what nobody else can mend to what time alone mends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.desk.facts import Around, Document, told
from bridge.desk.tasks import as_fetched, first_line, lasts, not_published, pause_before
from bridge.engine.record_shapes import TaskRecord
from bridge.queue_counts import QueueCount
from bridge.settings import TopicSettings

COMMAND = "external-task-bridge"
# An answer that comes within this time is on its way, whatever the counts of queues say: those of
# the management API are some seconds old.
YOUNG_SECONDS = 10.0

_PERHAPS = "or an answer, if a replica that was not asked has it in flight"
# Of a ResultRefused: such an answer is parked, and its incident begins with the reason.
REASONS = frozenset(
    {
        "bad-body",
        "bad-json",
        "bad-outcome",
        "engine-broken",
        "engine-refused",
        "lock-lost",
        "no-result-variable",
        "task-message",
        "too-large",
        "value-refused",
    }
)


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
        return _stuck(task, around)
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
        if problem := not_published(settings, task, left, around.problems()):
            why = f"the bridge, which cannot publish for it: {problem}; next fetch in {lasts(left)}"
            return Verdict("waiting", why, f"{COMMAND} check")
        if pause := pause_before(settings, task, left):
            return _paused(task, topic, left, around, failures, sure=pause == "sure")
    return _to_be_answered(task, topic, left, around)


def _stuck(task: TaskRecord, around: Around) -> Verdict:
    said = first_line(task.error_message) or "without a message"
    why = f"an operator: no retries left, incident: {said}"
    parked = around.counts.get(around.settings.broker.names.parked)
    # What the bridge refused for its reason, such as "bad-json: ...", it has kept.
    if parked is not None and parked.ready and said.partition(":")[0] in REASONS:
        why += "; the answer itself is kept: corrected and replayed, it still counts"
        why += f" ({COMMAND} retry {task.id} has the work done again)"
        return Verdict("failed", why, f"{COMMAND} parked list")
    return Verdict("failed", why, f"{COMMAND} retry {task.id}")


def _paused(
    task: TaskRecord,
    topic: TopicSettings,
    left: float,
    around: Around,
    failures: int,
    *,
    sure: bool,
) -> Verdict:
    other = "" if sure else f", {_PERHAPS}"
    times = {0: "before", 1: "once"}.get(failures, f"{failures} times")
    why = (
        f"its next attempt, in {lasts(left)}{other}: it has failed {times}, "
        f"attempts left: {task.retries}"
    )
    # A release of what is in flight would make a duplicate of it.
    flying = as_fetched(topic, left) or around.entries is None or topic.reply == "none"
    released = sure or not flying
    return Verdict("failed before", why, f"{COMMAND} release {task.id}" if released else None)


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
    if unseen := _unseen(topic):
        why = f"the bridge's next fetch, unless topics.{topic.name}.{unseen} leaves it out"
        return Verdict("waiting", why, f"{COMMAND} config show")
    return Verdict("waiting", "the bridge's next fetch")


def _to_be_answered(task: TaskRecord, topic: TopicSettings, left: float, around: Around) -> Verdict:
    entry = around.entry(task.id)
    late = _late(entry)
    if entry is not None and not entry.get("confirmed"):
        why = f"RabbitMQ, which has not confirmed its message yet{late}"
        return Verdict("in flight", why, f"{COMMAND} check")
    if topic.reply == "none":
        return Verdict("in flight", "the engine, to take the completion: nobody answers for it")
    if (silent := around.broker_problem) is not None:
        why = f"an answer{late}; RabbitMQ cannot be asked where its message is: {silent}"
        return Verdict("in flight", why, f"{COMMAND} check")
    answers = around.counts.get(topic.result_queue)
    if answers is not None and answers.ready and answers.consumers == 0:
        how_many = _number(answers.ready, "answer")
        why = f"a bridge: queue {topic.result_queue} has {how_many} and no consumer{late}"
        return Verdict("in flight", why, f"{COMMAND} check")
    if topic.exchange:
        why = f"an answer{late}; its message went to exchange {topic.exchange}"
        return Verdict("in flight", why)
    count = around.counts.get(topic.queue)
    if count is None:
        why = f"an answer{late}; queue {topic.queue} does not exist, or must not be looked at"
        return Verdict("in flight", why, f"{COMMAND} check")
    if count.ready and count.consumers == 0:
        why = f"a consumer: queue {topic.queue} has {count.ready} ready and no consumer{late}"
        return Verdict("in flight", why)
    if entry is None and as_fetched(topic, left):
        # Published by a replica that was not asked, or given back.
        why = (
            f"an answer, or the next fetch in {lasts(left)}: queue {topic.queue} has {told(count)}"
        )
        return Verdict("in flight", why)
    return _at_a_worker(task, topic, count, around)


def _at_a_worker(
    task: TaskRecord, topic: TopicSettings, count: QueueCount, around: Around
) -> Verdict:
    entry, name = around.entry(task.id), topic.queue
    seconds = None if entry is None else float(entry.get("seconds") or 0.0)
    since = "" if seconds is None else f", for {lasts(seconds)} now{_late(entry)}"
    if count.ready:
        return Verdict("in flight", f"its turn in queue {name}{since}: {_busy(name, count)}")
    nobody = count.unacked == 0 or (count.unacked is None and count.consumers == 0)
    if nobody and (seconds is None or seconds > YOUNG_SECONDS):
        why = (
            f"an answer that may never come{since}: queue {name} is empty and nobody "
            f"{'works on it' if count.unacked == 0 else 'consumes'}; "
            "was it purged, or did a worker lose it?"
        )
        return _lost(task, why, around)
    return Verdict("in flight", f"a worker's answer{since}: queue {name} has {told(count)}")


def _lost(task: TaskRecord, why: str, around: Around) -> Verdict:
    """Whose answer may be one of those that no engine took: of any task, nobody has read them."""
    names, counts = around.settings.broker.names, around.counts
    waiting, parked = counts.get(names.wait), counts.get(names.parked)
    if parked is not None and parked.ready:
        number = _number(parked.ready, "message")
        why += f" Parked: {number}, perhaps its answer ({COMMAND} parked list)"
    if waiting is not None and waiting.ready:
        number = _number(waiting.ready, "answer")
        return Verdict(
            "in flight", f"{why} In {names.wait}: {number}, tried again, perhaps its own"
        )
    return Verdict("in flight", why, f"{COMMAND} release {task.id}")


def _late(entry: Document | None) -> str:
    """That an answer was expected before."""
    left = float((entry or {}).get("deadlineSecondsLeft") or 0.0)
    return f", its deadline passed {lasts(-left)} ago" if left < 0 else ""


def _number(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


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


def _unseen(topic: TopicSettings) -> str | None:
    """A filter of the topic whose effect a task's record does not tell."""
    if topic.process_definition_version_tag is not None:
        return "process_definition_version_tag"
    return "process_variables" if topic.process_variables else None
