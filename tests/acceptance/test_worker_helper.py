"""The Python helper: on a real RabbitMQ, and through the bridge on a real engine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from bridge.worker import BpmnError, Retry, Task, Worker, answering, lane
from deploy.local import choice
from deploy.local.programs import PartError
from deploy.local.rabbitmq import BrokerNode, start_rabbitmq
from tests.acceptance.test_broker_faults import sync
from tests.conftest import missing
from tests.support.amqp import Amqp, Message
from tests.support.broker_faults import patience
from tests.support.engine import EngineRest
from tests.support.hasty_bridge import HASTY
from tests.support.proxy import Proxy
from tests.support.roles import limited_user, manage
from tests.support.stage import Stage
from tests.support.waiting import eventually, throughout

SAMPLES = Path(__file__).parents[2] / "consumers" / "python"
LIMIT = 40.0
QUORUM = {"x-queue-type": "quorum"}
STEPS = (25, 50, 75, 99)
STEP_SECONDS = 6


@contextmanager
def running(worker: Worker) -> Iterator[None]:
    """The worker in a thread; its error fails the test, and so does a stop that never ends."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 (raised again where the test can see it)
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(LIMIT)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


class Desk:
    """The bridge's side of a virtual host, by hand: sends tasks on queue `t`, takes answers."""

    def __init__(self, url: str, *, reply_to: str = "answers") -> None:
        self.url, self.amqp, self._reply_to = url, Amqp(url), reply_to
        for queue in ("t", "answers"):
            self.amqp.channel.queue_declare(queue, durable=True, arguments=QUORUM)
        self.amqp.channel.exchange_declare("bridge.gone", "topic", durable=True)
        self.answers: list[Message] = []

    def send(
        self, *names: str, body: bytes | None = None, queue: str = "t", **properties: Any
    ) -> None:
        """A task per name, which is its task id and the variable `name`."""
        for name in names:
            task = {"taskId": name, "variables": {"name": name}}
            known = {
                "message_id": f"{name}:-",
                "correlation_id": f"token-{name}",
                "reply_to": self._reply_to,
                "headers": {"taskId": name},
            }
            sent = json.dumps(task).encode() if body is None else body
            self.amqp.send("", queue, sent, **known | properties)

    def gone(self, name: str, **properties: Any) -> None:
        self.amqp.send("bridge.gone", "t", json.dumps({"taskId": name}).encode(), **properties)

    def ready(self) -> int | None:
        return self.amqp.count("t")

    def was_answered(self, answer: str) -> bool:
        return answer in self.answered(0)

    def answered(self, count: int) -> list[str]:
        """Wait for so many answers in all; the outcomes of all that came, by task."""

        def enough() -> bool:
            self.answers += self.amqp.drain("answers")
            return len(self.answers) >= count

        eventually(enough, LIMIT, what=f"{count} answers")
        return sorted(
            f"{a.properties.correlation_id.removeprefix('token-')} {a.headers['outcome']}"
            for a in self.answers
        )


@pytest.fixture
def desk(amqp_url: str) -> Iterator[Desk]:
    desk = Desk(amqp_url)
    with desk.amqp:
        yield desk


