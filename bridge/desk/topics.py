"""What the engine has waiting per topic against what is configured and who consumes it.  Looks
only.  Whether a topic that has no task is used at all, the newest process models hint at: older
versions run on, and the engine hides those that the bridge's user may not read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from bridge import plan
from bridge.desk.process_topics import activities
from bridge.engine.records import EngineRecords
from bridge.errors import EngineError, EngineUnavailable
from bridge.queue_counts import QueueCount, count_queues
from bridge.settings import Settings, TopicSettings

_LOCKED_LOOK = 100
# With more models than these nobody waits for an answer.
_MODELS_MAX = 500


@dataclass(frozen=True)
class InEngine:
    """The engine's tasks of a topic: fetchable now, locked by whom, and without retries."""

    waiting: int = 0
    locked: int = 0
    failed: int = 0
    holders: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.waiting == self.locked == self.failed == 0


@dataclass(frozen=True)
class TopicLine:
    """One topic of the engine or of the settings.  `problem` is something wrong with its cure,
    `remark` something to know; `queue` None: not configured, or behind somebody's exchange.
    """

    name: str
    configured: bool
    tasks: InEngine
    queue: str | None = None
    messages: QueueCount | None = None
    problem: str | None = None
    remark: str | None = None


def look(settings: Settings) -> list[TopicLine]:
    """Every configured topic and every other that the engine has tasks of.  Raises EngineError and
    BrokerUnavailable.
    """
    records = EngineRecords(plan.http_options(settings.engine))
    names = sorted({*settings.topics, *records.topic_names()})
    tasks = {name: _in_engine(records, name) for name in names}
    unused = any(tasks[name].is_empty for name in settings.topics)
    in_models = topics_in_models(records) if unused else None
    return compare(settings, tasks, count_queues(settings.broker, _queues(settings)), in_models)


def topics_in_models(records: EngineRecords) -> set[str] | None:
    """The topics of the newest process models; None where that cannot be said: there are too many,
    they may not be read (the engine hides those), or one makes its topics by an expression.
    Raises EngineUnavailable.
    """
    try:
        processes = records.latest_processes()
        if not processes or len(processes) > _MODELS_MAX:
            return None
        models = [activities(records.process_xml(process.id)) for process in processes]
    except EngineUnavailable:
        raise
    except EngineError:
        return None
    found = [activity for model in models for activity in model]
    return None if any(one.is_expression for one in found) else {one.topic for one in found}


def compare(
    settings: Settings,
    tasks: Mapping[str, InEngine],
    queues: Mapping[str, QueueCount | None],
    in_models: Collection[str] | None,
) -> list[TopicLine]:
    """The configured topics, then the others, each by name.  `in_models` None: not known."""
    others = {*tasks, *(in_models or ())} - set(settings.topics)
    lines = [
        _configured(topic, tasks[name], queues, _use(name, tasks[name], in_models, others))
        for name, topic in sorted(settings.topics.items())
    ]
    return lines + [
        _unknown(name, found, settings.topics)
        for name, found in sorted(tasks.items())
        if name not in settings.topics
    ]


def _in_engine(records: EngineRecords, topic: str) -> InEngine:
    held = records.tasks(_LOCKED_LOOK, topicName=topic, locked=True)
    locked = len(held)
    if locked == _LOCKED_LOOK:
        locked = records.count_tasks(topicName=topic, locked=True)
    return InEngine(
        waiting=records.count_tasks(
            topicName=topic, notLocked=True, withRetriesLeft=True, active=True
        ),
        locked=locked,
        failed=records.count_tasks(topicName=topic, noRetriesLeft=True),
        holders=tuple(sorted({task.worker_id for task in held if task.worker_id})),
    )


def _queues(settings: Settings) -> list[str]:
    topics = settings.topics.values()
    results = [topic.result_queue for topic in topics if topic.reply != "none"]
    return [topic.queue for topic in topics if not topic.exchange] + results


def _use(
    name: str, tasks: InEngine, in_models: Collection[str] | None, others: Collection[str]
) -> tuple[str | None, str | None]:
    """Problem and remark on whether any process uses the topic."""
    if not tasks.is_empty or (in_models is not None and name in in_models):
        return None, None
    if near := get_close_matches(name, list(others), n=1, cutoff=0.75):
        return f"the engine has no task of it; did you mean {near[0]!r}?", None
    if in_models is None:
        return None, "the engine has no task of it"
    return None, "the engine has no task of it, and no process names it in its latest version"


def _configured(
    topic: TopicSettings,
    tasks: InEngine,
    queues: Mapping[str, QueueCount | None],
    use: tuple[str | None, str | None],
) -> TopicLine:
    problem, remark = use
    queue = None if topic.exchange else topic.queue
    messages = queues.get(queue) if queue is not None else None
    if problem is None:
        problem = next(_wrong(topic, tasks, queues), None)
    if problem is None and remark is None and messages is not None and not messages.consumers:
        remark = f"nobody consumes queue {queue!r}"
    return TopicLine(topic.name, True, tasks, queue, messages, problem, remark)


def _wrong(
    topic: TopicSettings, tasks: InEngine, queues: Mapping[str, QueueCount | None]
) -> Iterator[str]:
    results = queues.get(topic.result_queue)
    if not topic.exchange:
        messages = queues.get(topic.queue)
        if messages is None:
            yield (
                f"queue {topic.queue!r} is not there, or may not be looked at; "
                "external-task-bridge check says which"
            )
        elif not messages.consumers and (messages.ready or tasks.waiting or tasks.locked):
            ready = f"has {messages.ready} ready and" if messages.ready else "has"
            yield f"queue {topic.queue!r} {ready} no consumer; start its workers"
    if topic.reply != "none" and results is not None and not results.consumers:
        yield f"no bridge consumes {topic.result_queue!r}; start it: external-task-bridge run"
    if tasks.failed:
        yield f"{tasks.failed} without attempts left: external-task-bridge incidents"


def _unknown(name: str, tasks: InEngine, configured: Collection[str]) -> TopicLine:
    if tasks.waiting and not tasks.holders:
        near = get_close_matches(name, list(configured), n=1, cutoff=0.75)
        cure = f"did you mean it by {near[0]!r}?" if near else f"add [topics.{_key(name)}]"
        problem = f"nobody bridges it: {tasks.waiting} waiting; {cure}"
        return TopicLine(name, False, tasks, problem=problem)
    served = f"served by {', '.join(map(repr, tasks.holders))}" if tasks.holders else None
    return TopicLine(name, False, tasks, remark=served or "not configured, and nothing waits")


def _key(name: str) -> str:
    """A topic's name as a key of TOML."""
    bare = name.replace("-", "").replace("_", "")
    return name if bare.isalnum() and bare.isascii() else f'"{name}"'
