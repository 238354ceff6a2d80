"""The Python client on one topic: python peer.py ENGINE_URL TOPIC.  Completes every task."""

import sys
from typing import Any

from camunda.external_task.external_task_worker import (  # type: ignore[import-not-found]
    ExternalTaskWorker,
)

CONFIG = {
    "maxTasks": 100,
    "lockDuration": 600_000,
    "asyncResponseTimeout": 10_000,
    "retries": 3,
    "retryTimeout": 5_000,
    "sleepSeconds": 1,
}


def complete(task: Any) -> Any:
    return task.complete({"ok": True})


if __name__ == "__main__":
    url, topic = sys.argv[1:]
    worker = ExternalTaskWorker("python", base_url=url, config=CONFIG)
    print("ready", flush=True)
    worker.subscribe([topic], complete)
