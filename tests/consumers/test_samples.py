"""The samples of consumers/ between the real bridge, engine and RabbitMQ: language by case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.local.choice import Broker
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.consumers.crew import Crew, payment, status, topics_of, typed
from tests.consumers.samples import SAMPLES, Sample
from tests.consumers.stacks import vhost
from tests.support.engine import EngineRest
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually

LIMIT_S = 60.0  # of everything that a test waits for: the machine may be busy
TEXT = 'ü€ 😀 漢字 "quoted" \\ \n\t\u2028 end'
LONG_TEXT = "€" * 3990  # the engine holds 4000 characters
INVOICE = {"value": json.dumps({"lines": ["x" * 1000] * 1000}), "type": "Json"}

# The payments, and what they must come to.
PAID: dict[str, tuple[dict[str, Any], str]] = {
    "success": (payment(42), "42 EUR"),
    "failure, then retry": (payment(502), "502 EUR"),
    "unicode": (payment(7, TEXT), f"7 {TEXT}"),
    "null variable": (payment(7, None), "7 EUR"),
    "large variable": (payment(7, LONG_TEXT, invoice=INVOICE), f"7 {LONG_TEXT}"),
}
REFUSED, FAILING, BEYOND = "business error", "failure for good", "integer beyond 53 bits"
NUMBERS: tuple[tuple[str, int | float], ...] = (
    ("Integer", -(2**31)),
    ("Long", 1 - 2**53),
    ("Double", 0.1),
    ("Double", 5e-324),
    ("Double", -1.7976931348623157e308),
)

pytestmark = pytest.mark.timeout(900)  # the first run builds the samples


@pytest.fixture(scope="module")
def stage(engine: EngineRest, broker_node: Broker) -> Iterator[Stage]:
    with vhost(broker_node) as url, Stage(engine, url, topics_of(SAMPLES)) as stage:
        yield stage


@pytest.fixture(scope="module", params=SAMPLES, ids=lambda sample: sample.name)
def crew(
    request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crew]:
    """All workers start together, and every quiet case is begun before any is looked at: the whole
    takes as long as the slowest.
    """
    sample: Sample = request.param
    try:
        command = sample.command()
    except PartError as error:
        missing(error)
        raise
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp(sample.name)
        crew = Crew(sample, stage, command, directory, stack)
        plain = crew.start("plain")
        begin_quiet_cases(crew)
        crew.await_consumer("plain", plain)
        yield crew
        assert plain.running, f"the worker ended: {plain.log.read_text()}"


def begin_quiet_cases(crew: Crew) -> None:
    for name, (variables, _) in PAID.items():
        crew.begun[name] = crew.begin("plain", variables)
    crew.begun[REFUSED] = crew.begin("plain", payment(1001))
    crew.begun[FAILING] = crew.begin("plain", payment(503))
    crew.begun[BEYOND] = crew.begin("plain", payment(typed(-(2**63), "Long")))
    for kind, number in NUMBERS:
        crew.begun[repr(number)] = crew.begin("plain", payment(typed(number, kind)))


def ended(case: Case) -> str | None:
    return case.stage.engine.ended_at(case.instance)


def await_end(case: Case) -> str:
    found = eventually(lambda: ended(case), LIMIT_S, what="the end of the instance")
    assert found is not None
    return found


def await_incident(case: Case) -> str:
    found = eventually(lambda: case.stage.engine.incidents(case.key), LIMIT_S, what="an incident")
    return str(found[0]["incidentMessage"])


def await_pending(case: Case) -> None:
    eventually(lambda: status(case) == "pending", LIMIT_S, what="the worker's progress")


@pytest.mark.parametrize("case", PAID)
def test_a_payment_is_answered_as_the_rules_say(crew: Crew, case: str) -> None:
    """The same task has the same result whatever language answers it."""
    begun = crew.begun[case]

    assert await_end(begun) == "end"

    assert status(begun) == PAID[case][1]


def test_business_error(crew: Crew) -> None:
    """A BPMN error is a path of the process, taken at once and without a retry."""
    assert await_end(crew.begun[REFUSED]) == "caught-PAYMENT_ERROR-1"


def test_failure_for_good(crew: Crew) -> None:
    """What no attempt can mend is for an operator, with the worker's own words."""
    assert await_incident(crew.begun[FAILING]).endswith("the payment gateway answered 503")
    assert crew.begun[FAILING].retries() == 0


