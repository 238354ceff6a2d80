"""The lines of `external-task-bridge permissions`, run by a shell against a real RabbitMQ: the
bridge can do all it must as its user, and a worker nothing beyond its own topic.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from pika.exceptions import ChannelClosedByBroker

from bridge import plan, task_message
from bridge.messages import LockedTask
from bridge.settings import load
from bridge.topics import Topic
from deploy.local import choice
from deploy.local.programs import PartError
from deploy.local.rabbitmq import PROGRAMS, BrokerNode
from tests.conftest import missing
from tests.consumers.stacks import CONSUMERS, celery_python, running, vhost
from tests.support.amqp import Amqp, Message
from tests.support.bridge import Bridge, settings, toml
from tests.support.engine import EngineRest, unique
from tests.support.roles import manage
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually

TOPICS: dict[str, dict[str, Any]] = {"pay": {}, "ship": {}, "gone": {"lease_after": "5s"}}


@dataclass
class Administrator:
    """Somebody with a shell and rabbitmqctl, who runs what the command prints."""

    node: BrokerNode
    directory: Path
    users: list[str] = field(default_factory=list)

    def rabbitmqctl(self) -> None:
        """Put a rabbitmqctl for this node where the shell finds it."""
        program = self.directory / "rabbitmqctl"
        real = f"{PROGRAMS}/rabbitmqctl --quiet --node {self.node.nodename}"
        program.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
        program.chmod(0o755)

    def obey(self, config: Path, *options: str, only: str = "") -> None:
        """Run the lines for these settings; or those of one user, who is there already."""
        printed = subprocess.run(
            [sys.executable, "-m", "bridge", "permissions", "--config", str(config), *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")},
        )
        lines = [line for line in printed.stdout.splitlines() if only in line]
        done = subprocess.run(
            ["sh", "-u" if only else "-eu"],
            input="\n".join(lines),
            cwd=self.directory,
            env={**self.node._environment, "PATH": f"{self.directory}:{os.environ['PATH']}"},
            text=True,
            timeout=100,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def url(self, user: str, amqp_url: str) -> str:
        """The virtual host as this user, with the password that the lines have made."""
        password = (self.directory / f"{user}.password").read_text().strip()
        parts = urlsplit(amqp_url)
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}").geturl()


@dataclass(frozen=True)
class Fenced:
    """A bridge under a user of its own, and the workers of two topics."""

    stage: Stage
    administrator: Administrator
    bridge_user: str
    tables: dict[str, Any]

    def worker(self, topic: str) -> Amqp:
        user = f"worker-{self.stage.names[topic]}"
        return Amqp(self.administrator.url(user, self.stage.url))


@pytest.fixture(scope="module")
def administrator(
    broker_node: choice.Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Administrator]:
    if not isinstance(broker_node, BrokerNode):
        missing(PartError("a broker whose rabbitmqctl can be run: unset AMQP_URL"))
        raise TypeError("CI has a node of its own")
    administrator = Administrator(broker_node, tmp_path_factory.mktemp("administrator"))
    administrator.rabbitmqctl()
    yield administrator
    for user in administrator.users:
        manage(broker_node, "DELETE", f"users/{user}")


@pytest.fixture(scope="module")
def fenced(
    administrator: Administrator, engine: EngineRest, shared_amqp_url: str
) -> Iterator[Fenced]:
    user = unique("bridge")
    password = administrator.directory / f"{user}.password"
    password.write_text("chosen by the administrator\n")
    broker = {"username": user, "password_file": str(password)}

    def prepare(stage: Stage) -> None:
        administrator.users += [user, *(f"worker-{name}" for name in stage.names.values())]
        administrator.obey(stage.bridge.config)

    with Stage(engine, shared_amqp_url, TOPICS, broker=broker, prepare=prepare) as stage:
        named = {stage.names[short]: keys for short, keys in TOPICS.items()}
        tables = settings(engine.url, shared_amqp_url, named, broker=broker)
        yield Fenced(stage, administrator, user, tables)


# -- the bridge ----------------------------------------------------------------------------------


def every_outcome(stage: Stage) -> None:
    """One task for each way that a task can go, begun together."""
    cases = {
        outcome: stage.begin("pay", error_codes=("E1",) if outcome == "bpmnError" else ())
        for outcome in ("complete", "bpmnError", "failure", "progress", "unlock", "bad", "waits")
    }
    rejected = stage.begin("ship")
    messages = taken(stage, cases)
    eventually(lambda: stage.amqp.refuse(rejected.queue, requeue=False), what="a message to reject")
    stage.engine.suspend(cases["waits"].instance, True)
    before = stage.count("pay", "waiting")

    stage.answer(messages["waits"], {"n": 1})
    stage.answer(messages["complete"], {"n": 1})
    stage.answer(messages["bpmnError"], {"errorCode": "E1"}, "bpmnError")
    stage.answer(messages["failure"], {"errorMessage": "no", "retries": 1}, "failure")
    stage.answer(messages["progress"], {"newDuration": 1000, "variables": {"p": 1}}, "extendLock")
    stage.answer(messages["unlock"], {}, "unlock")
    stage.answer(messages["bad"], b"{bad")

    assert cases["complete"].end() == "end"
    assert cases["bpmnError"].end() == "caught-E1-1"
    assert cases["bad"].incident().startswith("bad-json")
    stage.parked(messages["bad"].properties.correlation_id)
    eventually(lambda: "p" in cases["progress"].variables(), what="progress")
    stage.answer(messages["progress"])
    for again in taken(stage, {k: cases[k] for k in ("failure", "unlock")}).values():
        stage.answer(again)
    eventually(lambda: rejected.retries() == 2, 60, what="a rejection is a failure")
    stage.answer(rejected.message())
    eventually(lambda: stage.count("pay", "waiting") >= before + 2, 60, what="it has come back")
    stage.engine.suspend(cases["waits"].instance, False)
    for case in (rejected, *(cases[k] for k in ("progress", "failure", "unlock", "waits"))):
        assert case.end() == "end"


def taken(stage: Stage, cases: dict[str, Case]) -> dict[str, Message]:
    """The next message of each case, all from the same queue."""
    wanted = {case.instance: name for name, case in cases.items()}
    found: dict[str, Message] = {}

    def look() -> bool:
        for message in stage.amqp.drain(stage.names["pay"]):
            name = wanted.get(message.headers["processInstanceId"])
            if name is not None:
                found[name] = message
        return len(found) == len(cases)

    eventually(look, 60, what="a message for each task")
    return found


def test_the_bridge_can_do_all_it_must(fenced: Fenced) -> None:
    """With `declare = "missing"` on an empty virtual host, and with no right beyond the lines."""
    every_outcome(fenced.stage)

    refused = [line for line in fenced.stage.bridge.log() if "ACCESS_REFUSED" in str(line)]
    assert refused == []


def test_the_bridge_is_no_administrator(fenced: Fenced) -> None:
    """Whoever steals its password gets nothing but its queues."""
    url = fenced.administrator.url(fenced.bridge_user, fenced.stage.url)
    with Amqp(url) as bridge:
        for act in (
            lambda: bridge.channel.queue_declare("another", durable=True),
            lambda: bridge.channel.exchange_declare("another", durable=True),
            lambda: bridge.channel.basic_get("bridge.parked"),
        ):
            assert refused_with(act) == 403


# -- workers -------------------------------------------------------------------------------------


def test_a_worker_takes_its_tasks_and_answers_them(fenced: Fenced) -> None:
    """By the results exchange: the default exchange is all queues or none."""
    case = fenced.stage.begin("pay")
    with fenced.worker("pay") as worker:
        message = eventually(lambda: worker.get(case.queue), what="the task")
        assert message is not None

        publish(worker, "bridge.results", case.topic, message.properties.correlation_id)

    assert case.end() == "end"


Act = Callable[[Amqp, str, str], object]
FORBIDDEN: dict[str, Act] = {
    "take another topic's task": lambda w, _, other: w.channel.basic_get(other),
    "consume another topic's tasks": lambda w, _, other: w.channel.basic_consume(other, print),
    "take its own results": lambda w, own, _: w.channel.basic_get(f"{own}.results"),
    "take another topic's results": lambda w, _, other: w.channel.basic_get(f"{other}.results"),
    "take what is parked": lambda w, *_: w.channel.basic_get("bridge.parked"),
    "take what waits": lambda w, *_: w.channel.basic_get("bridge.wait"),
    "take dead letters": lambda w, *_: w.channel.basic_get("bridge.dead-letters"),
    "answer by another topic": lambda w, _, other: publish(w, "bridge.results", other),
    "answer by a longer topic": lambda w, own, _: publish(w, "bridge.results", f"{own}.x"),
    "publish to another's results": lambda w, _, other: publish(w, "", f"{other}.results"),
    "publish to its own queue": lambda w, own, _: publish(w, "", own),
    "publish through the waiting room": lambda w, _, o: publish(w, "bridge.wait", f"{o}.results"),
    "publish a dead letter": lambda w, own, _: publish(w, "bridge.dead", own),
    "say that a task is gone": lambda w, own, _: publish(w, "bridge.gone", own),
    "declare a queue": lambda w, own, _: w.channel.queue_declare(f"{own}.mine"),
    "declare a queue of no name": lambda w, *_: w.channel.queue_declare("", exclusive=True),
    "declare its own queue again": lambda w, own, _: w.channel.queue_declare(own, durable=True),
    "delete its own queue": lambda w, own, _: w.channel.queue_delete(own),
    "delete another topic's queue": lambda w, _, other: w.channel.queue_delete(other),
    "purge another topic's queue": lambda w, _, other: w.channel.queue_purge(other),
    "bind its queue to all results": lambda w, own, _: w.channel.queue_bind(
        own, "bridge.results", "#"
    ),
    "unbind the other topic": lambda w, _, other: w.channel.queue_unbind(
        f"{other}.results", "bridge.results", other
    ),
    "declare an exchange": lambda w, *_: w.channel.exchange_declare("mine"),
    "delete an exchange": lambda w, *_: w.channel.exchange_delete("bridge.results"),
}


@pytest.mark.parametrize("act", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_worker_may_not(fenced: Fenced, act: Act) -> None:
    """Every way from one topic to another, and to what belongs to the bridge."""
    own, other = fenced.stage.names["pay"], fenced.stage.names["ship"]
    with fenced.worker("pay") as worker:
        assert refused_with(lambda: act(worker, own, other)) == 403


def test_a_worker_hears_of_its_topics_gone_tasks(fenced: Fenced) -> None:
    """With `--gone-notices`: on a queue of its own, its own topic only, and nobody else's."""
    stage, own, other = fenced.stage, fenced.stage.names["gone"], fenced.stage.names["ship"]
    fenced.administrator.obey(stage.bridge.config, "--gone-notices", only=f"worker-{own}")
    with fenced.worker("gone") as worker:
        mine = f"{own}.gone.host-1"
        worker.channel.queue_declare(mine, exclusive=True)
        worker.channel.queue_bind(mine, "bridge.gone", own)
        case = stage.begin("gone")
        task_id = case.message().json["taskId"]

        stage.engine.delete(case.instance)

        notice = eventually(lambda: worker.get(mine), 60, what="a gone notice")
        assert notice is not None
        assert notice.json == {"taskId": task_id}
        for act in (
            lambda: worker.channel.queue_bind(mine, "bridge.gone", other),
            lambda: worker.channel.queue_bind(mine, "bridge.results", own),
            lambda: worker.channel.queue_declare(f"{other}.gone.host-1"),
            lambda: worker.channel.queue_delete(own),
            lambda: publish(worker, "bridge.gone", own),
        ):
            assert refused_with(act) == 403


