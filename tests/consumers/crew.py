"""The workers of one language on queues of their own, and the tasks that are begun for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.programs import Program
from tests.consumers.samples import Sample
from tests.support.stage import Case, Stage

START_LIMIT_S, GRACE_S = 60.0, 10.0
# What disturbs other tasks has its own queue; that of `copied` has no worker, and is the test's.
PLACES = ("plain", "killed", "stopped", "unroutable", "copied")
KINDS = {int: "Integer", float: "Double", str: "String", type(None): "Null"}


def topics_of(samples: tuple[Sample, ...]) -> dict[str, dict[str, Any]]:
    """The topics that crews of these samples use, for a Stage: two attempts, a second between."""
    return {f"{s.name}-{place}": {"retries": 2} for s in samples for place in PLACES}


def typed(value: Any, kind: str | None = None) -> dict[str, Any]:
    """A variable as the engine takes it."""
    return {"value": value, "type": kind or KINDS[type(value)]}


def payment(amount: Any, currency: str | None = "EUR", **more: Any) -> dict[str, Any]:
    """The variables of a payment; `amount` may be a variable already."""
    given = amount if isinstance(amount, dict) else typed(amount)
    return {"amount": given, "currency": typed(currency), **more}


@dataclass(frozen=True)
class Crew:
    """A sample's workers; `stack` ends them.  `begun` has the cases that the plain one answers."""

    sample: Sample
    stage: Stage
    command: tuple[str, ...]
    directory: Path
    stack: ExitStack
    begun: dict[str, Case] = field(default_factory=dict)

    def topic(self, place: str) -> str:
        """The short name of a place's topic on the stage."""
        return f"{self.sample.name}-{place}"

    def queue(self, place: str) -> str:
        return self.stage.names[self.topic(place)]

    def begin(self, place: str, variables: Mapping[str, Any]) -> Case:
        """A process instance whose task asks for this payment."""
        return self.stage.begin(self.topic(place), variables, error_codes=["PAYMENT_ERROR"])

    def start(self, place: str, *, pending_seconds: int = 0) -> Program:
        """A worker on the place's queue, as its README starts it."""
        told = {
            "AMQP_URL": self.stage.url,
            "TASK_QUEUE": self.queue(place),
            "PENDING_SECONDS": str(pending_seconds),
        }
        name, log = self.topic(place), self.directory / f"{place}.log"
        program = Program(name, self.command, log=log, environment={**os.environ, **told})
        self.stack.callback(program.stop, grace_s=GRACE_S)
        return program

    def await_consumer(self, place: str, program: Program) -> None:
        """Wait until this worker, the only one there, consumes.  PartError when it ends before."""
        queue = self.queue(place)
        consumes = self.stage.amqp.consumers
        program.wait_until(lambda: consumes(queue) > 0, limit_s=START_LIMIT_S)


def status(case: Case) -> str | None:
    """What the worker has made of the payment so far."""
    found = case.variables().get("paymentStatus")
    return None if found is None else str(found["value"])
