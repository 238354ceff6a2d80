"""Results that cannot be applied: parked with their reason, or waiting; the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.tokens import TokenSigner
from tests.support.amqp import Message
from tests.support.engine import EngineRest
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually, throughout

TOPICS: dict[str, dict[str, Any]] = {"pay": {}, "ship": {}, "gone": {}, "wait": {}, "full": {}}
MAX_BYTES = 2000


@pytest.fixture(scope="module")
def stage(
    engine: EngineRest, shared_amqp_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    key = tmp_path_factory.mktemp("key") / "token.key"
    key.write_text("k" * 32)
    broker = {"max_result_bytes": MAX_BYTES}
    with Stage(engine, shared_amqp_url, TOPICS, token_key_file=str(key), broker=broker) as stage:
        yield stage


def send(stage: Stage, message: Message, body: bytes, **properties: Any) -> None:
    """An answer with every property that a worker can set."""
    complete = {
        "correlation_id": message.properties.correlation_id,
        "message_id": "answer-1",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "type": "answer",
        "app_id": "a-worker",
        "timestamp": 1_700_000_000,
        "priority": 4,
        "expiration": "3600000",
        "user_id": "guest",
        "headers": {"trace": "t-1"},
        **properties,
    }
    stage.amqp.send("", message.properties.reply_to, body, **complete)


# reason, body, outcome header
UNREADABLE: list[tuple[str, bytes, str | None]] = [
    ("bad-json", b"{not json", None),
    ("bad-json", b'{"x":NaN}', None),
    ("bad-json", b"\xff\xfe", None),
    ("too-large", b'{"x":"' + b"x" * MAX_BYTES + b'"}', None),
    ("value-refused", b'{"n":18446744073709551616}', None),
    ("value-refused", b'{"s":"' + b"x" * 1000 + b'","d":{"value":"soon","type":"Date"}}', None),
    ("no-result-variable", b"42", None),
    ("bad-outcome", b"{}", "finish"),
    ("bad-body", b'{"retries":-1}', "failure"),
    ("bad-body", b'"gone wrong"', "failure"),
]


@pytest.mark.parametrize(("reason", "body", "outcome"), UNREADABLE)
def test_an_unreadable_result_is_parked_and_shown_in_the_engine(
    stage: Stage, reason: str, body: bytes, outcome: str | None
) -> None:
    """The worker proved which task it means: an operator sees the incident, and the answer is
    kept as it came.
    """
    case = stage.begin("pay")
    message = case.message()
    headers = {"trace": "t-1", **({"outcome": outcome} if outcome else {})}

    send(stage, message, body, headers=headers)

    parked = stage.parked(message.properties.correlation_id)
    assert_original(parked, message, body, headers)
    assert parked.headers["reason"] == reason
    assert parked.headers["resultQueue"] == f"{case.topic}.results"
    assert case.incident().startswith(f"{reason}: ")


def test_a_result_without_a_token_is_parked(stage: Stage) -> None:
    """Nobody knows which task it means: none is touched."""
    case = stage.begin("pay")
    message = case.message()

    send(stage, message, b"{}", correlation_id=None)

    parked = stage.parked(None)
    assert parked.headers["reason"] == "no-token"
    still_works(stage, case, message)


@pytest.mark.parametrize("forgery", ["another attempt", "unsigned", "free text"])
def test_a_forged_token_is_parked(stage: Stage, forgery: str) -> None:
    """With `token_key_file` a worker can finish only what it was given."""
    case = stage.begin("pay")
    message = case.message()
    genuine = message.properties.correlation_id
    version, task_id, _, seal = genuine.split(".")
    forged = {
        "another attempt": f"{version}.{task_id}.2.{seal}",
        "unsigned": TokenSigner(None).make(task_id, None, case.topic),
        "free text": "somebody-elses-id",
    }[forgery]

    send(stage, message, b"{}", correlation_id=forged)

    assert stage.parked(forged).headers["reason"] == "bad-token"
    still_works(stage, case, message)


def test_a_token_on_another_topics_queue_is_parked(stage: Stage) -> None:
    """A worker's rights end at its own topic's queue."""
    case = stage.begin("pay")
    message = case.message()
    token = message.properties.correlation_id

    stage.amqp.send("", f"{stage.names['ship']}.results", b"{}", correlation_id=token)

    parked = stage.parked(token)
    assert parked.headers["reason"] == "bad-token"
    still_works(stage, case, message)


def test_no_value_is_ever_logged(stage: Stage) -> None:
    """Variables hold names and accounts of people: neither log nor incident repeats one."""
    case = stage.begin("pay", {"iban": {"value": "DE89-3704", "type": "String"}})
    message = case.message()

    send(stage, message, b'{"card":{"value":"4111-1111","type":"Date"}}')

    stage.parked(message.properties.correlation_id)
    said = stage.bridge.log_path.read_text() + case.incident()
    assert "'card'" in said
    assert "4111-1111" not in said
    assert "DE89-3704" not in said


def test_a_result_of_a_cancelled_task_is_acknowledged(stage: Stage) -> None:
    """Its process has gone on without it; there is nothing to keep and nobody to ask."""
    case = stage.begin("gone")
    message = case.message()
    stage.engine.delete(case.instance)

    stage.answer(message, {"late": True})

    eventually(lambda: stage.count("gone", "gone") == 1)
    assert stage.count("gone", "parked") == 0


def test_a_second_answer_is_acknowledged(stage: Stage) -> None:
    """A worker that lost its acknowledgement answers twice; the engine is told once."""
    case = stage.begin("gone")
    message = case.message()
    before = stage.count("gone", "gone")

    stage.answer(message, {"n": 1})
    stage.answer(message, {"n": 2})

    case.end()
    eventually(lambda: stage.count("gone", "gone") == before + 1)
    assert case.variables()["n"]["value"] == 1


def test_a_result_that_breaks_the_process_becomes_an_incident(stage: Stage) -> None:
    """The step after the task fails in the engine and is rolled back: after a few tries the
    answer is kept, and an operator sees the engine's reason.
    """
    case = stage.begin("pay", then=("${missing}",))
    message = case.message()

    stage.answer(message, {"fine": True})

    parked = stage.parked(message.properties.correlation_id)
    assert parked.headers["reason"] == "engine-broken"
    assert "missing" in case.incident()
    assert "fine" not in case.variables()


def test_a_result_of_a_suspended_instance_waits(stage: Stage) -> None:
    """It is applied once the instance is resumed, and fills no prefetch until then."""
    case, other = stage.begin("wait"), stage.begin("pay")
    message = case.message()
    stage.engine.suspend(case.instance, True)

    stage.answer(message, {"n": 1})

    eventually(lambda: stage.count("wait", "waiting") >= 2, what="it came back and waits again")
    still_works(stage, other, other.message())
    stage.engine.suspend(case.instance, False)
    assert case.end() == "end"
    assert case.variables()["n"]["value"] == 1
    assert stage.count("wait", "parked") == 0


def parked_or_waiting(stage: Stage) -> int:
    waits = stage.bridge.events("cannot park, the message waits")
    return stage.count("full", "parked") + len(waits)


def test_a_full_parking_queue_loses_nothing(engine: EngineRest, amqp_url: str) -> None:
    """What finds no place waits outside, and other results go on."""
    with Stage(engine, amqp_url, {"full": {}}, broker={"parked_max": 1}) as stage:
        bad: list[Message] = []
        # A quorum queue tells its publishers that it is full a little after the fact.
        while not stage.bridge.events("cannot park, the message waits"):
            assert len(bad) < 10
            bad.append(stage.begin("full").message())
            stage.answer(bad[-1], b"{bad")
            eventually(lambda: parked_or_waiting(stage) >= len(bad))
        good = stage.begin("full")
        still_works(stage, good, good.message())

        expected = {message.properties.correlation_id for message in bad}
        parked = [eventually(lambda: stage.amqp.get("bridge.parked")) for _ in bad]
        assert {m.properties.correlation_id for m in parked if m} == expected


def test_nothing_is_left_unacknowledged_or_requeued(engine: EngineRest, amqp_url: str) -> None:
    """Whatever became of a result, its queue is empty after the bridge has left, and what it
    parked lies there once.
    """
    with Stage(engine, amqp_url, {"mixed": {}}) as stage:
        cases = [stage.begin("mixed") for _ in range(6)]
        queue = stage.names["mixed"]
        eventually(lambda: stage.amqp.count(queue) == len(cases))
        for number, message in enumerate(stage.amqp.drain(queue)):
            stage.answer(message, b"{bad" if number % 2 else {"n": number})
        eventually(lambda: stage.amqp.count("bridge.parked") == 3)
        throughout(lambda: stage.amqp.count("bridge.parked") == 3, 1.0)

        assert stage.bridge.stop() == 0

        assert stage.amqp.count(f"{queue}.results") == 0
        assert stage.amqp.count("bridge.wait") == 0


def assert_original(
    parked: Message, answered: Message, body: bytes, headers: dict[str, Any]
) -> None:
    """The parked copy has every property, header and byte of the answer."""
    properties = parked.properties
    assert parked.body == body
    assert properties.correlation_id == answered.properties.correlation_id
    assert properties.message_id == "answer-1"
    assert (properties.type, properties.app_id) == ("answer", "a-worker")
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.timestamp, properties.delivery_mode) == (1_700_000_000, 2)
    assert properties.priority == 4
    # These two RabbitMQ would act upon: it would drop the copy, or refuse it as another user's.
    assert (properties.expiration, properties.user_id) == (None, None)
    assert parked.headers["originalExpiration"] == "3600000"
    assert parked.headers["originalUserId"] == "guest"
    assert headers.items() <= parked.headers.items()


def still_works(stage: Stage, case: Case, message: Message) -> None:
    """The task of this message can be finished as if nothing had happened."""
    stage.answer(message, {"fine": True})
    assert case.end() == "end"
    assert case.variables()["fine"] == {"value": True, "type": "Boolean"}