# -- stacks that answer to reply_to ----------------------------------------------------------------


@dataclass
class Site:
    """A virtual host for which the lines have been obeyed; no bridge runs."""

    topics: dict[str, Topic]
    url: str
    administrator: Administrator

    def user(self, topic: str) -> str:
        return self.administrator.url(f"worker-{topic}", self.url)

    def send(self, admin: Amqp, name: str, **variables: Any) -> None:
        """The task message that the bridge would publish."""
        task = LockedTask(id="t1", topic_name=name, process_instance_id="p1")
        shape = self.topics[name].shape
        made = task_message.build(
            task, shape, token="token", values=variables, types={}, timestamp=1
        )
        admin.send(
            made.exchange,
            made.routing_key,
            made.body,
            headers=dict(made.headers),
            correlation_id=made.correlation_id,
            reply_to=made.reply_to,
            content_type=made.content_type,
            content_encoding=made.content_encoding,
        )


@pytest.fixture
def site(
    administrator: Administrator, broker_node: choice.Broker, tmp_path: Path
) -> Iterator[Site]:
    spring, celery = unique("listener"), unique("charge")
    shared = {"exchange": "charges", "routing_key": "charges"}
    topics: dict[str, Any] = {
        spring: {"reply": "spring"},
        celery: {**shared, "reply": "celery", "celery_task": "app.charge"},
    }
    with vhost(broker_node) as url:
        config = tmp_path / "bridge.toml"
        config.write_text(toml({"topics": topics, "broker": {"url": url, "prefix": spring}}))
        administrator.users += [spring, *(f"worker-{name}" for name in topics)]
        administrator.obey(config)
        yield Site(plan.topics(load(config, {})), url, administrator)