def test_numbers_at_the_limits(crew: Crew) -> None:
    """A worker that rounds a number pays the wrong amount, and nobody notices."""
    for _, number in NUMBERS:
        case = crew.begun[repr(number)]
        assert await_end(case) == "end"
        said = str(status(case)).removesuffix(" EUR")
        assert type(number)(said) == number, said


def test_integer_beyond_53_bits(crew: Crew) -> None:
    """Where a language cannot hold it the worker refuses it: an incident, never a wrong number."""
    case = crew.begun[BEYOND]

    if crew.sample.holds_long:
        assert await_end(case) == "end"
        assert status(case) == f"{-(2**63)} EUR"
    else:
        assert "beyond 2^53" in await_incident(case)


def test_duplicate_delivery(crew: Crew) -> None:
    """Both copies are answered with the one token; the task is completed once."""
    case = crew.begin("copied", payment(7))
    message = case.message(LIMIT_S)

    message.properties.type = crew.queue("plain")  # whose queue it is put on
    for _ in range(2):
        crew.stage.amqp.channel.basic_publish(
            "", crew.queue("plain"), message.body, message.properties
        )

    assert await_end(case) == "end"
    assert status(case) == "7 EUR"
    eventually(lambda: crew.stage.count(crew.topic("copied"), "gone") == 1, LIMIT_S)


def test_kill_in_the_middle(crew: Crew) -> None:
    """Killed while it works, after it told its progress: another does the same attempt again."""
    worker = crew.start("killed", pending_seconds=3600)
    case = crew.begin("killed", payment(202))
    await_pending(case)
    task_id = eventually(lambda: locked_for(case, timedelta(minutes=9)), LIMIT_S)

    worker.kill()
    other = crew.start("killed")

    assert await_end(case) == "end"
    assert status(case) == "202 EUR"
    eventually(lambda: f"complete {task_id}:-" in other.log.read_text(), LIMIT_S)


def locked_for(case: Case, least: timedelta) -> str | None:
    """The task's id once its lock runs that long."""
    task = case.task()
    assert task is not None, "the task is gone"
    left = datetime.fromisoformat(task["lockExpirationTime"]) - datetime.now(UTC)
    return str(task["id"]) if left > least else None


def test_stop_signal(crew: Crew) -> None:
    """SIGTERM: what it works on is finished, what it had only been given goes back."""
    worker = crew.start("stopped", pending_seconds=2)
    case, waiting = crew.begin("stopped", payment(202)), crew.begin("stopped", payment(7))
    await_pending(case)

    worker.stop(grace_s=LIMIT_S)

    assert worker.exit_code == 0, worker.log.read_text()
    assert await_end(case) == "end"
    assert status(case) == "202 EUR"
    left = crew.stage.amqp.count
    either = {("end", 0), (None, 1)}  # answered, or on its queue; the first one acknowledged
    eventually(lambda: (ended(waiting), left(waiting.queue)) in either, LIMIT_S, what="one place")


def test_answer_that_no_queue_takes(crew: Crew) -> None:
    """Without `mandatory` it would be confirmed and lost; so the worker ends, or tries it again
    and again: its task stays.
    """
    worker, queue = crew.start("unroutable"), crew.queue("unroutable")
    task = {"retries": None, "variables": {"amount": 7, "currency": "EUR"}, "variableTypes": {}}

    body = json.dumps(task).encode()
    crew.stage.amqp.send("", queue, body, reply_to="nowhere", correlation_id="any")

    if crew.sample.helped:
        eventually(lambda: "no queue takes the answer" in worker.log.read_text(), LIMIT_S)
        worker.kill()
    eventually(lambda: worker.exit_code is not None, LIMIT_S, what="the worker's end")
    assert worker.exit_code != 0
    eventually(lambda: crew.stage.amqp.count(queue) == 1, LIMIT_S, what="the task on its queue")
