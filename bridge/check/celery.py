"""What to advise on a queue of Celery, which declares it at each start.  No I/O.

Whoever declares it first decides what it is.  RabbitMQ refuses Celery's declaration of a queue as
the bridge makes it (quorum, with dead letters), and Celery does not start.
"""

from __future__ import annotations

from dataclasses import replace

from bridge.broker import Queue
from bridge.check.findings import Finding, problem, warning
from bridge.settings import Settings

START_WORKERS = (
    "start Celery; where it ends with PRECONDITION_FAILED, delete the queue while the bridge is "
    "stopped, and start Celery first"
)


def owns(settings: Settings, part: Queue) -> bool:
    """Whether Celery consumes this task queue."""
    topic = settings.topics.get(part.lane)
    return topic is not None and topic.celery_task is not None and part.name == topic.queue


def missing(part: Queue, key: str, *, declares: bool) -> Finding:
    """There is no such queue yet; `declares`: the bridge would make it at its start."""
    text = f"there is no queue {part.name!r}, and Celery wants to make it"
    if not declares:
        return problem("topics", key, text, "start Celery once")
    text += ": once the bridge has declared it, as a quorum queue, Celery does not start"
    cure = f'start Celery before the bridge, or set exchange and routing_key to "{part.name}"'
    return warning("topics", key, text, cure)


def left_alone(differs: Finding, dead_exchange: str) -> Finding:
    """What differs must stay so: declared anew by the bridge, Celery could not use it."""
    policy = f'{{"dead-letter-exchange": "{dead_exchange}"}}'
    return replace(differs, cure=f"leave it; a policy {policy} brings back what it drops")