def test_a_listener_answers_to_reply_to(site: Site) -> None:
    """As Spring does: it looks for its queue, consumes, and knows no other way to answer."""
    name = next(iter(site.topics))
    with Amqp(site.url) as admin, Amqp(site.user(name)) as listener:
        for queue in (name, f"{name}.results"):
            admin.channel.queue_declare(queue, durable=True)
        site.send(admin, name)
        listener.channel.queue_declare(name, passive=True)
        message = eventually(lambda: listener.get(name), what="the task")
        assert message is not None
        assert message.properties.reply_to == f"{name}.results"

        publish(listener, "", f"{name}.results", message.properties.correlation_id)

        assert eventually(lambda: admin.get(f"{name}.results"), what="the answer")
        assert refused_with(lambda: listener.channel.basic_get(f"{name}.results")) == 403


def test_a_celery_worker_does_all_it_must(site: Site, tmp_path: Path) -> None:
    """A real one as its owner starts it, with gossip, mingle and remote control, which make queues
    of their own; and with no right beyond the lines.
    """
    try:
        python = celery_python()
    except PartError as error:
        missing(error)
        raise
    name, log = list(site.topics)[1], tmp_path / "celery.log"
    command = [str(python), "-m", "celery", "--app", "app", "--workdir", str(CONSUMERS / "celery")]
    with (
        Amqp(site.url) as admin,
        running(
            "the Celery worker",
            [*command, "worker", "--concurrency", "1"],
            amqp_url=site.user(name),
            log=log,
            ready=lambda: admin.consumers("charges") > 0,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        ),
    ):
        admin.channel.queue_declare(f"{name}.results", durable=True)
        site.send(admin, name, amount=500)

        found = eventually(lambda: final(admin, f"{name}.results"), 60, what="the answer")

    assert found["result"]["receipt"] == "r-500"
    assert "ACCESS_REFUSED" not in log.read_text()


