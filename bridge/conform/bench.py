"""Where one worker is tried: its queue, its answers, its process and the relay to it.  Knows how to
wait for what a worker does, and nothing of what it should do.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bridge.broker.client import Client
from bridge.clock import monotonic
from bridge.conform.program import Program
from bridge.conform.relay import Relay
from bridge.conform.setup import Setup
from bridge.conform.tasks import Answer, Tasks
from bridge.conform.verdict import CannotRun, Failed, NotTried
from bridge.messages import Delivery, Publication

_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class LastStand:
    """What was seen of a worker that was killed with its hands full."""

    taken: int
    acknowledged: bool


class Bench:
    """One broker connection and at most one worker process.  To be used in one thread.

    `heard` has every answer so far, `answered` the tasks that have a final one.
    """

    def __init__(self, setup: Setup, client: Client) -> None:
        self.setup = setup
        self._client = client
        self._reply_to = f"external-task-bridge.conform.{uuid.uuid4()}"
        self._made_queue = False
        self._relay: Relay | None = None
        self._program: Program | None = None
        self.tasks = Tasks(setup.topic, setup.queue, self._reply_to)
        self.heard: list[Answer] = []
        self.answered: set[str] = set()
        self.last_stand: LastStand | None = None

    def __enter__(self) -> Self:
        """Raises CannotRun where the queue is in use, or nobody consumes it."""
        self._open_queues()
        if self.setup.command is not None:
            self._relay = Relay(*self.setup.address, self._is_answer).__enter__()
            environ = self.setup.worker_environ(self._relay.port)
            self._program = Program(self.setup.command, environ)
        try:
            self.begin()
        except Failed as failed:
            self.__exit__(None, None, None)
            raise CannotRun(str(failed)) from None
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._program is not None and self._relay is not None:
            self._program.close()
            self._relay.__exit__(None, None, None)
        self.clear()
        if self._made_queue and not self.ready:  # a bridge may have found it meanwhile
            self._client.delete(self.setup.queue)

    @property
    def relay(self) -> Relay:
        """Raises NotTried where the worker was not started by the kit."""
        if self._relay is None:
            raise NotTried("the kit has to start the worker itself: --cmd")
        return self._relay

    @property
    def program(self) -> Program:
        """Raises NotTried where the worker was not started by the kit."""
        if self._program is None:
            raise NotTried("the kit has to start the worker itself: --cmd")
        return self._program

    @property
    def has_program(self) -> bool:
        return self._program is not None

    # -- the worker ------------------------------------------------------------------------------

    def begin(self, *, fresh: bool = False) -> None:
        """Have a worker that consumes, a fresh one if asked for.  Raises Failed."""
        if self._program is None:
            if not self.until(lambda: self.consumers > 0, self.setup.start_timeout):
                raise Failed(f"nobody consumes queue {self.setup.queue!r}")
            self.hear()
            return
        if not fresh and self._program.alive and self.consumers:
            self.hear()
            return
        self.end()
        self.start()

    def start(self) -> None:
        """Start the worker and wait until it consumes.  Raises Failed, CannotRun."""
        try:
            self.program.start()
        except OSError as error:
            raise CannotRun(f"--cmd: it cannot be started ({error.strerror})") from None
        limit = self.setup.start_timeout
        self.until(lambda: self.consumers > 0 or not self.program.alive, limit)
        if not self.program.alive:
            raise Failed(f"the worker did not stay: {self.epitaph()}")
        if not self.consumers:
            raise Failed(f"the worker did not consume {self.setup.queue!r} within {limit:g} s")

    def end(self) -> None:
        """Have the worker gone, and nothing left of what it got."""
        self.kill()
        self.clear()

    def kill(self) -> None:
        """SIGKILL, and wait until the broker has back what the worker had in hand."""
        self.program.kill()
        self.relay.cut()
        self.relay.release()
        self.gone()

    def gone(self) -> None:
        """Wait until the broker knows that the worker is gone."""
        if not self.until(lambda: self.consumers == 0):
            raise Failed("its process ended, and something of it still consumes the queue")

    def epitaph(self) -> str:
        """How the worker ended, and what it said last."""
        words = self.program.last_words()
        return f"it ended with code {self.program.code}" + (f", saying: {words}" if words else "")

    # -- the queue -------------------------------------------------------------------------------

    @property
    def consumers(self) -> int:
        found = self._client.look(self.setup.queue)
        return found.consumers if found else 0

    @property
    def ready(self) -> int:
        """Messages that the broker has not given to anybody."""
        found = self._client.look(self.setup.queue)
        return found.messages if found else 0

    def send(self, variables: Mapping[str, Any], copies: int = 1) -> str:
        """Publish a new task, maybe several copies of its message; returns its id."""
        task_id, publication = self.tasks.make(variables)
        for _ in range(copies):
            self.publish(publication)
        return task_id

    def publish(self, publication: Publication) -> None:
        """Publish a message as it is."""
        self._client.publish(publication)

    def clear(self) -> list[Delivery]:
        """Take back the kit's own messages that wait, and forget answers nobody waits for."""
        removed = self._client.remove(self.setup.queue, self.tasks.is_ours)
        self.hear()
        return removed

    def requeued(self, seconds: float) -> int:
        """How many of the kit's messages come back to the queue; they are taken from it."""
        return len(self._client.intercept(self.setup.queue, self.tasks.is_ours, seconds))

    # -- answers ---------------------------------------------------------------------------------

    def hear(self) -> list[Answer]:
        """The answers that are there."""
        new = []
        while (taken := self._client.take(self._reply_to)) is not None:
            new.append(self.tasks.read(taken))
        self.heard += new
        self.answered |= {a.task_id for a in new if a.final and a.task_id}
        return new

    def answers(self, tasks: Sequence[str], limit: float | None = None) -> list[Answer]:
        """A final answer for each of the tasks.  Raises Failed where one does not come, or the
        worker ends first.  An answer that names no task is taken for the first one missing.
        """
        limit = limit or self.setup.timeout
        missing, found = Counter(tasks), list[Answer]()

        def all_came() -> bool:
            alive = self._program is None or self._program.alive
            for answer in filter(lambda a: a.final, self.hear()):
                task_id = answer.task_id or next(iter(missing.elements()), "")
                if missing[task_id] > 0:
                    missing[task_id] -= 1
                    found.append(answer)
            return not missing.total() or not alive

        self.until(all_came, limit)
        if not missing.total():
            return found
        if self._program is not None and not self._program.alive:
            raise Failed(f"no answer: {self.epitaph()}")
        raise Failed(f"no answer within {limit:g} s")

    def until(self, condition: Callable[[], bool], limit: float | None = None) -> bool:
        """Wait for a condition; False where it did not come true."""
        end = monotonic() + (self.setup.timeout if limit is None else limit)
        while not condition():
            if monotonic() > end:
                return False
            self.wait(_LOOK_SECONDS)
        return True

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._client.wait(seconds)

    # -- before the first worker -----------------------------------------------------------------

    def _open_queues(self) -> None:
        queue = self.setup.queue
        self._client.declare_own(self._reply_to)
        found = self._client.look(queue)
        if found is None:
            self._client.declare(queue, self.setup.queue_arguments(self._reply_to))
            self._made_queue = True
        elif found.messages:
            raise CannotRun(f"queue {queue!r} holds {found.messages} messages; use an empty one")
        elif found.consumers and self.setup.command is not None:
            raise CannotRun(f"queue {queue!r} has other consumers; stop them, or use --queue alone")
        # For workers that answer through the exchange, and for what is rejected.
        self._client.bind(self._reply_to, f"{self.setup.prefix}.results", self.setup.topic.name)
        self._client.bind(self._reply_to, f"{self.setup.prefix}.dead", "")

    def _is_answer(self, exchange: str, key: str) -> bool:
        return key == self._reply_to if not exchange else key == self.setup.topic.name
