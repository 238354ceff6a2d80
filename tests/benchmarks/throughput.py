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
            raw.append(_raw(rest, chosen.tasks))
            rate, cpu_seconds = _bridged(rest, broker.url, chosen.tasks)
            bridged.append(rate)
            cpu.append(cpu_seconds * 1000 / chosen.tasks)
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


def _prepared(rest: EngineRest, tasks: int) -> tuple[str, str]:
    """A process key and its topic, with that many instances waiting."""
    topic = unique("bench")
    key = rest.deploy_topics(topic)
    _start(rest, key, tasks)
    return key, topic


def _seconds_until_finished(rest: EngineRest, key: str, tasks: int) -> float:
    """Counted seldom: counting the history costs the engine as much as a dozen tasks."""
    began = time.monotonic()
    while rest.finished(key) < tasks:
        assert time.monotonic() - began < 600, "the instances do not end"
        time.sleep(0.25)
    return time.monotonic() - began


def _raw(rest: EngineRest, tasks: int) -> float:
    key, topic = _prepared(rest, tasks)
    began = time.monotonic()
    _drive_raw(rest, topic)
    _seconds_until_finished(rest, key, tasks)
    return tasks / (time.monotonic() - began)


def _bridged(rest: EngineRest, amqp_url: str, tasks: int) -> tuple[float, float]:
    """Tasks per second from the first fetch on; the bridge's CPU seconds, its start included."""
    key, topic = _prepared(rest, tasks)
    made = settings(rest.url, amqp_url, {topic: {}}, broker={"heartbeat": "10s"})
    made["topic_defaults"] = {}
    with (
        Bridge(made, level="info") as bridge,
        Worker(amqp_url, topic, lambda _: Reply({"ok": True}), prefetch=100),
    ):
        seconds = _seconds_until_finished(rest, key, tasks)
        times = psutil.Process(bridge.pid).cpu_times()
        return tasks / seconds, float(times.user + times.system)


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
        _raw(rest, tasks)


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


if __name__ == "__main__":
    main()
