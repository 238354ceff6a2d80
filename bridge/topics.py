"""Topics as the rooms see them: what to fetch, how messages look, how results are read; and the one
place where every room finds them, which a reload replaces.  Decides nothing.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from typing import Any

from bridge.ledger import Timing
from bridge.protocol import RetryPolicy
from bridge.results import ReplyRules
from bridge.task_message import Shape


@dataclass(frozen=True)
class Topic:
    """Everything that the settings say about a topic.

    `fetch`: its entry in a fetchAndLock request.  `model_retries`: the extension properties
    `retries` and `retryPauses` of an activity overrule the policy.
    """

    name: str
    fetch: Mapping[str, Any]
    timing: Timing
    shape: Shape
    replies: ReplyRules
    retries: RetryPolicy
    queue: str
    result_queue: str
    allowed_variables: tuple[str, ...] | None = None
    file_inline_max: int = 0
    wait_for_consumer: bool = False
    model_retries: bool = False

    @property
    def answers(self) -> bool:
        """Whether its workers answer at all (reply is not "none")."""
        return self.replies.profile != "none"


class Topics(Mapping[str, Topic]):
    """The topics that are served, by name; every room reads them here, whenever it needs them.

    `served` is what the mapping has at this moment, never changed, only replaced: who looks twice
    takes it once.  `known`, `timings` and `by_result_queue` only grow: they also have what was
    served before a reload and may still be in flight, or come back later.
    """

    def __init__(self, topics: Iterable[Topic]) -> None:
        self.served: Mapping[str, Topic] = {}
        self.known: dict[str, Topic] = {}
        self.timings: dict[str, Timing] = {}
        self.by_result_queue: dict[str, Topic] = {}
        self.replace(topics)

    def replace(self, topics: Iterable[Topic]) -> None:
        """Serve these from now on.  For one thread; every other may read meanwhile."""
        served = {topic.name: topic for topic in topics}
        self.known |= served
        self.timings |= {name: topic.timing for name, topic in served.items()}
        self.by_result_queue |= {topic.result_queue: topic for topic in served.values()}
        for queue, topic in self.by_result_queue.items():
            self.by_result_queue[queue] = self.known[topic.name]
        self.served = served  # last: whoever finds a topic here finds it everywhere

    def __getitem__(self, name: str) -> Topic:
        return self.served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.served)

    def __len__(self) -> int:
        return len(self.served)

    def items(self) -> ItemsView[str, Topic]:
        """Of one moment, whatever is replaced meanwhile."""
        return self.served.items()

    def values(self) -> ValuesView[Topic]:
        """Of one moment, whatever is replaced meanwhile."""
        return self.served.values()
