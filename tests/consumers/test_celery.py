"""An existing Celery application, unchanged, does the work of external tasks.

A real Celery worker, from a virtual environment of its own, without a line of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.choice import Broker
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.consumers.stacks import CONSUMERS, celery_python, running, vhost
from tests.support.amqp import Amqp
from tests.support.engine import EngineRest
from tests.support.stage import Stage, Variables
from tests.support.waiting import eventually

Row = Callable[[str, object], None]
QUEUE = "charges"
# One Celery queue serves every task of an application; its exchange has the same name.
SHARED = {"exchange": QUEUE, "routing_key": QUEUE, "reply": "celery"}
TOPICS: dict[str, dict[str, Any]] = {
    "charge": {**SHARED, "celery_task": "app.charge", "variables": ["amount"], "retries": 1},
    "rate": {**SHARED, "celery_task": "app.rate", "result_variable": "rate"},
    "settle": {"queue": QUEUE, "reply": "celery", "celery_task": "app.settle"},
    "settle-routed": {**SHARED, "celery_task": "app.settle"},
    "refuse": {**SHARED, "celery_task": "app.refuse"},
    "unknown": {**SHARED, "celery_task": "app.no_such_task", "retries": 1},
    "remind": {**SHARED, "celery_task": "app.remind", "reply": "none"},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Celery worker's."""
    return tmp_path_factory.mktemp("celery") / "log"


@pytest.fixture(scope="module")
def stage(engine: EngineRest, broker_node: Broker, log: Path) -> Iterator[Stage]:
    """The worker is there first, with a queue of its own making; then comes the bridge."""
    try:
        python = celery_python()
    except PartError as error:
        missing(error)
        raise
    key = log.with_name("key")
    key.write_text("k" * 32)
    command = [
        str(python), "-m", "celery", "--app", "app", "--workdir", str(CONSUMERS / "celery"),
        "worker", "--concurrency", "2", "--without-gossip", "--without-mingle",
    ]  # fmt: skip
    with (
        vhost(broker_node) as url,
        Amqp(url) as amqp,
        running(
            "the Celery worker",
            command,
            amqp_url=url,
            log=log,
            ready=lambda: amqp.consumers(QUEUE) > 0,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        ),
        Stage(engine, url, TOPICS, token_key_file=str(key)) as stage,
    ):
        yield stage


def integer(name: str, value: int) -> Variables:
    return {name: {"value": value, "type": "Integer"}}


def text(name: str, value: str) -> Variables:
    return {name: {"value": value, "type": "String"}}


def test_what_a_task_returns_completes_the_external_task(
    stage: Stage, record_property: Row
) -> None:
    """Variables come as keyword arguments, the returned dict becomes variables; a Decimal, which
    Celery writes in a way of its own, is its text.
    """
    record_property("matrix", "celery/success")
    case = stage.begin("charge", integer("amount", 500))

    assert case.end() == "end"

    made = {name: case.variables()[name] for name in ("receipt", "charged", "currency")}
    assert made == {
        "receipt": {"value": "r-500", "type": "String"},
        "charged": {"value": "5", "type": "String"},
        "currency": {"value": "EUR", "type": "String"},
    }


def test_a_returned_number_goes_to_the_result_variable(stage: Stage) -> None:
    """Most tasks return a value, not a dict."""
    case = stage.begin("rate", integer("amount", 5))

    case.end()

    assert case.variables()["rate"] == {"value": 0.5, "type": "Double"}


def test_an_exception_is_a_failure_with_its_traceback(stage: Stage, record_property: Row) -> None:
    """The operator reads in the engine what Celery would have told its caller."""
    record_property("matrix", "celery/failure for good")
    case = stage.begin("charge", integer("amount", 2000))

    assert case.incident() == "ValueError: card declined: 2000 EUR"

    task = case.task()
    assert task is not None
    details = stage.engine.error_details(task["id"])
    assert details.startswith("Traceback (most recent call last):")
    assert "in charge" in details


@pytest.mark.parametrize("topic", ["settle", "settle-routed"])
def test_what_celery_tries_again_costs_no_retry_of_the_engine(stage: Stage, topic: str) -> None:
    """STARTED, PROGRESS and RETRY keep the task alive, and the answer after `self.retry`, which
    comes with Celery's own id for a correlation id, still finds its task.
    """
    case = stage.begin(topic, text("order", "o-1"))

    assert case.end() == "end"

    assert case.variables()["asked"] == {"value": 3, "type": "Integer"}
    # Three times STARTED, twice PROGRESS, twice RETRY.
    assert stage.count(topic, "progress") == 7
    assert stage.count(topic, "failed") == 0
    assert stage.amqp.count("bridge.parked") == 0


def test_a_task_may_speak_of_a_business_error(stage: Stage, record_property: Row) -> None:
    """Celery sets no headers, so the outcome stands in what the task returns."""
    record_property("matrix", "celery/business error")
    case = stage.begin("refuse", text("order", "o-1"), error_codes=["REFUSED"])

    assert case.end() == "caught-REFUSED-1"


def test_a_task_name_that_celery_does_not_know_is_an_incident(stage: Stage) -> None:
    """A misspelt `celery_task` must not end in silence."""
    case = stage.begin("unknown")

    assert "app.no_such_task" in case.incident()


def test_a_task_that_never_answers_completes_once_it_is_sent(stage: Stage, log: Path) -> None:
    """`ignore_result`: without `reply = "none"` it would be done, and fail at its deadline."""
    case = stage.begin("remind", text("order", "o-77"))

    assert case.end() == "end"

    eventually(lambda: "reminder sent for o-77" in log.read_text(), what="Celery's own work")
    assert stage.amqp.count(f"{case.topic}.results") is None


def test_the_queue_stays_what_celery_made_it(stage: Stage) -> None:
    """Classic: a worker that declares it again would be refused, were it anything else."""
    stage.amqp.channel.queue_declare(QUEUE, durable=True)

    assert eventually(lambda: stage.amqp.consumers(QUEUE) > 0)
