"""Completes the tasks of workers that never answer (`reply = "none"`).  Reads no message: that a
queue holds the task's message is all that it takes.

Nothing would come again from RabbitMQ, so the wish to complete is kept here while the engine is
away, and dies with the process: whoever adopts the task then has it completed.
"""

from __future__ import annotations

import threading
from functools import partial

import structlog

from bridge.callers import Callers
from bridge.clock import monotonic
from bridge.engine import Gate
from bridge.errors import (
    EngineBroken,
    EngineError,
    EngineForbidden,
    EngineRefused,
    LockLost,
    TaskGone,
    TaskSuspended,
)
from bridge.ledger import Ledger
from bridge.messages import Complete
from bridge.outcomes import Outcomes
from bridge.patience import Patience
from bridge.tokens import Token
from bridge.topics import Topic

log = structlog.get_logger(__name__)

# What only an operator can mend.
_WAITING = (TaskSuspended, EngineForbidden)


class Unanswered:
    """`complete` never blocks; the work is done by the callers, until `closing` is set."""

    def __init__(
        self,
        *,
        outcomes: Outcomes,
        ledger: Ledger,
        callers: Callers,
        gate: Gate,
        closing: threading.Event,
    ) -> None:
        self._outcomes = outcomes
        self._ledger = ledger
        self._callers = callers
        self._gate = gate
        self._closing = closing

    def complete(self, topic: Topic, token: Token) -> None:
        """Have a task completed, now or when the engine is back; a process that cannot go on from
        it becomes an incident.
        """
        attempt = partial(self._try, topic, token, Patience(monotonic()))
        self._callers.submit(token.task_id, attempt, group=topic.name)

    def _try(self, topic: Topic, token: Token, patience: Patience) -> float | None:
        """Seconds after which to try again, or None."""
        began = monotonic()
        if self._closing.is_set():
            return None
        if not self._gate.passes(began):
            return patience.look()
        try:
            self._outcomes.complete(topic, token, Complete())
        except TaskGone:
            self._ledger.settle(token.task_id)
        except _WAITING:
            return patience.rest()
        except (EngineRefused, LockLost) as error:
            return self._give_up(topic, token, patience, error)
        except EngineBroken as error:
            pause = patience.broken()
            return self._give_up(topic, token, patience, error) if pause is None else pause
        except EngineError as error:
            if self._gate.refused(error, began, monotonic()):
                log.warning("results are held until the engine takes them", reason=error.brief)
            return patience.pause()
        return None

    def _give_up(
        self, topic: Topic, token: Token, patience: Patience, error: EngineError
    ) -> float | None:
        try:
            self._outcomes.incident(topic, token, str(error))
        except (TaskGone, LockLost, EngineRefused):
            self._ledger.settle(token.task_id)
        except _WAITING:
            return patience.rest()
        except EngineError:
            return patience.pause()
        return None
