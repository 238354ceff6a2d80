"""An existing Spring Boot application, unchanged, does the work of external tasks.

Its @RabbitListener methods return a value or throw; Maven builds it, and no line of it is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from deploy.local.choice import Broker
from deploy.local.programs import PartError, Program
from tests.conftest import missing
from tests.consumers.stacks import running, spring_jar, vhost
from tests.support.amqp import Amqp
from tests.support.engine import EngineRest
from tests.support.stage import Stage, Variables
from tests.support.waiting import eventually

Row = Callable[[str, object], None]
PAYMENT = {
    "reply": "spring",
    "body": "variables",
    "variables": ["order", "amount"],
    "retries": 1,
}
TOPICS: dict[str, dict[str, Any]] = {
    "pay": {**PAYMENT, "queue": "payments"},
    "refund": {**PAYMENT, "queue": "refunds"},
    "pay-hot": {**PAYMENT, "queue": "payments.hot"},
    "refund-hot": {**PAYMENT, "queue": "refunds.hot"},
}
QUICK_START = ["-XX:TieredStopAtLevel=1", "-Xmx128m"]
HOT = {
    "QUEUE_PAYMENTS": "payments.hot",
    "QUEUE_REFUNDS": "refunds.hot",
    "SPRING_RABBITMQ_LISTENER_SIMPLE_DEFAULT_REQUEUE_REJECTED": "true",
}


@pytest.fixture(scope="module")
def jar() -> Path:
    try:
        return spring_jar()
    except PartError as error:
        missing(error)
        raise


@pytest.fixture(scope="module")
def stage(engine: EngineRest, broker_node: Broker) -> Iterator[Stage]:
    """Queue `payments` was there first, classic, with a policy for its dead letters; the others
    are the bridge's own.
    """

    def prepare(stage: Stage) -> None:
        vhost = stage.url.rpartition("/")[2]
        policy = '{"dead-letter-exchange": "bridge.dead"}'
        broker_node.ctl("set_policy", "-p", vhost, "dead", "^payments$", policy)
        stage.amqp.channel.queue_declare("payments", durable=True)

    limit = {"delivery_limit": 3}
    with (
        vhost(broker_node) as url,
        Stage(engine, url, TOPICS, prepare=prepare, broker=limit) as stage,
    ):
        yield stage


def application(
    jar: Path, url: str, log: Path, queue: str, env: Mapping[str, str] | None = None
) -> AbstractContextManager[Program]:
    def listens() -> bool:
        with Amqp(url) as amqp:
            return amqp.consumers(queue) > 0

    return running(
        "the Spring application",
        ["java", *QUICK_START, "-jar", jar],
        amqp_url=url,
        log=log,
        ready=listens,
        env=env,
    )


@pytest.fixture(scope="module")
def payments(
    stage: Stage, jar: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """The application with `default-requeue-rejected=false`."""
    log = tmp_path_factory.mktemp("spring") / "log"
    with application(jar, stage.url, log, "refunds") as program:
        yield program


@pytest.fixture(scope="module")
def hot(stage: Stage, jar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same application with Spring's default, on queues of its own; gives its log."""
    log = tmp_path_factory.mktemp("spring-hot") / "log"
    with application(jar, stage.url, log, "refunds.hot", HOT):
        yield log


def payment(amount: int) -> Variables:
    return {
        "order": {"value": "o-1", "type": "String"},
        "amount": {"value": amount, "type": "Integer"},
        "customer": {"value": "c-1", "type": "String"},
    }


@pytest.mark.usefixtures("payments")
def test_what_a_listener_returns_completes_the_external_task(
    stage: Stage, record_property: Row
) -> None:
    """A record in, a record out: reply_to and correlation id are Spring's own business."""
    record_property("matrix", "spring/success")
    case = stage.begin("pay", payment(500))

    assert case.end() == "end"

    made = {name: case.variables()[name] for name in ("receipt", "charged")}
    assert made == {
        "receipt": {"value": "r-o-1", "type": "String"},
        "charged": {"value": 500, "type": "Integer"},
    }


@pytest.mark.usefixtures("payments")
def test_an_exception_is_a_failure_by_the_dead_letters(stage: Stage, record_property: Row) -> None:
    """The listener's container rejects the message, once; the engine has the incident."""
    record_property("matrix", "spring/failure for good")
    case = stage.begin("pay", payment(2000))

    assert (
        case.incident() == "a consumer of queue payments rejected the message without requeueing it"
    )


@pytest.mark.usefixtures("payments")
def test_an_exception_sent_back_as_the_answer_is_a_failure(stage: Stage) -> None:
    """`returnExceptions = "true"` answers with an exception, which is a JSON object as well: it
    must not complete the task.
    """
    case = stage.begin("refund", payment(5))

    assert case.incident() == "no refunds for o-1"

    task = case.task()
    assert task is not None
    details = stage.engine.error_details(task["id"])
    assert details.startswith("no refunds for o-1\n    at payments.Payments.refund(Payments.java:")


def test_without_the_setting_it_is_tried_until_the_delivery_limit(stage: Stage, hot: Path) -> None:
    """Spring's default requeues at once: the quorum queue's limit is all that ends the loop."""
    case = stage.begin("pay-hot", payment(2000))

    assert case.incident() == "queue payments.hot gave up: its delivery limit was reached"

    eventually(lambda: hot.read_text().count("card declined for o-1") >= 4)


@pytest.mark.usefixtures("hot")
def test_a_payload_that_does_not_fit_is_refused_at_once(stage: Stage) -> None:
    """Spring never requeues what it cannot convert, whatever the setting: no loop."""
    case = stage.begin("pay-hot", {"amount": {"value": "much", "type": "String"}})

    assert "rejected the message" in case.incident()