class Work:
    """A function's calls, which stay open until `release`."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.open, self.most = 0, 0
        self._released = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, name: str) -> dict[str, Any]:
        with self._lock:
            self.begun.append(name)
            self.open += 1
            self.most = max(self.most, self.open)
        assert self._released.wait(LIMIT)
        with self._lock:
            self.open -= 1
        return {"did": name}

    def release(self) -> None:
        self._released.set()


# -- as many as the prefetch -----------------------------------------------------------------------


def test_as_many_tasks_run_at_once_as_the_prefetch_says(desk: Desk) -> None:
    """One slow task must not hold up the others, and no worker may take all there are."""
    worker, work = Worker(desk.url, prefetch=3), Work()
    worker.task("t")(work)
    desk.send(*"abcde")

    with running(worker):
        eventually(lambda: work.open == 3, LIMIT)
        assert desk.ready() == 2
        work.release()
        assert desk.answered(5) == [f"{name} complete" for name in "abcde"]

    assert work.most == 3


def test_async_functions_share_one_event_loop(desk: Desk) -> None:
    """Ten requests that wait for a network need one thread of theirs, and may share a client."""
    worker, loops = Worker(desk.url, prefetch=3), set()
    meeting = asyncio.Barrier(3)

    @worker.task("t")
    async def meet(name: str) -> dict[str, str]:
        loops.add(asyncio.get_running_loop())
        await asyncio.wait_for(meeting.wait(), LIMIT)
        return {"met": name}

    desk.send(*"abc")
    with running(worker):
        desk.answered(3)

    assert len(loops) == 1


def test_long_progress_acknowledges_and_still_counts_as_a_task_in_hand(desk: Desk) -> None:
    """Silent for longer than the consumer timeout.  RabbitMQ thinks that there is room for another
    one: taking it would have it wait here for an hour while other workers are idle.
    """
    worker, work = Worker(desk.url, prefetch=1), Work()

    @worker.task("t")
    def long(name: str, task: Task) -> dict[str, Any]:
        task.progress({"percent": 1}, for_=timedelta(minutes=40))
        return work(name)

    desk.send("a", "b")
    with running(worker):
        assert desk.answered(1) == ["a extendLock"]
        throughout(lambda: desk.ready() == 1, 1)
        assert work.begun == ["a"]
        work.release()
        assert desk.answered(4) == ["a complete", "a extendLock", "b complete", "b extendLock"]

    assert desk.answers[0].json == {"newDuration": 2_400_000, "variables": {"percent": 1}}
    assert work.most == 1


# -- what is answered ------------------------------------------------------------------------------


def test_an_answer_is_durable_and_says_whose_it_is(desk: Desk) -> None:
    """A restart of the broker must not lose it."""
    worker = Worker(desk.url)
    worker.task("t")(lambda name: {"did": name})
    desk.send("a")

    with running(worker):
        desk.answered(1)

    answer = desk.answers[0]
    assert (answer.properties.delivery_mode, answer.properties.correlation_id) == (2, "token-a")
    assert answer.json == {"variables": {"did": "a"}}


def test_an_answer_that_no_queue_takes_is_kept_until_one_does(amqp_url: str) -> None:
    """A default exchange confirms and drops what has no queue; the task would hang for a day."""
    desk = Desk(amqp_url, reply_to="later")
    worker, work = Worker(amqp_url), Work()
    worker.task("t")(work)
    work.release()
    desk.send("a")

    with desk.amqp, running(worker):
        eventually(lambda: work.begun == ["a"] and work.open == 0, LIMIT)
        desk.amqp.channel.queue_declare("later", durable=True, arguments=QUORUM)
        answer = eventually(lambda: desk.amqp.get("later"), LIMIT)

    assert answer is not None
    assert answer.properties.correlation_id == "token-a"
    assert work.begun == ["a"]


@contextmanager
def largest_message(node: BrokerNode, size: int) -> Iterator[None]:
    """What RabbitMQ takes at most, on channels that are opened meanwhile."""
    before = node.ctl("eval", "element(2, application:get_env(rabbit, max_message_size)).").strip()
    setting = "application:set_env(rabbit, max_message_size, {})."
    node.ctl("eval", setting.format(size))
    try:
        yield
    finally:
        node.ctl("eval", setting.format(before))


def test_an_answer_that_is_too_large_is_a_failure_and_stops_no_other(
    desk: Desk, broker_node: choice.Broker
) -> None:
    """RabbitMQ closes the channel: tried again it would be refused for ever, and whatever is behind
    it would wait as long.
    """
    worker = Worker(desk.url)

    @worker.task("t")
    def fill(name: str, task: Task) -> dict[str, str]:
        if name == "progress":
            task.progress({"all": "x" * 5000})
            eventually(task.is_gone, LIMIT)
        return {"all": "x" * (10 if name == "small" else 5000)}

    with largest_message(cast(BrokerNode, broker_node), 4000), running(worker):
        desk.send("large", "progress", "small")
        assert desk.answered(3) == ["large failure", "progress failure", "small complete"]

    refused = next(a.json for a in desk.answers if a.headers["outcome"] == "failure")
    assert refused["retries"] == 0
    assert "the answer is larger than RabbitMQ takes" in refused["errorMessage"]
    assert "4000" in refused["errorMessage"]
    assert desk.ready() == 0


def test_answers_wait_for_the_results_exchange(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bridge that declares it may start last; the log says what is missing, once."""
    monkeypatch.setattr(answering, "AGAIN_SECONDS", 0.1)
    worker, work = Worker(desk.url, results_exchange="results"), Work()
    worker.task("t")(work)
    work.release()
    desk.send("a", "b")

    with running(worker):
        eventually(lambda: "t: answer refused, trying again: NOT_FOUND" in caplog.text, LIMIT)
        throughout(lambda: caplog.text.count("answer refused") == 1, 2)
        desk.amqp.channel.exchange_declare("results", "topic", durable=True)
        desk.amqp.channel.queue_bind("answers", "results", "#")
        assert desk.answered(2) == ["a complete", "b complete"]

    assert sorted(work.begun) == ["a", "b"]


