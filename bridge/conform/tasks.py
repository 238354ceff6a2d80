"""Task messages as the bridge makes them, by the code with which it makes them, and what a worker's
answer to one means.  Pure but for the random names of tasks.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.broker.client import Taken
from bridge.dead_letters import DeadLetter, read_dead_letter
from bridge.errors import ResultRefused
from bridge.messages import (
    BpmnError,
    Complete,
    Delivery,
    ExtendLock,
    Failure,
    LockedTask,
    Publication,
    Result,
)
from bridge.results import read
from bridge.task_message import build
from bridge.tokens import TokenSigner
from bridge.topics import Topic
from bridge.variables import names_allowed, plain, typed

# Whatever a worker leaves behind goes by itself.
EXPIRATION_MS = 600_000
NO_JSON = b'{"variables": {"amount": 12.5, "curr'


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, or the death of a task message (`dead` is RabbitMQ's word for it), of which the
    bridge makes a failure where a worker rejected it.

    `result` None: the bridge would park it, and `refused` says why.  `task_id` None: its
    correlation id is not ours, and `token_refused` says why.
    """

    result: Result | None
    refused: str
    task_id: str | None
    token_refused: str
    persistent: bool
    dead: str = ""

    @property
    def final(self) -> bool:
        """False where the worker only says that it is still at work."""
        return not isinstance(self.result, ExtendLock)


class Tasks:
    """Makes messages of one topic and reads their answers."""

    def __init__(self, topic: Topic, queue: str, reply_to: str) -> None:
        self._topic = replace(topic, queue=queue)
        self._shape = replace(
            topic.shape,
            exchange="",
            routing_key=queue,
            reply_to=reply_to,
            expiration_ms=EXPIRATION_MS,
        )
        self._signer = TokenSigner(secrets.token_bytes(32))

    def make(self, variables: Mapping[str, Any]) -> tuple[str, Publication]:
        """The id of a new task, and its message."""
        now = int(time.time())
        task = LockedTask(
            id=str(uuid.uuid4()),
            topic_name=self._topic.name,
            process_instance_id=str(uuid.uuid4()),
            process_definition_key="conform",
            activity_id="conform",
            business_key="conform-Größe",
            create_time=time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime(now)),
            variables=typed(variables, string_max=2**31),
        )
        values, types = plain(task.variables, file_address=lambda _: "")
        token = self._signer.make(task.id, task.retries, self._topic.name)
        message = build(task, self._shape, token=token, values=values, types=types, timestamp=now)
        return task.id, message

    def make_unreadable(self) -> tuple[str, Publication]:
        """The same, with a body that is no JSON."""
        task_id, publication = self.make({})
        return task_id, replace(publication, body=NO_JSON)

    def read(self, taken: Taken) -> Answer:
        """What the bridge would make of an answer."""
        delivery = taken.delivery
        result: Result | None = None
        refused, task_id, token_refused = "", None, ""
        try:
            task_id = self.task_of(delivery)
        except ResultRefused as error:
            token_refused = error.detail
        letter = self._letter(delivery)
        try:
            result = read(delivery, self._topic.replies) if letter is None else _death(letter)
            self._check(result)
        except ResultRefused as error:
            result, refused = None, str(error)
        dead = "" if letter is None else letter.reason
        return Answer(result, refused, task_id, token_refused, taken.persistent, dead)

    def task_of(self, delivery: Delivery) -> str:
        """The task that a message is about.  Raises ResultRefused where it is none of ours."""
        return self._signer.verify(delivery.correlation_id, self._topic.name).task_id

    def is_ours(self, delivery: Delivery) -> bool:
        """Whether this object has made a task message."""
        try:
            self.task_of(delivery)
        except ResultRefused:
            return False
        return True

    def _letter(self, delivery: Delivery) -> DeadLetter | None:
        try:
            return read_dead_letter(delivery, {self._topic.name: self._topic})
        except ResultRefused:
            return None

    def _check(self, result: Result) -> None:
        """What the bridge checks before it calls the engine."""
        sets = []
        if isinstance(result, Complete | Failure):
            sets = [result.variables, result.local_variables]
        elif isinstance(result, BpmnError | ExtendLock):
            sets = [result.variables]
        for variables in sets:
            names_allowed(variables, self._topic.allowed_variables)
            typed(variables)


def _death(letter: DeadLetter) -> Failure:
    """A rejection is a good way to fail; a loop of requeues is none."""
    if letter.reason != "rejected":
        raise ResultRefused(letter.reason, letter.text if letter.is_failure else "never taken")
    return Failure(error_message=letter.text)
