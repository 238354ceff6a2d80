"""A worker's connection: consume, run, publish the answer, acknowledge.  Refuses to declare task
queues, to hold more tasks of a topic than `prefetch`, to work a message of another topic, and to
acknowledge one before its answer is safe.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections import deque
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
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

from bridge.worker.functions import Handler, Outcome, Task, as_json, milliseconds, variables_of
from bridge.worker.process import event_loop, signals
from bridge.worker.state import Job, Lane, remember

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])
LOOK_SECONDS = 0.5
AGAIN_SECONDS = 2.0
LOST = (AMQPError, AMQPConnectorException, OSError)
REFUSED = (NackError, UnroutableError, ChannelClosedByBroker)


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
        self._url, self._prefetch, self._gone_exchange = url, prefetch, f"{prefix}.gone"
        self._results_exchange, self._grace = results_exchange, milliseconds(stop_grace) / 1000
        self._consumer_timeout = milliseconds(consumer_timeout) / 1000
        self._handlers: dict[str, Handler] = {}
        self._stopping, self._end = threading.Event(), float("inf")
        self._hand: dict[str, Job] = {}
        self._outbox: deque[tuple[Job, Outcome]] = deque()
        self._answered: dict[str, Outcome] = {}
        self._gone: dict[str, int] = {}
        self._lanes: dict[str, Lane] = {}
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
        task = Task(topic, {"taskId": "call"}, as_json(variables), lambda _: None, lambda: False)
        with ThreadPoolExecutor(1) as pool:  # a thread without an event loop, for asyncio.run
            return pool.submit(self._handlers[topic].attempt, lambda: task, asyncio.run).result()

    def stop(self) -> None:
        """Have `run` return, as SIGTERM does; from any thread."""
        self._stopping.set()
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
        with signals(self._stopping.set), event_loop() as self._loop:
            while not self._is_over():
                try:
                    with pika.BlockingConnection(parameters) as self._connection:
                        self._serve()
                except LOST as error:
                    log.warning("no connection to RabbitMQ, trying again: %r", error)
                    if self._stopping.wait(AGAIN_SECONDS):
                        sleep(LOOK_SECONDS)  # what is in hand may still be answered

    def _is_over(self) -> bool:
        if self._stopping.is_set():
            self._end = min(self._end, monotonic() + self._grace)
        return self._stopping.is_set() and (not self._hand or monotonic() > self._end)

    def _serve(self) -> None:
        self._open_out()
        self._lanes = {topic: Lane(handler) for topic, handler in self._handlers.items()}
        for lane in self._lanes.values():
            self._forget_deliveries(lane)
            self._hear_of_gone_tasks(lane.handler)
        while not self._is_over():
            for lane in self._lanes.values():
                self._attend(lane)
                if self._stopping.is_set():
                    self._cancel(lane)
            self._send()
            self._connection.process_data_events(LOOK_SECONDS)
        self._send(last=True)
        for job in self._hand.values():
            if job.early:
                with suppress(*REFUSED):
                    self._publish(job, Outcome("unlock", {}))

    def _open_out(self) -> None:
        self._out = self._connection.channel()
        self._out.confirm_delivery()

    def _attend(self, lane: Lane) -> None:
        if lane.channel is not None:
            if not lane.is_whole():
                self._close(lane, "queue deleted, or a message held for too long")
        elif monotonic() > lane.try_at:
            lane.channel = self._connection.channel()
            try:
                self._consume(lane)
            except ChannelClosedByBroker as error:
                self._close(lane, error.reply_text)

    def _close(self, lane: Lane, why: str) -> None:
        log.warning("%s: no longer consuming, trying again: %s", lane.handler.queue, why)
        if lane.channel.is_open:
            lane.channel.close()
        self._forget_deliveries(lane)
        # Not at once: RabbitMQ takes a consumer even for a queue that it is about to delete.
        lane.channel, lane.consumer, lane.try_at = None, None, monotonic() + AGAIN_SECONDS

    def _forget_deliveries(self, lane: Lane) -> None:
        for job in self._in_hand(lane):
            job.consumer, job.tags = None, []

    def _hear_of_gone_tasks(self, handler: Handler) -> None:
        channel, queue = self._connection.channel(), f"{handler.queue}.gone.{uuid4().hex}"
        try:
            channel.queue_declare(queue, exclusive=True, auto_delete=True)
            channel.queue_bind(queue, self._gone_exchange, handler.topic)
            channel.basic_consume(queue, self._note_gone, auto_ack=True)
        except ChannelClosedByBroker as error:
            log.warning("no notices of gone tasks of %s: %s", handler.topic, error.reply_text)

    def _note_gone(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        with suppress(ValueError, TypeError, KeyError):
            task_id = json.loads(body)["taskId"]
            remember(self._gone, task_id, properties.timestamp or int(time()))
            for job in self._hand.values():
                job.gone = job.gone or job.task_id == task_id

    def _in_hand(self, lane: Lane) -> list[Job]:
        return [job for job in self._hand.values() if job.handler is lane.handler]

    def _consume(self, lane: Lane) -> None:
        # A message that is acknowledged early makes room at the broker, but none here.
        room = self._prefetch - len(self._in_hand(lane))
        if lane.channel is not None and room > 0 and not self._stopping.is_set():
            lane.channel.basic_qos(prefetch_count=room)
            take = partial(self._take, lane.handler)
            lane.consumer = lane.channel.basic_consume(lane.handler.queue, take)

    def _cancel(self, lane: Lane) -> None:
        if lane.consumer is not None:
            consumer, lane.consumer = lane.consumer, None
            lane.channel.basic_cancel(consumer)

    def _take(
        self, handler: Handler, channel: Any, method: Any, properties: Any, body: bytes
    ) -> None:
        key = properties.message_id or uuid4().hex
        new = Job(handler, key, method, properties)
        job, answered = self._hand.get(key), self._answered.pop(key, None)
        if job is not None and not job.early:
            job.tags.append(method.delivery_tag)
        elif job is not None or self._was_gone(new):
            channel.basic_ack(method.delivery_tag)
        elif fault := self._fault(new):
            log.error("%s: rejected a message %s", handler.queue, fault)
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            self._hand[key] = new
            if answered is not None and method.redelivered:
                self._outbox.append((new, answered))
            else:
                threading.Thread(target=self._work, args=(new, body), name=key, daemon=True).start()

    def _was_gone(self, job: Job) -> bool:
        # A task may be published again after a notice; within the same second nobody knows.
        published, noticed = job.properties.timestamp, self._gone.get(job.task_id)
        return published is not None and noticed is not None and published < noticed

    def _fault(self, job: Job) -> str | None:
        if job.properties.type and job.properties.type != job.handler.topic:
            return f"of topic {job.properties.type!r}, not {job.handler.topic!r}"
        if job.properties.correlation_id and (job.properties.reply_to or self._results_exchange):
            return None
        return "that no answer can go to"

    def _work(self, job: Job, body: bytes) -> None:
        def task() -> Task:
            headers, variables = job.properties.headers or {}, variables_of(body)
            say = partial(self._post, job)
            return Task(job.handler.topic, headers, variables, say, lambda: job.gone)

        def finish(coroutine: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

        self._post(job, job.handler.attempt(task, finish))

    def _post(self, job: Job, outcome: Outcome) -> None:
        self._outbox.append((job, outcome))
        self._wake()

    def _wake(self) -> None:
        with suppress(*LOST):
            if self._connection is not None:
                self._connection.add_callback_threadsafe(lambda: None)

    def _send(self, *, last: bool = False) -> None:
        for _ in range(len(self._outbox)):
            job, outcome = self._outbox[0]
            if self._hand.get(job.key) is job:
                lane = self._lanes[job.handler.topic]
                if monotonic() < lane.answer_at and not last:
                    self._outbox.rotate(-1)
                    continue
                try:
                    for _ in job.tags[1:]:  # of two copies in hand each one is answered
                        self._publish(job, outcome)
                    self._publish(job, outcome)
                except REFUSED as error:
                    self._refused(lane, job, error)
                    continue
                lane.answer_at = 0.0
                self._settle(job, outcome)
            self._outbox.popleft()

    def _publish(self, job: Job, outcome: Outcome) -> None:
        if not self._out.is_open:
            self._open_out()
        # Half a character in an exception's text would be no JSON.
        body = json.dumps(outcome.body, ensure_ascii=False).encode(errors="replace")
        headers, token = {"outcome": outcome.outcome}, job.properties.correlation_id
        echo = pika.BasicProperties(
            "application/json", headers=headers, delivery_mode=2, correlation_id=token
        )
        exchange = self._results_exchange
        key = job.handler.topic if exchange else job.properties.reply_to
        self._out.basic_publish(exchange, key, body, echo, mandatory=True)

    def _refused(self, lane: Lane, job: Job, error: AMQPError) -> None:
        why = getattr(error, "reply_text", "no queue takes the answer")
        if "message size" in why:
            log.error("%s: the answer is too large: %s", job.key, why)
            said = {"errorMessage": f"the answer is larger than RabbitMQ takes: {why}"}
            self._outbox[0] = (job, Outcome("failure", {**said, "retries": 0}))
            job.gone = True  # a function that only told its progress has nobody to answer to
            return
        if not lane.answer_at:
            log.error("%s: answer refused, trying again: %s", job.handler.topic, why)
        lane.answer_at = monotonic() + AGAIN_SECONDS
        self._outbox.rotate(-1)

    def _settle(self, job: Job, outcome: Outcome) -> None:
        done = outcome.outcome != "extendLock"
        if done and not job.tags and not job.early:  # its copy is yet to come, to somebody
            remember(self._answered, job.key, outcome)
        until = monotonic() - job.since + outcome.body.get("newDuration", 0) / 1000
        if done or (until > self._consumer_timeout and not job.early):
            self._acknowledge(job, done=done)
        log.info("%s %s", outcome.outcome, job.key)

    def _acknowledge(self, job: Job, *, done: bool) -> None:
        lane = self._lanes[job.handler.topic]
        makes_room = done and job.consumer is not None and job.consumer == lane.consumer
        if not makes_room:  # RabbitMQ's window and ours differ: a new consumer has the right one
            self._cancel(lane)
        for tag in job.tags:
            lane.channel.basic_ack(tag)
        job.tags, job.consumer, job.early = [], None, not done
        if done:
            del self._hand[job.key]
        if not makes_room:
            self._consume(lane)


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