def final(amqp: Amqp, queue: str) -> Any:
    """Celery's last word; what it tells before is progress."""
    answers = [message.json for message in amqp.drain(queue)]
    return next((answer for answer in answers if answer["status"] == "SUCCESS"), None)


# -- last, since it takes the bridge's rights away -----------------------------------------------


def test_a_bridge_that_declares_nothing_needs_no_right_to(fenced: Fenced) -> None:
    """Somebody else has made the topology; the bridge runs on less."""
    stage, first = fenced.stage, fenced.stage.bridge
    first.stop()
    broker = {**fenced.tables["broker"], "declare": "passive"}
    passive = Bridge({**fenced.tables, "broker": broker})
    fenced.administrator.obey(passive.config, only=fenced.bridge_user)
    with passive:
        stage.bridge = passive
        try:
            every_outcome(stage)
        finally:
            stage.bridge = first

    with Amqp(fenced.administrator.url(fenced.bridge_user, stage.url)) as bridge:
        own = stage.names["pay"]
        assert refused_with(lambda: bridge.channel.queue_declare(own, durable=True)) == 403


def publish(amqp: Amqp, exchange: str, key: str, token: str | None = None) -> None:
    """Publish and wait for RabbitMQ's word on it."""
    amqp.channel.confirm_delivery()
    amqp.send(exchange, key, b"{}", correlation_id=token)


def refused_with(act: Callable[[], object]) -> int:
    """The code with which RabbitMQ closes the channel; 0 where it does not."""
    try:
        act()
    except ChannelClosedByBroker as error:
        return int(error.reply_code)
    return 0
