"""Tells workers that a task is gone, so that whoever is still busy with it may stop."""

from __future__ import annotations

import time

from bridge.broker import Outcome, Publisher
from bridge.messages import GoneNotice, Publication


class GoneNotices:
    """Notices on an exchange, the topic as routing key.  One that reaches nobody is no loss."""

    def __init__(self, publisher: Publisher, exchange: str) -> None:
        self._publisher = publisher
        self._exchange = exchange

    def announce(self, topic: str, task_id: str) -> None:
        """Say that the task is gone.  Safe to call from every thread; never blocks."""
        notice = Publication(
            lane=self._exchange,
            exchange=self._exchange,
            routing_key=topic,
            body=GoneNotice(task_id=task_id).model_dump_json(by_alias=True).encode(),
            type="gone",
            timestamp=int(time.time()),  # of copies published later it says nothing
        )
        self._publisher.publish(notice, _nobody_minds, mandatory=False)


def _nobody_minds(_outcome: Outcome, _detail: str) -> None:
    """Whoever listens has been told, or nobody does."""
