"""Which tasks a command acts on, and what came of it.  Asks the engine; changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bridge.engine.record_shapes import TaskRecord
from bridge.engine.records import EngineRecords

CHANGED = "it has changed since it was chosen: retried, another attempt, or another owner"
GONE = "there is no such task: completed, cancelled, or not visible to this user"


@dataclass(frozen=True)
class Chosen:
    """What a command will act on, and what it leaves alone: (task id, why).  `notes` are sentences
    about how it was chosen.
    """

    tasks: tuple[TaskRecord, ...]
    left: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def topics(self) -> list[tuple[str, int]]:
        """(topic, how many of its tasks), the most first."""
        counted = Counter(task.topic_name for task in self.tasks)
        return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class Done:
    """What came of an act on many tasks: ids of those that are done, (task id, why) of others."""

    done: tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()


def named(
    records: EngineRecords, task_ids: Sequence[str], refusal: Callable[[TaskRecord], str | None]
) -> Chosen:
    """The tasks of these ids but for those with a `refusal`.  Raises EngineError."""
    ids = list(dict.fromkeys(task_ids))
    there = records.tasks_by_id(ids)
    refused = {task_id: refusal(task) for task_id, task in there.items()}
    return Chosen(
        tuple(there[i] for i in ids if i in there and refused[i] is None),
        tuple((i, refused.get(i) or GONE) for i in ids if i not in there or refused[i]),
    )
