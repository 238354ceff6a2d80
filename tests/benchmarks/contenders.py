"""Whoever can empty a topic: the raw client, the official clients, and the bridge with its worker.

Each is a process of its own for every turn.  Measures nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from deploy.local.programs import Program
from tests.benchmarks import programs
from tests.benchmarks.parts import Parts
from tests.support.bridge import Bridge


@dataclass(frozen=True)
class Place:
    """Where a contender is to work, and where its files go."""

    parts: Parts
    url: str
    topics: tuple[str, ...]
    directory: Path


@dataclass(frozen=True)
class Started:
    """The processes that are measured, the worker beside them, and where it stands what the tasks'
    receiver prints.
    """

    pids: tuple[int, ...]
    told: Path
    worker: Program | None = None


class Contender(Protocol):
    """A way to empty a topic.  What `running` yields has just begun to fetch."""

    @property
    def name(self) -> str: ...

    def running(self, place: Place) -> AbstractContextManager[Started]: ...


@dataclass(frozen=True)
class Client:
    """A program that takes the engine's address and a topic."""

    name: str
    words: tuple[str, ...]
    more: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self, place: Place) -> Iterator[Started]:
        [topic] = place.topics
        log = place.directory / f"{topic}.log"
        words = [*self.words, place.url, topic, *self.more]
        with programs.running(self.name, words, log=log, env=self.env) as program:
            yield Started((program.pid,), log)


def raw(connections: int, *, ahead: bool = False) -> Client:
    """The raw client.  Its options have names: the address and the topic come last."""
    name = f"raw {connections}{', fetching ahead' if ahead else ''}"
    options = ("-connections", str(connections), *(("-ahead",) if ahead else ()))
    return Client(name, (*programs.native(), "raw", *options))


@dataclass(frozen=True)
class WorkerOptions:
    """How the worker works; `pause_ms` for each task.  `tell`: it prints what it gets."""

    consumers: int = 1
    prefetch: int = 200
    pause_ms: int = 0
    tell: bool = False


@contextmanager
def worker(
    amqp_url: str, queues: Sequence[str], log: Path, options: WorkerOptions = WorkerOptions()
) -> Iterator[Program]:
    """A worker of these queues, which need not be there yet."""
    words = [
        *programs.worker(), "-queues", ",".join(queues), "-consumers", str(options.consumers),
        "-prefetch", str(options.prefetch), "-pause", f"{options.pause_ms}ms",
        f"-tell={str(options.tell).lower()}",
    ]  # fmt: skip
    env = {"AMQP_URL": amqp_url}
    with programs.running("worker", words, log=log, env=env, wait=False) as program:
        yield program


def bridge_settings(
    engine_url: str, amqp_url: str, topics: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The settings of a deployment: defaults, but for addresses and a free status port."""
    return {
        "engine": {"url": engine_url},
        "broker": {"url": amqp_url},
        "status": {"listen": "127.0.0.1:0"},
        "topics": topics,
    }


@contextmanager
def bridge(settings: Mapping[str, Any]) -> Iterator[Bridge]:
    """A bridge as the user runs it; yielded when it begins to fetch.  At the end it is killed:
    nothing is in flight then, and a stop would wait for its poll.
    """
    with Bridge(settings, wait_ready=False, level="info") as started:
        until = time.monotonic() + programs.START_LIMIT_S
        while not started.events("bridge started"):
            assert started.process is not None
            assert started.process.poll() is None, started.tail()
            assert time.monotonic() < until, "the bridge does not start"
            time.sleep(0.002)
        try:
            yield started
        finally:
            started.kill()


@dataclass(frozen=True)
class WholeBridge:
    """Engine -> bridge -> queue -> one worker -> bridge -> engine, over a real RabbitMQ."""

    name: str = "bridge"
    replicas: int = 1
    topic: Mapping[str, Any] = field(default_factory=dict)
    worker: WorkerOptions = WorkerOptions()

    @contextmanager
    def running(self, place: Place) -> Iterator[Started]:
        log = place.directory / f"worker-{place.topics[0]}.log"
        with ExitStack() as stack:
            amqp_url = stack.enter_context(place.parts.vhost())
            topics = dict.fromkeys(place.topics, self.topic)
            settings = bridge_settings(place.url, amqp_url, topics)
            helper = stack.enter_context(worker(amqp_url, place.topics, log, self.worker))
            replicas = [stack.enter_context(bridge(settings)) for _ in range(self.replicas)]
            yield Started(tuple(replica.pid for replica in replicas), log, helper)
