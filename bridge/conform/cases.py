"""The contract as cases: what a worker is put through, what it must do, and what mends it.

A case returns where the worker passed and raises Failed or NotTried otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.conform import accidents, answers
from bridge.conform.bench import Bench


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    name: str
    judge: Callable[[Bench], None]
    advice: str


CASES: tuple[Case, ...] = (
    Case(
        "success",
        answers.success,
        "Answer to reply_to with a JSON object of variables, or with header outcome: complete.",
    ),
    Case(
        "business-error",
        answers.business_error,
        "Answer with header outcome: bpmnError and a JSON body that has an errorCode.",
    ),
    Case(
        "failure",
        answers.failure,
        "Answer with header outcome: failure and a JSON body that has an errorMessage, or reject "
        "without requeue.",
    ),
    Case("unicode", answers.unicode, "Read and write bodies as UTF-8, whatever the platform's."),
    Case("null", answers.null, "Accept null as the value of a variable, and names not known."),
    Case(
        "numbers",
        answers.numbers,
        "Read integers with 64 bits and other numbers as doubles; answer integers as integers.",
    ),
    Case(
        "large-body",
        answers.large_body,
        "Take bodies of some megabytes; leave the frame size to the client library.",
    ),
    Case(
        "duplicate",
        answers.duplicate,
        "Answer each copy of a message, with the same result; message_id names the attempt.",
    ),
    Case(
        "correlation-id",
        answers.correlation_id,
        "Set the answer's correlation_id to the task message's own, unchanged.",
    ),
    Case(
        "persistent",
        answers.persistent,
        "Publish answers with delivery_mode 2, or a restart of the broker loses them.",
    ),
    Case(
        "poison",
        accidents.poison,
        "Catch what a bad body raises; answer with a failure, or reject without requeue.",
    ),
    Case(
        "prefetch",
        accidents.prefetch,
        "Call basic.qos with a prefetch count (10 is a good one) before basic.consume, and consume "
        "with manual acknowledgement, or no prefetch holds.",
    ),
    Case(
        "acknowledgement",
        accidents.acknowledgement,
        "Acknowledge each task message once its answer is confirmed.",
    ),
    Case(
        "unroutable-answer",
        accidents.unroutable_answer,
        "Publish answers as mandatory and wait for the confirm; do not acknowledge a task whose "
        "answer came back, but end with an error or try again later.",
    ),
    Case(
        "kill",
        accidents.kill,
        accidents.ACKNOWLEDGE_LAST,
    ),
    Case(
        "stop",
        accidents.stop,
        "On SIGTERM stop consuming, finish or give back what is in hand, and end; a script that "
        "starts the worker should exec it.",
    ),
    Case(
        "connection-cut",
        accidents.connection_cut,
        "On a lost connection reconnect, or end with an error and be started again.",
    ),
)
