"""Where one worker is tried: its queues, its process and the relay to it.  Knows how to wait for
what a worker does, and nothing of what it should do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bridge.broker.client import Client
from bridge.clock import monotonic
from bridge.conform.program import Program
from bridge.conform.queues import Queues
from bridge.conform.relay import Relay
from bridge.conform.setup import Setup
from bridge.conform.tasks import Answer
from bridge.conform.verdict import CannotRun, Failed, NotTried

LONGER = "--timeout allows for more"
ELSEWHERE = """\
the worker consumes, but not over the address in AMQP_URL, where the kit can hold and cut its \
connection; give it that address by the name that it reads: \
--cmd 'sh -c "exec env MY_URL=$AMQP_URL ..."'"""
_LOOK_SECONDS = 0.02
# RabbitMQ has a message back a moment after its worker is gone, and says so to nobody.
_SETTLED_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class LastStand:
    """What was seen of a worker that was killed with its hands full: how many of the messages sent
    its consumers took, and whether one that it had answered stayed away.
    """

    sent: int
    taken: int
    consumers: int
    acknowledged: bool


class Bench:
    """One broker connection and at most one worker process.  To be used in one thread.

    `heard` has every answer so far, `answered` the tasks that have a final one.
    """

    def __init__(self, setup: Setup, client: Client) -> None:
        self.setup = setup
        self._client = client
        self._relay: Relay | None = None
        self._program: Program | None = None
        self.queues = Queues(setup, client)
        self.heard: list[Answer] = []
        self.answered: set[str] = set()
        self.last_stand: LastStand | None = None

    def __enter__(self) -> Self:
        """Raises CannotRun where the queue is in use, or nobody consumes it by way of the relay."""
        self.queues.open()
        try:
            if self.setup.command is not None:
                self._relay = Relay(*self.setup.address, self.queues.is_answer).__enter__()
                environ = self.setup.worker_environ(self._relay.port)
                self._program = Program(self.setup.command, environ)
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
            if self._program.ran:
                self.take_back()
        self.queues.take_back()
        self.queues.close()

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
            if not self.until(lambda: self.queues.consumers > 0, self.setup.start_timeout):
                raise Failed(f"nobody consumes queue {self.setup.queue!r}")
            self.hear()
            return
        if not fresh and self._program.alive and self.queues.consumers:
            self.hear()
            return
        if self._program.ran:
            self.end()
        self.start()

    def start(self) -> None:
        """Start the worker and wait until it consumes.  Raises Failed, CannotRun."""
        try:
            self.program.start()
        except OSError as error:
            raise CannotRun(f"--cmd: it cannot be started ({error.strerror})") from None
        limit = self.setup.start_timeout
        self.until(lambda: self.queues.consumers > 0 or not self.program.alive, limit)
        if not self.program.alive:
            raise Failed(f"the worker did not stay: {self.epitaph()}")
        if not self.queues.consumers:
            raise Failed(f"the worker did not consume {self.setup.queue!r} within {limit:g} s")
        if not self.relay.used:
            raise CannotRun(ELSEWHERE)

    def end(self) -> None:
        """Have the worker gone, and nothing left of what it got."""
        self.kill()
        self.take_back()
        self.hear()

    def kill(self) -> None:
        """SIGKILL, and wait until the broker knows it."""
        self.program.kill()
        self.relay.cut()
        self.relay.release()
        self.gone()

    def gone(self) -> None:
        """Wait until the broker knows that the worker is gone."""
        if not self.until(lambda: self.queues.consumers == 0):
            raise Failed("its process ended, and something of it still consumes the queue")

    def take_back(self) -> set[str]:
        """What a worker that is gone had in hand or left on the queue, as ids of tasks; bounded
        where somebody else consumes the queue.
        """
        back, last = set[str](), monotonic()

        def nothing_comes() -> bool:
            nonlocal last
            found = self.queues.take_back()
            back.update(self.queues.tasks.task_of(delivery) for delivery in found)
            if found or self.queues.consumers:
                last = monotonic()
            return monotonic() - last > _SETTLED_SECONDS

        self.until(nothing_comes, self.setup.timeout + _SETTLED_SECONDS)
        return back

    def epitaph(self) -> str:
        """How the worker ended, and what it said last."""
        words = self.program.last_words()
        return f"it ended with code {self.program.code}" + (f", saying: {words}" if words else "")

    # -- answers ---------------------------------------------------------------------------------

    def hear(self) -> list[Answer]:
        """The answers that are there."""
        new = self.queues.answers()
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
        raise Failed(f"no answer within {limit:g} s ({LONGER})")

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
