"""A running bridge with engine and virtual host, and the tasks that a test sends through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.support.amqp import Amqp, Message, Reply
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually

Variables = Mapping[str, Mapping[str, Any]]
EXCHANGE, BOUND = "orders", "all-orders"


class Stage:
    """A bridge that several tests share, each with topics or instances of its own.

    `topics` are settings by short name; `names` has the real ones, which no other test uses.
    `prepare` sees the virtual host before the bridge does.
    """

    def __init__(
        self,
        engine: EngineRest,
        amqp_url: str,
        topics: Mapping[str, Mapping[str, Any]],
        *,
        prepare: Callable[[Stage], None] = lambda _: None,
        module: str = "bridge",
        **top: Any,
    ) -> None:
        self.engine = engine
        self.url = amqp_url
        self.amqp = Amqp(amqp_url)
        self.names = {short: unique(short) for short in topics}
        self._prepare = prepare
        named = {self.names[short]: keys for short, keys in topics.items()}
        self.bridge = Bridge(settings(engine.url, amqp_url, named, **top), module=module)
        self._keys: list[str] = []

    def __enter__(self) -> Self:
        self._prepare(self)
        self.bridge.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bridge.__exit__(kind, error, trace)
        with self.amqp:
            for key in self._keys:
                self.engine.clean(key)

    def begin(
        self,
        short: str,
        variables: Variables | None = None,
        *,
        business_key: str | None = None,
        tenant: str | None = None,
        queue: str | None = None,
        then: tuple[str, ...] = (),
        **options: Any,
    ) -> Case:
        """Deploy a process with one task of the topic and start an instance of it.

        `then`: topics of tasks that follow; `queue`: where its messages go, if not to the topic's.
        """
        topic = self.names[short]
        key = self.engine.deploy_topics(topic, *then, tenant=tenant, **options)
        self._keys.append(key)
        instance = self.engine.start(key, variables, business_key, tenant)
        return Case(self, topic, queue or topic, key, instance)

    def answer(self, message: Message, body: Any = None, outcome: str | None = None) -> None:
        """Answer a task message as a worker does."""
        self.amqp.answer(message, Reply(body, outcome))

    def parked(self, correlation_id: str | None) -> Message:
        """The parked message with this correlation id; others that lie there are thrown away."""

        def look() -> Message | None:
            while (message := self.amqp.get("bridge.parked")) is not None:
                if message.properties.correlation_id == correlation_id:
                    return message
            return None

        found = eventually(look, what="the message is parked")
        assert found is not None
        return found

    def count(self, short: str, event: str) -> int:
        return self.bridge.count(self.names[short], event)


@dataclass(frozen=True)
class Case:
    """One process instance with one external task."""

    stage: Stage
    topic: str
    queue: str
    key: str
    instance: str

    def message(self, limit: float = 60) -> Message:
        """Take this task's next message; those of other instances are thrown away."""
        try:
            found = eventually(self._look, limit, what=f"a message of {self.topic}")
        except AssertionError as error:
            error.add_note(self.stage.bridge.tail())
            raise
        assert found is not None
        return found

    def _look(self) -> Message | None:
        while (message := self.stage.amqp.get(self.queue)) is not None:
            if message.headers.get("processInstanceId") == self.instance:
                return message
        return None

    def task(self) -> dict[str, Any] | None:
        """The engine's record of the task; None when it is done."""
        found = self.stage.engine.tasks(processInstanceId=self.instance)
        return found[0] if found else None

    def retries(self) -> int | None:
        task = self.task()
        assert task is not None, "the task is gone"
        retries: int | None = task["retries"]
        return retries

    def end(self) -> str:
        """Wait until the instance has ended; the id of the end event it reached."""
        try:
            found = eventually(lambda: self.stage.engine.ended_at(self.instance), what="the end")
        except AssertionError as error:
            error.add_note(self.stage.bridge.tail())
            raise
        assert found is not None
        return found

    def variables(self) -> dict[str, Any]:
        """The instance's variables: name -> {"value", "type"}."""
        return self.stage.engine.history_variables(self.instance)

    def incident(self) -> str:
        """Wait for the task's incident; its message."""
        found = eventually(lambda: self.stage.engine.incidents(self.key), what="an incident")
        return str(found[0]["incidentMessage"])


def bind_exchange(stage: Stage) -> None:
    """Somebody else's exchange and queue, as a topic with `exchange` finds them."""
    channel = stage.amqp.channel
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.queue_declare(BOUND, durable=True)
    channel.queue_bind(BOUND, EXCHANGE, "#")
