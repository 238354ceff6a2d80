"""Tasks per second through the bridge, against the same engine driven without any broker.

    .venv/bin/python -m tests.benchmarks.throughput --tasks 2000 --rounds 2

Both turns run on one Camunda, interleaved: instances are started first, then the time runs from
the first fetch to the last completed instance as the engine counts it.  Machines are noisy: read
the ratio, not the figures.  Asserts nothing about time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from deploy.local import choice
from tests.support.amqp import Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually

CONNECTIONS = 8
BATCH = 100


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tasks", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=2)
    chosen = options.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        choice.broker(directory=Path(directory) / "broker") as broker,
        choice.engine("camunda", directory=Path(directory) / "engine") as engine,
    ):
        rest = EngineRest(engine.url)
        _warm_up(rest, min(chosen.tasks, 2000))
        raw: list[float] = []
        bridged: list[float] = []
        cpu: list[float] = []
        for number in range(chosen.rounds):
            raw.append(_rate(rest, chosen.tasks, lambda key, topic: _drive_raw(rest, topic)))
            seconds: list[float] = []

            def drive(key: str, topic: str, seconds: list[float] = seconds) -> None:
                seconds.append(_drive_bridge(rest, broker.url, key, topic, chosen.tasks))

            bridged.append(_rate(rest, chosen.tasks, drive))
            cpu.append(seconds[0] * 1000 / chosen.tasks)
            print(
                f"round {number + 1}: engine alone {raw[-1]:.0f} tasks/s, "
                f"bridge {bridged[-1]:.0f} tasks/s, {cpu[-1]:.2f} ms of CPU a task"
            )
    ratios = [b / r for b, r in zip(bridged, raw, strict=True)]
    print(
        f"median: engine alone {statistics.median(raw):.0f} tasks/s, bridge "
        f"{statistics.median(bridged):.0f} tasks/s, ratio {statistics.median(ratios):.2f}, "
        f"bridge CPU {statistics.median(cpu):.2f} ms a task"
    )


def _rate(rest: EngineRest, tasks: int, drive: Callable[[str, str], None]) -> float:
    topic = unique("bench")
    key = rest.deploy_topics(topic)
    _start(rest, key, tasks)
    began = time.monotonic()
    drive(key, topic)
    eventually(lambda: rest.finished(key) >= tasks, 600)
    return tasks / (time.monotonic() - began)


def _start(rest: EngineRest, key: str, tasks: int) -> None:
    variables = {
        "amount": {"value": 42, "type": "Integer"},
        "currency": {"value": "EUR", "type": "String"},
    }
    local = threading.local()

    def start(_: int) -> None:
        client = getattr(local, "client", None)
        if client is None:
            client = local.client = EngineRest(rest.url)
        client.start(key, variables)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(tasks)))


def _warm_up(rest: EngineRest, tasks: int) -> None:
    for _ in range(2):
        _rate(rest, tasks, lambda key, topic: _drive_raw(rest, topic))


def _drive_raw(rest: EngineRest, topic: str) -> None:
    """Fetch in batches of 100 and complete over eight connections, with the least possible code."""
    address = urlsplit(rest.url)
    local = threading.local()

    def post(path: str, body: Any) -> bytes:
        connection: HTTPConnection | None = getattr(local, "connection", None)
        if connection is None:
            connection = local.connection = HTTPConnection(address.netloc)
        connection.request(
            "POST", address.path + path, json.dumps(body), {"Content-Type": "application/json"}
        )
        return connection.getresponse().read()

    fetch = {
        "workerId": "raw",
        "maxTasks": BATCH,
        "topics": [{"topicName": topic, "lockDuration": 600_000}],
    }
    done = {"workerId": "raw", "variables": {"ok": {"value": True, "type": "Boolean"}}}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        while tasks := json.loads(post("/external-task/fetchAndLock", fetch)):
            list(pool.map(lambda t: post(f"/external-task/{t['id']}/complete", done), tasks))


def _drive_bridge(rest: EngineRest, amqp_url: str, key: str, topic: str, tasks: int) -> float:
    """CPU seconds of the bridge, from its start to the last completed instance."""
    made = settings(rest.url, amqp_url, {topic: {}}, topic_defaults={}, broker={"heartbeat": "10s"})
    made["topic_defaults"] = {}
    with (
        Bridge(made, level="info") as bridge,
        Worker(amqp_url, topic, lambda _: Reply({"ok": True}), prefetch=100),
    ):
        eventually(lambda: rest.finished(key) >= tasks, 600)
        times = psutil.Process(bridge.pid).cpu_times()
        return float(times.user + times.system)


if __name__ == "__main__":
    main()
