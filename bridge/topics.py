"""One topic as the rooms see it: what to fetch, how its messages look, how its results are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.ledger import Timing
from bridge.protocol import RetryPolicy
from bridge.results import ReplyRules
from bridge.task_message import Shape


@dataclass(frozen=True)
class Topic:
    """Everything that is settled about a topic at start.

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
