"""What a worker must not get done, whatever it answers, with the whole service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.simulated_engine import SimulatedEngine, linear_process
from tests.support.amqp import Amqp, Message
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest
from tests.support.stage import Stage
from tests.support.waiting import eventually

TOPICS: dict[str, dict[str, Any]] = {"pay": {"allowed_variables": ["status", "note"]}}


@pytest.fixture(scope="module")
def stage(
    engine: EngineRest, shared_amqp_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    key = tmp_path_factory.mktemp("key") / "token.key"
    key.write_text("k" * 32)
    with Stage(engine, shared_amqp_url, TOPICS, token_key_file=str(key)) as stage:
        yield stage


# -- what a topic's workers may write --------------------------------------------------------------

# Where a worker can put a variable: the outcome, and the body around it.
PLACES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "plain object": (None, {"VARIABLES": None}),
    "complete": ("complete", {"variables": "VARIABLES"}),
    "complete, local": ("complete", {"localVariables": "VARIABLES"}),
    "bpmnError": ("bpmnError", {"errorCode": "E1", "variables": "VARIABLES"}),
    "failure": ("failure", {"errorMessage": "no", "retries": 1, "variables": "VARIABLES"}),
    "failure, local": ("failure", {"errorMessage": "no", "localVariables": "VARIABLES"}),
    "extendLock": ("extendLock", {"newDuration": 1000, "variables": "VARIABLES"}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_variable_that_is_not_allowed_is_refused_wherever_it_stands(
    stage: Stage, place: str
) -> None:
    """`allowed_variables`: an approval must not be given by whoever works on the shipping."""
    case = stage.begin("pay", error_codes=("E1",))
    message = case.message()
    outcome, body = PLACES[place]
    variables = {"status": "done", "approved": True}
    body = variables if outcome is None else {k: filled(v, variables) for k, v in body.items()}

    stage.answer(message, body, outcome)

    parked = stage.parked(message.properties.correlation_id)
    assert parked.headers["reason"] == "value-refused"
    assert "'approved'" in parked.headers["reasonDetail"]
    assert "allowed_variables" in case.incident()
    assert case.retries() == 0
    assert case.variables() == {}


def filled(value: Any, variables: dict[str, Any]) -> Any:
    return variables if value == "VARIABLES" else value


def test_an_allowed_variable_is_written(stage: Stage) -> None:
    """Also the one that travels with progress: the list is no wall."""
    case = stage.begin("pay")
    message = case.message()

    stage.answer(message, {"newDuration": 1000, "variables": {"note": "half"}}, "extendLock")
    eventually(lambda: "note" in case.variables(), what="progress")
    stage.answer(message, {"status": "done"})

    assert case.end() == "end"
    assert {name: v["value"] for name, v in case.variables().items()} == {
        "note": "half",
        "status": "done",
    }


# -- where answers go ------------------------------------------------------------------------------


def test_an_address_in_an_answer_is_never_used(stage: Stage) -> None:
    """Neither a worker's `reply_to` nor a URL in its values: the bridge talks to those whom its
    settings name.
    """
    stage.amqp.channel.queue_declare("elsewhere", durable=True)
    case, refused = stage.begin("pay"), stage.begin("pay")
    messages = [case.message(), refused.message()]
    bodies = (
        {"status": "http://127.0.0.1:1/", "note": "amqp://127.0.0.1:1/"},
        {"url": "http://x/"},
    )

    for message, body in zip(messages, bodies, strict=True):
        token = message.properties.correlation_id
        properties = {"reply_to": "elsewhere", "correlation_id": token}
        queue = message.properties.reply_to
        stage.amqp.send("", queue, json.dumps(body).encode(), **properties)

    assert case.end() == "end"
    assert case.variables()["status"] == {"value": "http://127.0.0.1:1/", "type": "String"}
    parked = stage.parked(messages[1].properties.correlation_id)
    assert parked.properties.reply_to == "elsewhere"  # kept for whoever looks at it
    assert stage.amqp.count("elsewhere") == 0


# -- keys ------------------------------------------------------------------------------------------


def test_keys_are_rotated_without_losing_an_answer(amqp_url: str, tmp_path: Path) -> None:
    """What the old key has signed is accepted while it stands beside the new one, and no longer;
    the bridge is restarted in between, and its tasks stay in flight.
    """
    for name in ("old", "new"):
        (tmp_path / name).write_text(name * 16)
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    with SimulatedEngine() as engine, Amqp(amqp_url) as amqp:
        engine.deploy(linear_process("p", "pay"))
        for _ in range(2):
            engine.start_process("p")
        tables = settings(engine.url, amqp_url, {"pay": {}}, token_key_file=old)
        with Bridge(tables) as bridge:
            first, second = taken(amqp, "pay"), taken(amqp, "pay")
            assert bridge.stop() == 0

        with Bridge({**tables, "token_key_file": new, "token_key_file_old": old}) as bridge:
            answer(amqp, first)
            eventually(lambda: len(engine.tasks()) == 1, what="the old key is still accepted")
            engine.start_process("p")
            third = taken(amqp, "pay")
            assert bridge.stop() == 0

        engine.calls.clear()
        with Bridge({**tables, "token_key_file": new}) as bridge:
            answer(amqp, second)
            answer(amqp, third)
            parked = taken(amqp, "bridge.parked")
            eventually(lambda: len(engine.tasks()) == 1, what="the new key is accepted")
            assert bridge.count("pay", "parked") == 1

        assert parked.headers["reason"] == "bad-token"
        assert parked.properties.correlation_id == second.properties.correlation_id
        [left] = engine.tasks()
        assert left["id"] == second.headers["taskId"]
        assert left["retries"] is None
        writes = {call.verb for call in engine.calls.of(task_id=left["id"]) if call.method != "GET"}
        assert writes <= {"extendLock"}  # its lease goes on; nothing of the answer was told


def taken(amqp: Amqp, queue: str) -> Message:
    message = eventually(lambda: amqp.get(queue), 40, what=f"a message in {queue}")
    assert message is not None
    return message


def answer(amqp: Amqp, message: Message) -> None:
    """Answer with the message's own token."""
    token = message.properties.correlation_id
    amqp.send("", message.properties.reply_to, b"{}", correlation_id=token)