def test_a_topic_whose_answers_are_refused_holds_up_no_other(
    desk: Desk, broker_node: choice.Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker's rights are given by topic; one that was forgotten is that topic's affair."""
    desk.amqp.channel.exchange_declare("results", "topic", durable=True)
    desk.amqp.channel.queue_bind("answers", "results", "#")
    desk.amqp.channel.queue_declare("fenced", durable=True, arguments=QUORUM)
    url = limited_user(broker_node, desk.url)
    user, vhost = urlsplit(url).username, urlsplit(url).path[1:]

    def may_answer(topics: str) -> None:
        fence = {"exchange": "results", "write": topics, "read": ".*"}
        manage(broker_node, "PUT", f"topic-permissions/{vhost}/{user}", fence)

    worker = Worker(url, results_exchange="results")
    for topic in ("fenced", "t"):
        worker.task(topic)(lambda name: {"did": name})
    may_answer("^t$")
    desk.send("a", queue="fenced")

    with running(worker):
        refused = "fenced: answer refused, trying again: ACCESS_REFUSED"
        eventually(lambda: refused in caplog.text, LIMIT)
        desk.send("b", "c")
        assert desk.answered(2) == ["b complete", "c complete"]
        may_answer("^(t|fenced)$")
        assert desk.answered(3) == ["a complete", "b complete", "c complete"]


def test_a_body_that_is_no_json_fails_at_once_and_disturbs_nobody(desk: Desk) -> None:
    """Trying it again cannot help, and whatever is behind it in the queue is done."""
    worker = Worker(desk.url)
    worker.task("t")(lambda name: {"did": name})
    desk.send("bad", body=b"{")
    desk.send("good")

    with running(worker):
        assert desk.answered(2) == ["bad failure", "good complete"]

    bad = next(a.json for a in desk.answers if a.headers["outcome"] == "failure")
    assert bad == {"errorMessage": "the body of the message is no JSON object", "retries": 0}


def test_a_message_that_nobody_waits_for_is_rejected(desk: Desk) -> None:
    """Without `reply_to` it is not from the bridge: neither worked nor sent round in circles."""
    worker, work = Worker(desk.url), Work()
    worker.task("t")(work)
    work.release()
    desk.send("stray", reply_to=None)
    desk.send("a")

    with running(worker):
        desk.answered(1)

    assert work.begun == ["a"]
    assert desk.ready() == 0


def test_a_message_of_another_topic_is_rejected(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """In the wrong queue by somebody's mistake: its answer would be a wrong one."""
    worker, work = Worker(desk.url), Work()
    worker.task("t")(work)
    work.release()
    desk.send("stray", type="another")
    desk.send("a", type="t")
    desk.send("b")

    with running(worker):
        assert desk.answered(2) == ["a complete", "b complete"]

    assert sorted(work.begun) == ["a", "b"]
    assert desk.ready() == 0
    assert "t: rejected a message of topic 'another'" in caplog.text


def test_two_copies_of_one_attempt_are_worked_once(desk: Desk) -> None:
    """Every copy of an attempt has its message id; the second one gets the first's answer too."""
    worker, work = Worker(desk.url, prefetch=2), Work()
    worker.task("t")(work)
    desk.send("a", "a", "b")

    with running(worker):
        eventually(lambda: desk.ready() == 1, LIMIT)
        work.release()
        assert desk.answered(3) == ["a complete", "a complete", "b complete"]

    assert sorted(work.begun) == ["a", "b"]
    assert desk.ready() == 0


# -- the connection is lost ------------------------------------------------------------------------


@pytest.fixture
def proxy(amqp_url: str) -> Iterator[Proxy]:
    with Proxy(amqp_url) as proxy:
        yield proxy


def test_work_that_outlives_its_connection_is_done_once(desk: Desk, proxy: Proxy) -> None:
    """RabbitMQ delivers again what was in hand; the function that still runs answers for both, and
    until it ends it counts as in hand.
    """
    worker, work = Worker(proxy.url, prefetch=1), Work()
    worker.task("t")(work)
    desk.send("a", "b")

    with running(worker):
        eventually(lambda: work.begun == ["a"], LIMIT)
        accepted = proxy.accepted
        proxy.reset()
        eventually(lambda: proxy.accepted > accepted, LIMIT, what="another connection")
        work.release()
        eventually(lambda: set(desk.answered(1)) == {"a complete", "b complete"}, LIMIT)

    assert work.begun == ["a", "b"]
    assert work.most == 1
    assert desk.ready() == 0


def test_work_that_ends_while_the_broker_is_away_is_not_done_again(
    desk: Desk, proxy: Proxy
) -> None:
    """Its answer waits for the next connection and is given once more to the redelivered copy: the
    bridge takes the first.
    """
    worker, work = Worker(proxy.url), Work()
    worker.task("t")(work)
    desk.send("a")

    with running(worker):
        eventually(lambda: work.begun == ["a"], LIMIT)
        proxy.refuse()
        work.release()
        eventually(lambda: work.open == 0, LIMIT)
        eventually(lambda: desk.ready() == 1, LIMIT, what="RabbitMQ has taken it back")
        proxy.heal()
        assert set(desk.answered(1)) == {"a complete"}
        eventually(lambda: desk.ready() == 0, LIMIT)
        desk.send("b")
        eventually(lambda: "b complete" in desk.answered(2), LIMIT)

    assert work.begun == ["a", "b"]
    assert desk.ready() == 0


def test_a_queue_that_is_not_there_is_waited_for_while_others_are_worked(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Worker and bridge start in any order, and the bridge declares the queues; one that is deleted
    comes back.
    """
    worker = Worker(desk.url)
    worker.task("t")(lambda name: {"did": name})
    worker.task("late")(lambda name: {"late": name})
    desk.send("a")

    with running(worker):
        assert desk.answered(1) == ["a complete"]
        for count, name in enumerate("bc", 1):
            eventually(lambda: caplog.text.count("late: no longer consuming") >= count, LIMIT)  # noqa: B023
            desk.amqp.channel.queue_declare("late", durable=True, arguments=QUORUM)
            desk.send(name, queue="late")
            eventually(partial(desk.was_answered, f"{name} complete"), LIMIT)
            desk.amqp.channel.queue_delete("late")
        desk.send("d")
        desk.answered(4)


def test_a_message_held_longer_than_rabbitmq_allows_costs_the_other_topics_nothing(
    broker_node: choice.Broker, amqp_url: str
) -> None:
    """Without progress() the consumer timeout takes the message back: what comes again is what is
    in hand, and gets its answer.
    """
    work = Work()
    with patience(cast(BrokerNode, broker_node), 1000):
        desk, worker = Desk(amqp_url), Worker(amqp_url, prefetch=2)
        desk.amqp.channel.queue_declare("slow", durable=True, arguments=QUORUM)
        worker.task("slow")(work)
        worker.task("t")(lambda name: {"did": name})
        desk.send("a", queue="slow")

        with desk.amqp, running(worker):
            eventually(lambda: work.begun == ["a"], LIMIT)
            # RabbitMQ looks every half second.
            throughout(lambda: work.begun == ["a"], 3)
            desk.send("b")
            assert desk.answered(1) == ["b complete"]
            work.release()
            assert set(desk.answered(2)) == {"a complete", "b complete"}
            eventually(lambda: desk.amqp.count("slow") == 0, LIMIT)

    assert work.begun == ["a"]


def test_a_message_that_is_taken_back_while_its_answer_goes_out_is_not_worked_again(
    desk: Desk, broker_node: choice.Broker, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of its channel arrives before the confirm: nothing can be acknowledged there any
    more.  The topic alone begins again, and the copy gets the same answer.
    """
    worker, work = Worker(proxy.url), Work()
    worker.task("slow")(work)
    # A quorum queue has its message back when the client has answered the channel's end, this one
    # at once.
    desk.amqp.channel.queue_declare("slow", durable=True, arguments={"x-queue-type": "classic"})
    with patience(cast(BrokerNode, broker_node), 2000), running(worker):
        eventually(lambda: desk.amqp.consumers("slow") == 1, LIMIT)
        desk.send("a", queue="slow")
        eventually(lambda: work.begun == ["a"], LIMIT)
        proxy.mute = True
        eventually(lambda: desk.amqp.count("slow") == 1, LIMIT, what="RabbitMQ has taken it back")
        work.release()
        assert desk.answered(1) == ["a complete"]
        proxy.mute = False
        assert desk.answered(2) == ["a complete", "a complete"]
        eventually(lambda: desk.amqp.count("slow") == 0, LIMIT)

    assert work.begun == ["a"]
    assert caplog.text.count("slow: no longer consuming") == 1
    assert proxy.accepted == 1


def test_a_queue_that_is_deleted_during_an_early_acknowledgement_is_its_topic_s_affair(
    desk: Desk, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """A new consumer follows that acknowledgement, on a queue that is not there any more."""
    worker, work, told = Worker(proxy.url), Work(), threading.Event()
    desk.amqp.channel.queue_declare("u", durable=True, arguments=QUORUM)

    @worker.task("t")
    def long(name: str, task: Task) -> dict[str, Any]:
        assert told.wait(LIMIT)
        task.progress(for_=timedelta(hours=1))
        return work(name)

    worker.task("u")(lambda name: {"did": name})
    desk.send("a")
    with running(worker):
        eventually(lambda: desk.amqp.consumers("u") == 1 and desk.ready() == 0, LIMIT)
        proxy.mute = True
        desk.amqp.channel.queue_delete("t")
        told.set()
        assert desk.answered(1) == ["a extendLock"]
        proxy.mute = False
        eventually(lambda: "t: no longer consuming" in caplog.text, LIMIT)
        desk.send("b", queue="u")
        work.release()
        assert desk.answered(3) == ["a complete", "a extendLock", "b complete"]

    assert proxy.accepted == 1


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerNode]:
    """A node that the test may kill."""
    try:
        started = start_rabbitmq(base_dir=tmp_path)
    except PartError as error:
        missing(error)
        raise
    with started:
        yield started


def test_work_in_hand_outlives_a_crash_of_the_broker(
    own_broker: BrokerNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed and started again, RabbitMQ delivers what was not acknowledged; what this process has
    in hand it does not begin again, and what ends meanwhile is answered afterwards.
    """
    worker, work = Worker(own_broker.url), Work()
    worker.task("t")(work)
    desk = Desk(own_broker.url)
    with desk.amqp:
        desk.send("a")
    sync(own_broker)

    with running(worker):
        eventually(lambda: work.begun == ["a"], LIMIT)
        own_broker.kill()
        eventually(lambda: "no connection to RabbitMQ" in caplog.text, LIMIT)
        work.release()
        eventually(lambda: work.open == 0, LIMIT)
        own_broker.restart()
        desk.amqp = Amqp(own_broker.url)
        with desk.amqp:
            eventually(partial(desk.was_answered, "a complete"), LIMIT)
            eventually(lambda: desk.ready() == 0, LIMIT)
            desk.send("b")
            eventually(partial(desk.was_answered, "b complete"), LIMIT)

    assert work.begun == ["a", "b"]


# -- stop ------------------------------------------------------------------------------------------


def test_a_stop_finishes_what_is_in_hand_and_takes_no_more(desk: Desk) -> None:
    """A deployment must not cost a redelivery."""
    worker, work = Worker(desk.url, prefetch=1), Work()
    worker.task("t")(work)
    desk.send("a", "b")

    with running(worker):
        eventually(lambda: work.begun == ["a"], LIMIT)
        worker.stop()
        work.release()

    assert desk.answered(1) == ["a complete"]
    assert work.begun == ["a"]
    waiting = desk.amqp.get("t")
    assert waiting is not None
    assert (waiting.json["taskId"], waiting.redelivered) == ("b", False)


def test_what_a_stop_cannot_wait_for_goes_back(desk: Desk) -> None:
    """To the queue; and to the engine, where the message is acknowledged already and nobody else
    would ever hear of the task.
    """
    worker, work = Worker(desk.url, prefetch=2, stop_grace=0.2), Work()

    @worker.task("t")
    def long(name: str, task: Task) -> dict[str, Any]:
        if name == "acknowledged":
            task.progress(for_=timedelta(hours=1))
        return work(name)

    desk.send("acknowledged", "held")
    with running(worker):
        desk.answered(1)
        eventually(lambda: work.open == 2, LIMIT)

    assert desk.answered(2) == ["acknowledged extendLock", "acknowledged unlock"]
    back = desk.amqp.get("t")
    assert back is not None
    assert back.json["taskId"] == "held"
    work.release()


def test_a_stop_sends_what_is_ready_although_it_was_refused_a_moment_ago(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done: what is given back would be done twice."""
    monkeypatch.setattr(answering, "AGAIN_SECONDS", 1000)
    worker, work = Worker(desk.url, stop_grace=0.2), Work()
    worker.task("t")(work)
    work.release()
    desk.send("hopeless", reply_to="nowhere")

    with running(worker):
        eventually(lambda: "t: answer refused" in caplog.text, LIMIT)
        desk.send("a", reply_to="later")
        eventually(lambda: work.begun == ["hopeless", "a"] and work.open == 0, LIMIT)
        desk.amqp.channel.queue_declare("later", durable=True, arguments=QUORUM)

    assert desk.amqp.count("later") == 1
    back = desk.amqp.get("t")
    assert back is not None
    assert back.json["taskId"] == "hopeless"
    assert desk.ready() == 0


def test_a_stop_gives_back_the_others_where_one_cannot_be(desk: Desk) -> None:
    """Acknowledged as they are, nobody else would hear of them before the deadline."""
    worker, work = Worker(desk.url, stop_grace=0.2), Work()
    desk.amqp.channel.queue_declare("doomed", durable=True, arguments=QUORUM)

    @worker.task("t")
    def long(name: str, task: Task) -> dict[str, Any]:
        task.progress(for_=timedelta(hours=1))
        return work(name)

    desk.send("a", reply_to="doomed")
    with running(worker):
        eventually(lambda: desk.amqp.count("doomed") == 1, LIMIT)
        desk.send("b")
        assert desk.answered(1) == ["b extendLock"]
        eventually(lambda: work.open == 2, LIMIT)
        desk.amqp.channel.queue_delete("doomed")

    assert desk.answered(2) == ["b extendLock", "b unlock"]
    work.release()


# -- tasks that are gone ---------------------------------------------------------------------------


def test_a_task_that_is_gone_is_dropped_unseen_and_long_work_can_ask(desk: Desk) -> None:
    """Work for a cancelled process is wasted, and its effects may be wrong."""
    worker, begun, ended = Worker(desk.url, prefetch=1), [], threading.Event()

    @worker.task("t")
    def long(name: str, task: Task) -> None:
        begun.append(name)
        if name == "a":
            eventually(task.is_gone, LIMIT)
            ended.wait(LIMIT)

    desk.send("a", "b", "c", timestamp=1)
    with running(worker):
        eventually(lambda: begun == ["a"], LIMIT)
        desk.gone("b")
        desk.amqp.send("bridge.gone", "t", b"nonsense")
        desk.gone("a")
        ended.set()
        assert desk.answered(2) == ["a complete", "c complete"]

    assert begun == ["a", "c"]


def test_a_task_that_is_published_again_after_its_notice_is_worked(desk: Desk) -> None:
    """The notice was wrong, or an operator brought the task back: nobody else would ever do it.
    Messages and notices tell whole seconds, so within one it may be so.
    """
    worker, work = Worker(desk.url, prefetch=1), Work()
    heard = threading.Event()

    @worker.task("t")
    def take(task: Task) -> dict[str, Any]:
        if task.headers["taskId"] == "first":
            eventually(task.is_gone, LIMIT)
            heard.set()
            return {}
        assert not task.is_gone()
        return work(task.headers["at"])

    desk.send("first")
    work.release()
    with running(worker):
        eventually(lambda: desk.amqp.consumers("t") == 1 and desk.ready() == 0, LIMIT)
        desk.gone("a", timestamp=100)
        desk.gone("first")
        assert heard.wait(LIMIT)
        for at in (99, 100, 101):
            headers = {"taskId": "a", "at": str(at)}
            desk.send("a", message_id=f"a:{at}", timestamp=at, headers=headers)
        assert desk.answered(3) == ["a complete", "a complete", "first complete"]

    assert work.begun == ["100", "101"]


NO_NOTICES = "no notices of gone tasks of t: "


@pytest.mark.parametrize("lacks", ["right", "exchange"])
def test_without_notices_of_gone_tasks_the_work_goes_on(
    desk: Desk,
    broker_node: choice.Broker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lacks: str,
) -> None:
    """They are a courtesy: whoever may not declare a queue, or has no bridge, works as well, and
    the log says so once.
    """
    monkeypatch.setattr(lane, "AGAIN_SECONDS", 0.1)
    url, prefix, code = {
        "right": (limited_user(broker_node, desk.url, configure="^$"), "bridge", "ACCESS_REFUSED"),
        "exchange": (desk.url, "no-such-bridge", "NOT_FOUND"),
    }[lacks]
    worker = Worker(url, prefix=prefix)
    worker.task("t")(lambda name: {"did": name})
    desk.send("a")

    with running(worker):
        assert desk.answered(1) == ["a complete"]
        throughout(lambda: caplog.text.count(NO_NOTICES) == 1, 2)

    assert f"{NO_NOTICES}{code}" in caplog.text


def test_a_bridge_that_starts_after_its_workers_is_heard(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """It declares the exchange of its notices; a worker may hold one connection for months."""
    worker, begun = Worker(desk.url, prefix="late"), threading.Event()

    @worker.task("t")
    def long(task: Task) -> None:
        begun.set()
        eventually(task.is_gone, LIMIT)

    def is_told() -> bool:
        desk.amqp.send("late.gone", "t", b'{"taskId": "a"}')
        return desk.was_answered("a complete")

    with running(worker):
        eventually(lambda: f"{NO_NOTICES}NOT_FOUND" in caplog.text, LIMIT)
        desk.amqp.channel.exchange_declare("late.gone", "topic", durable=True)
        desk.send("a")
        assert begun.wait(LIMIT)
        eventually(is_told, LIMIT)


# -- the sample ------------------------------------------------------------------------------------


def started(sample: str, url: str, **environment: str) -> subprocess.Popen[str]:
    root = str(SAMPLES.parents[1])
    return subprocess.Popen(
        [sys.executable, str(SAMPLES / sample)],
        env={**os.environ, "AMQP_URL": url, "PYTHONPATH": root, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_signal_ends_the_sample_after_what_it_has_in_hand(desk: Desk) -> None:
    """As systemd, Docker and Kubernetes stop it; the exit code tells them that all is well."""
    desk.amqp.channel.queue_declare("transcodeVideo", durable=True, arguments=QUORUM)
    body = json.dumps({"taskId": "v", "variables": {"video": "film"}}).encode()
    desk.amqp.channel.queue_declare("payment-processing", durable=True, arguments=QUORUM)
    desk.amqp.send(
        "", "transcodeVideo", body, correlation_id="token-v", reply_to="answers", message_id="v:-"
    )

    process = started("helper_worker.py", desk.url, STEP_SECONDS="0.5")
    try:
        assert desk.answered(1) == ["v extendLock"]
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()

    assert process.returncode == 0, said
    assert desk.answered(4) == ["v complete", *["v extendLock"] * 3]


def test_a_pending_payment_of_a_killed_sample_is_another_one_s_at_once(desk: Desk) -> None:
    """Progress within the consumer timeout keeps the message: without it only the deadline would
    bring the task back.
    """
    desk.amqp.channel.queue_declare("payment-processing", durable=True, arguments=QUORUM)
    body = json.dumps({"taskId": "p", "variables": {"amount": 202, "currency": None}}).encode()
    desk.send("p", queue="payment-processing", type="payment-processing", body=body)

    first = started("helper_worker.py", desk.url, PENDING_SECONDS="3600")
    try:
        assert desk.answered(1) == ["p extendLock"]
    finally:
        first.kill()
        first.communicate(timeout=LIMIT)
    second = started("helper_worker.py", desk.url, PENDING_SECONDS="0")
    try:
        assert desk.answered(3) == ["p complete", "p extendLock", "p extendLock"]
    finally:
        second.kill()
        said, _ = second.communicate(timeout=LIMIT)

    assert desk.answers[0].json["variables"] == {"paymentStatus": "pending"}
    assert desk.answers[2].json == {"variables": {"paymentStatus": "202 EUR"}}
    assert "complete p:-" in said


# -- through the bridge ----------------------------------------------------------------------------

TOPICS: dict[str, dict[str, Any]] = {"pay": {}, "fenced": {}, "full": {"max_in_flight": 1}}


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS) as stage:
        yield stage


def integer(value: int) -> dict[str, Any]:
    return {"value": value, "type": "Integer"}


@pytest.fixture(scope="module")
def payments(stage: Stage) -> Iterator[Worker]:
    """A worker that has every outcome."""
    worker = Worker(stage.url)

    @worker.task(stage.names["pay"])
    def pay(amount: int, currency: str = "EUR") -> dict[str, Any]:
        if amount > 1000:
            raise BpmnError("DECLINED", "no funds", {"missing": amount - 1000})
        if amount == 502:
            raise Retry("gateway busy", after=timedelta(hours=1))
        if amount == 503:
            raise ConnectionError("gateway down")
        return {"paid": f"{amount} {currency}"}

    with running(worker):
        yield worker


@pytest.mark.usefixtures("payments")
def test_a_dict_becomes_variables_of_the_process(stage: Stage) -> None:
    """And a parameter that the process does not know has its default."""
    case = stage.begin("pay", {"amount": integer(7)})

    assert case.end() == "end"
    assert case.variables()["paid"] == {"value": "7 EUR", "type": "String"}


@pytest.mark.usefixtures("payments")
def test_a_bpmn_error_takes_its_boundary_event(stage: Stage) -> None:
    """With its variables: a business error is a path of the process."""
    case = stage.begin("pay", {"amount": integer(1012)}, error_codes=["DECLINED"])

    assert case.end() == "caught-DECLINED-1"
    assert case.variables()["missing"] == integer(12)


@pytest.mark.usefixtures("payments")
def test_retry_costs_an_attempt_and_names_the_pause(stage: Stage) -> None:
    """The topic's policy would try again after a second."""
    case = stage.begin("pay", {"amount": integer(502)})

    eventually(lambda: case.retries() == 2, LIMIT)
    throughout(lambda: case.retries() == 2, 2)
    task = case.task()
    assert task is not None
    assert task["errorMessage"] == "gateway busy"


@pytest.mark.usefixtures("payments")
def test_any_other_exception_is_tried_again_and_then_an_incident(stage: Stage) -> None:
    """An operator sees what was raised, and where."""
    case = stage.begin("pay", {"amount": integer(503)})

    assert case.incident() == "ConnectionError: gateway down"
    task = case.task()
    assert task is not None
    assert "in pay" in stage.engine.error_details(task["id"])


@pytest.mark.usefixtures("payments")
def test_a_variable_of_the_wrong_type_is_an_incident_at_once(stage: Stage) -> None:
    """Trying again cannot help; the message names the variable and not its value."""
    case = stage.begin("pay", {"amount": {"value": "secret", "type": "String"}})

    message = case.incident()

    assert message.startswith("variable amount: Input should be a valid integer")
    assert "secret" not in message


def test_a_worker_without_rights_on_queues_answers_by_the_results_exchange(stage: Stage) -> None:
    """Its user may be allowed no more than its own topic there."""
    worker = Worker(stage.url, results_exchange="bridge.results")
    worker.task(stage.names["fenced"])(lambda: {"via": "exchange"})
    case = stage.begin("fenced")

    with running(worker):
        assert case.end() == "end"

    assert case.variables()["via"]["value"] == "exchange"


def test_long_work_hears_that_its_instance_was_cancelled(stage: Stage) -> None:
    """The bridge's notice reaches the function that asks."""
    worker, begun, heard = Worker(stage.url), threading.Event(), threading.Event()

    @worker.task(stage.names["full"])
    def long(task: Task) -> None:
        begun.set()
        eventually(task.is_gone, LIMIT)
        heard.set()

    case = stage.begin("full")
    with running(worker):
        assert begun.wait(LIMIT)
        stage.engine.delete(case.instance)
        assert heard.wait(LIMIT)


# -- long work -------------------------------------------------------------------------------------


def taken_back(amqp: Amqp, queue: str) -> Callable[[], bool]:
    """Hold a message of the queue; whether RabbitMQ has lost its patience with that."""
    channel = amqp.channel
    eventually(lambda: channel.basic_get(queue)[0], LIMIT)

    def closed() -> bool:
        amqp.connection.process_data_events(0)
        return not channel.is_open

    return closed


def test_work_longer_than_every_time_limit_completes_once(
    engine: EngineRest, broker_node: choice.Broker, amqp_url: str
) -> None:
    """Longer than publish window, lease, deadline and consumer timeout: progress keeps the task its
    worker's, and the early acknowledgement the message.
    """
    worker, begun = Worker(amqp_url, prefetch=1, consumer_timeout=10), list[str]()
    film = {"video": {"value": "film", "type": "String"}}
    module = "tests.support.hasty_bridge"

    with (
        patience(cast(BrokerNode, broker_node), 10_000),  # any broker that can be controlled
        Stage(engine, amqp_url, {"film": {}}, module=module, topic_defaults=HASTY) as stage,
        Amqp(amqp_url) as impatient,
    ):

        @worker.task(stage.names["film"])
        async def transcode(video: str, task: Task) -> dict[str, str]:
            begun.append(video)
            for percent in STEPS:
                await asyncio.sleep(STEP_SECONDS)
                task.progress({"percent": percent})
            return {"transcoded": f"{video}.webm"}

        stage.amqp.channel.queue_declare("held")
        stage.amqp.send("", "held", b"")
        lost_patience = taken_back(impatient, "held")
        with running(worker):
            case = stage.begin("film", film)
            eventually(partial(engine.ended_at, case.instance), 90)

        assert lost_patience(), "the consumer timeout was not on"
        assert len(begun) == 1
        assert case.variables()["transcoded"]["value"] == "film.webm"
        assert stage.count("film", "confirmed") == 1
        assert not stage.amqp.count(case.topic)
