"""The parts of a round: a RabbitMQ node, an engine on a file, replicas; and the ways to hurt them.

Ends only what it started.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import requests

from deploy.local.engine import start_engine
from deploy.local.rabbitmq import start_rabbitmq
from tests.chaos.evidence import Struck, Usage
from tests.chaos.plan import Fault, Options
from tests.support.amqp import Amqp
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest
from tests.support.waiting import eventually

MODULE = "tests.support.crashing_bridge"  # no crash point is named; it allows short deadlines
EXCHANGE, AUDIT = "chaos.tasks", "chaos.audit"
PURGE_PATIENCE = 0.25  # of the round: how long a purge waits for something to purge
BACK_SECONDS = 12.0  # until a replica has noticed that the engine is back: its longest pause
SOON = 60.0  # a part that does not come up within this ends the round


class World:
    """Everything is up when the `with` block begins, and ended when it is left."""

    def __init__(self, options: Options, directory: Path, topics: tuple[str, ...]) -> None:
        self.options, self.topics = options, topics
        self._directory = directory
        self._stack = ExitStack()
        self.bridges: list[Bridge] = []  # every replica that ever ran
        self.alive: list[Bridge] = []  # those that run, by number

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.broker = stack.enter_context(start_rabbitmq(base_dir=self._directory / "broker"))
            self.engine = stack.enter_context(
                start_engine(
                    "camunda", database=self._directory / "engine", log_dir=self._directory
                )
            )
            self.rest = EngineRest(self.engine.url)
            self._declare()
            stack.callback(self._end_bridges)
            self.alive = [self._bridge() for _ in range(self.options.replicas)]
            for bridge in self.alive:
                eventually(bridge.is_ready, SOON, what="a replica is ready")
            self.before = usage(self.alive[0])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _end_bridges(self) -> None:
        for bridge in self.bridges:
            if bridge.process is not None and exit_code(bridge) is None:
                bridge.kill()  # frozen or not
            bridge.__exit__(None, None, None)

    def _declare(self) -> None:
        """An exchange that copies every task message into a stream, which forgets nothing and
        expires nothing: the record of what was published.
        """
        with Amqp(self.broker.url) as amqp:
            channel = amqp.channel
            channel.exchange_declare(EXCHANGE, "direct", durable=True)
            channel.queue_declare(AUDIT, durable=True, arguments={"x-queue-type": "stream"})
            for topic in self.topics:
                channel.queue_declare(topic, durable=True, arguments=_TASK_QUEUE)
                for queue in (topic, AUDIT):
                    channel.queue_bind(queue, EXCHANGE, topic)

    def _settings(self) -> Mapping[str, Any]:
        key = self._directory / "token-key"
        if not key.exists():
            key.write_text("0123456789abcdef" * 4)
            key.chmod(0o600)
        keys = {"exchange": EXCHANGE, "retries": 10, "retry_pauses": ["1s"]}
        return settings(
            self.engine.url,
            self.broker.url,
            {topic: {**keys, "routing_key": topic} for topic in self.topics},
            topic_defaults=self.options.times.settings(),
            token_key_file=str(key),
        )

    def _bridge(self) -> Bridge:
        bridge = Bridge(self._settings(), module=MODULE, level="info", wait_ready=False)
        self.bridges.append(bridge)
        return bridge.start()

    def start_again(self, number: int) -> None:
        self.alive[number] = self._bridge()

    # -- faults ----------------------------------------------------------------------------------

    def strike(self, fault: Fault) -> Struck:
        """Carry a fault out, and mend what does not mend itself.  Takes as long as the fault."""
        strikes: Mapping[str, Callable[[Fault], Struck]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "long freeze": self._freeze,
            "rolling restart": self._roll,
            "broker": self._crash_broker,
            "engine": self._crash_engine,
            "purge": self._purge,
            "connections": self._close_connections,
        }
        return strikes[fault.kind](fault)

    def _kill(self, fault: Fault) -> Struck:
        self.alive[fault.victim].kill()
        exposed = self.exposed()
        time.sleep(fault.lasts)
        self.start_again(fault.victim)
        return Struck(fault.kind, exposed)

    def _freeze(self, fault: Fault) -> Struck:
        victim = self.alive[fault.victim]
        victim.signal(signal.SIGSTOP)
        try:
            exposed = self.exposed()
            time.sleep(fault.lasts)
        finally:
            victim.signal(signal.SIGCONT)
        long = fault.lasts > self.options.times.publish_window / 2
        return Struck(fault.kind, exposed if long else 0)

    def _roll(self, fault: Fault) -> Struck:
        exposed, problems = 0, []
        for number, bridge in enumerate(list(self.alive)):
            # Before it is up, SIGTERM ends it as it ends any program: there is nothing to save.
            eventually(bridge.is_ready, SOON, what="the old replica is ready")
            exposed += self.exposed(unleased=False)
            code = bridge.stop()
            if code != 0:
                problems.append(f"a stop ended with {code}: {bridge.tail()}")
            self.start_again(number)
            eventually(self.alive[number].is_ready, SOON, what="the new replica is ready")
        return Struck(fault.kind, exposed, problem="; ".join(problems))

    def _crash_broker(self, fault: Fault) -> Struck:
        exposed = self.exposed(failed=False)
        self.broker.kill()
        time.sleep(fault.lasts)
        self.broker.restart()
        return Struck(fault.kind, exposed)

    def _crash_engine(self, fault: Fault) -> Struck:
        left = [lock_left(task) for task in self.locked()]
        began = time.monotonic()
        self.engine.kill()
        time.sleep(fault.lasts)
        self.engine.restart()
        lapsed_by = time.monotonic() - began + BACK_SECONDS  # nothing is renewed meanwhile
        return Struck(fault.kind, sum(seconds <= lapsed_by for seconds in left))

    def _purge(self, fault: Fault) -> Struck:
        topic = self.topics[fault.victim % len(self.topics)]
        with Amqp(self.broker.url) as amqp:
            limit = time.monotonic() + PURGE_PATIENCE * self.options.seconds
            while not amqp.count(topic) and time.monotonic() < limit:
                time.sleep(0.05)
            purged = amqp.channel.queue_purge(topic).method.message_count
        return Struck(fault.kind, purged=purged)

    def _close_connections(self, fault: Fault) -> Struck:
        exposed = self.exposed(failed=False)
        self.broker.ctl("close_all_connections", "chaos")
        return Struck(fault.kind, exposed)

    # -- look ------------------------------------------------------------------------------------

    def exposed(self, *, unleased: bool = True, failed: bool = True) -> int:
        """How many tasks a crash now may publish again: in flight without a lease, or failed
        before (nobody adopts those).
        """
        proof = 2 * self.options.times.publish_window
        return sum(
            (unleased and lock_left(task) <= proof) or (failed and task["retries"] is not None)
            for task in self.locked()
        )

    def locked(self) -> list[dict[str, Any]]:
        """The round's tasks whose lock has not passed, as the engine has them."""
        found = EngineRest(self.engine.url).tasks(locked=True)
        return [task for task in found if task["topicName"] in self.topics]

    def queues(self) -> dict[str, tuple[int, int]]:
        """Ready and unacknowledged messages of every queue but the audit, as the management API
        knows them (some seconds old).
        """
        answer = requests.get(f"{self.broker.management_url}/api/queues", timeout=10)
        return {
            queue["name"]: (queue.get("messages_ready", 0), queue.get("messages_unacknowledged", 0))
            for queue in answer.json()
            if queue["name"] != AUDIT
        }


_TASK_QUEUE = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 20,
    "x-dead-letter-exchange": "bridge.dead",
    "x-dead-letter-strategy": "at-least-once",
}


def lock_left(task: Mapping[str, Any]) -> float:
    """How many seconds a task's lock still runs."""
    ends = datetime.fromisoformat(task["lockExpirationTime"])
    return (ends - datetime.now(UTC)).total_seconds()


def exit_code(bridge: Bridge) -> int | None:
    """None while it runs."""
    assert bridge.process is not None, "never started"
    return bridge.process.poll()


def usage(bridge: Bridge) -> Usage:
    """What a replica holds of the machine now."""
    process = psutil.Process(bridge.pid)
    with process.oneshot():
        memory = process.memory_info().rss / 1e6
        return Usage(process.num_threads(), process.num_fds(), memory)
