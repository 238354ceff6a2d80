"""A worker: connect, take tasks, run their functions.  Refuses to declare task queues, to hold more
tasks of a topic than `prefetch`, and to work a message of another topic.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from time import monotonic, sleep, time
from typing import Any, TypeVar
from uuid import uuid4

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPChannelError, AMQPError

from bridge.worker.answering import Answers
from bridge.worker.functions import Handler, Outcome, Task, as_json, milliseconds, variables_of
from bridge.worker.lane import Ear, Lane
from bridge.worker.process import event_loop, signals
from bridge.worker.state import AGAIN_SECONDS, Hand, Job, remember

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])
LOOK_SECONDS = 0.5
LOST = (AMQPError, AMQPConnectorException, OSError)


class Worker:
    """Runs a function per topic, for up to `prefetch` tasks of each topic at once: plain ones in
    threads, async ones in one event loop.  `url`: without it AMQP_URL; `prefix`: the bridge's, for
    its gone notices; `results_exchange`: for users who may not write to queues;
    `consumer_timeout`: RabbitMQ's, where it is not 30 minutes.  A number is seconds.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefetch: int = 10,
        prefix: str = "bridge",
        results_exchange: str = "",
        stop_grace: timedelta | float = 25,
        consumer_timeout: timedelta | float = 1800,
    ) -> None:
        if prefetch < 1:
            raise ValueError("prefetch is the number of tasks of a topic at once: 1 or more")
        self._url, self._gone_exchange = url, f"{prefix}.gone"
        self._grace_s = milliseconds(stop_grace) / 1000
        self._hand, self._end = Hand(prefetch), float("inf")
        timeout_s = milliseconds(consumer_timeout) / 1000
        self._answers = Answers(self._hand, results_exchange, timeout_s)
        self._handlers: dict[str, Handler] = {}
        self._gone: dict[str, int] = {}
        self._connection: Any = None

    def task(self, topic: str, *, queue: str | None = None) -> Callable[[Function], Function]:
        """Have a function answer the topic's tasks, from `queue` or the queue of the topic's name.

        Its parameters are the process variables of their names, checked by pydantic against their
        types; a missing or wrong one fails the task without retries.  A dict that it returns
        becomes variables, None completes without.  Beside BpmnError and Retry any exception is a
        failure by the topic's policy, with the traceback as errorDetails.
        """

        def register(function: Function) -> Function:
            if topic in self._handlers:
                raise ValueError(f"topic {topic!r} has a function already")
            if (queue or topic) in {handler.queue for handler in self._handlers.values()}:
                raise ValueError(
                    f"queue {queue or topic!r} has a function already: each topic needs"
                    " a queue of its own"
                )
            self._handlers[topic] = Handler(topic, queue or topic, function)
            return function

        return register

    def call(self, topic: str, /, **variables: Any) -> Outcome:
        """What the topic's function makes of variables, as JSON carries them: for tests, without a
        broker.  The task is never gone, and its progress is heard by nobody.
        """
        if topic not in self._handlers:
            known = ", ".join(map(repr, self._handlers)) or "none"
            raise ValueError(f"topic {topic!r} has no function; those that have one: {known}")
        task = Task(topic, {"taskId": "call"}, as_json(variables), lambda _: None, lambda: False)
        with ThreadPoolExecutor(1) as pool:  # a thread without an event loop, for asyncio.run
            return pool.submit(self._handlers[topic].attempt, lambda: task, asyncio.run).result()

    def stop(self) -> None:
        """Have `run` return, as SIGTERM does; from any thread."""
        self._hand.stopping.set()
        self._wake()

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop`, and connect again whenever the connection is lost.

        Answers are persistent, mandatory and confirmed before the message is acknowledged.  One
        that is refused is tried again until it is taken; one that is larger than RabbitMQ takes
        becomes a failure without retries.  One that meets no connection goes out by the next one,
        and the copy that RabbitMQ delivers again gets the same answer unworked (where another
        worker gets it, the first answer counts).  A stop cancels the consumers and finishes what is
        in hand within `stop_grace`; what is not finished goes back to its queue or, acknowledged
        already, to the engine.  A second signal ends at once.  A confirm that does not come is
        waited for as long as the connection lives.
        """
        parameters = _parameters(self._url or os.environ.get("AMQP_URL", ""))
        if not self._handlers:
            raise ValueError("nothing to do: give a function a topic by @worker.task(topic)")
        with signals(self._hand.stopping.set), event_loop() as self._loop:
            while not self._is_over():
                try:
                    with pika.BlockingConnection(parameters) as self._connection:
                        self._serve()
                except LOST as error:
                    log.warning("no connection to RabbitMQ, trying again: %r", error)
                    if self._hand.stopping.wait(AGAIN_SECONDS):
                        sleep(LOOK_SECONDS)  # what is in hand may still be answered

    def _is_over(self) -> bool:
        stopping = self._hand.stopping.is_set()
        if stopping:
            self._end = min(self._end, monotonic() + self._grace_s)
        return stopping and (not self._hand.jobs or monotonic() > self._end)

    def _serve(self) -> None:
        handlers, connection = self._handlers, self._connection
        ears = [Ear(connection, h, self._gone_exchange, self._note_gone) for h in handlers.values()]
        lanes = {t: Lane(connection, h, self._hand, self._take) for t, h in handlers.items()}
        for handler in handlers.values():
            self._hand.lose_deliveries(handler)
        self._answers.connect(connection, lanes)
        while not self._is_over():
            for ear in ears:
                ear.attend()
            for lane in lanes.values():
                lane.attend()
                if self._hand.stopping.is_set():
                    lane.cancel()
            self._answers.send()
            connection.process_data_events(LOOK_SECONDS)
        self._answers.send(last=True)
        self._answers.give_back()

    def _note_gone(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        with suppress(ValueError, TypeError, KeyError):
            task_id = json.loads(body)["taskId"]
            remember(self._gone, task_id, properties.timestamp or int(time()))
            for job in self._hand.jobs.values():
                job.gone = job.gone or job.task_id == task_id

    def _take(
        self, handler: Handler, channel: Any, method: Any, properties: Any, body: bytes
    ) -> None:
        key = properties.message_id or uuid4().hex
        new = Job(handler, key, method, properties)
        job, answered = self._hand.jobs.get(key), self._answers.recall(key)
        if job is not None and not job.early:
            job.tags.append(method.delivery_tag)
        elif job is not None or self._was_gone(new):
            with suppress(AMQPChannelError):  # it comes again
                channel.basic_ack(method.delivery_tag)
        elif fault := self._fault(new):
            log.error("%s: rejected a message %s", handler.queue, fault)
            with suppress(AMQPChannelError):
                channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            self._hand.jobs[key] = new
            if answered is not None and method.redelivered:
                self._answers.post(new, answered)
            else:
                threading.Thread(target=self._work, args=(new, body), name=key, daemon=True).start()

    def _was_gone(self, job: Job) -> bool:
        # A task may be published again after a notice; within the same second nobody knows.
        published, noticed = job.properties.timestamp, self._gone.get(job.task_id)
        return published is not None and noticed is not None and published < noticed

    def _fault(self, job: Job) -> str | None:
        if job.properties.type and job.properties.type != job.handler.topic:
            return f"of topic {job.properties.type!r}, not {job.handler.topic!r}"
        return None if self._answers.has_address(job) else "that no answer can go to"

    def _work(self, job: Job, body: bytes) -> None:
        def task() -> Task:
            headers, variables = job.properties.headers or {}, variables_of(body)
            say = partial(self._post, job)
            return Task(job.handler.topic, headers, variables, say, lambda: job.gone)

        def finish(coroutine: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

        self._post(job, job.handler.attempt(task, finish))

    def _post(self, job: Job, outcome: Outcome) -> None:
        self._answers.post(job, outcome)
        self._wake()

    def _wake(self) -> None:
        with suppress(*LOST):
            if self._connection is not None:
                self._connection.add_callback_threadsafe(lambda: None)


def _parameters(url: str) -> pika.URLParameters:
    parameters = None
    with suppress(Exception):  # pika raises what it likes, and quotes the password
        parameters = pika.URLParameters(url)
    if parameters is None or not url.startswith(("amqp://", "amqps://")):
        raise ValueError("give AMQP_URL as amqp://user:password@host:5672/%2F")
    parameters.client_properties = {"connection_name": "worker"}
    if parameters.blocked_connection_timeout is None:
        parameters.blocked_connection_timeout = 300
    return parameters
