"""Names in RabbitMQ: which the bridge may create, and what its own are called.  No I/O."""

import re
from dataclasses import dataclass

_CREATABLE = re.compile(r"[A-Za-z0-9._:-]{1,200}")


def is_creatable(name: str) -> bool:
    """True where the bridge may create a queue of this name on any RabbitMQ.

    Stricter than the broker, so that a name also fits URLs, metrics and permission patterns;
    `amq.` is the broker's own (https://www.rabbitmq.com/docs/queues#names)."""
    return _CREATABLE.fullmatch(name) is not None and not name.startswith("amq.")


def result_queue(topic: str, queue: str) -> str:
    """The queue on which results of `topic` are awaited: `<topic>.results`.

    A topic whose name cannot name a queue takes `<queue>.results`."""
    return f"{topic if is_creatable(topic) else queue}.results"


@dataclass(frozen=True)
class ServiceNames:
    """The queues and exchanges that belong to the bridge itself, derived from `broker.prefix`."""

    prefix: str

    @property
    def results_exchange(self) -> str:
        return f"{self.prefix}.results"

    @property
    def gone_exchange(self) -> str:
        return f"{self.prefix}.gone"

    @property
    def dead_exchange(self) -> str:
        return f"{self.prefix}.dead"

    @property
    def dead_letters(self) -> str:
        """The queue of dead task messages, bound to `dead_exchange`."""
        return f"{self.prefix}.dead-letters"

    @property
    def parked(self) -> str:
        """The queue of results that cannot be applied."""
        return f"{self.prefix}.parked"

    @property
    def wait(self) -> str:
        """The waiting room: the name of the fanout exchange and of its queue."""
        return f"{self.prefix}.wait"

    @property
    def queues(self) -> tuple[str, ...]:
        return (self.dead_letters, self.parked, self.wait)

    @property
    def exchanges(self) -> tuple[str, ...]:
        return (self.results_exchange, self.gone_exchange, self.dead_exchange, self.wait)
