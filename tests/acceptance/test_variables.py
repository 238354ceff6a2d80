"""Variables of every type, from the engine to a worker and back, without loss."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.engine import EngineRest
from tests.support.stage import Stage
from tests.support.waiting import eventually

FILE_INFO = {"filename": "a b.pdf", "mimeType": "application/pdf", "encoding": "UTF-8"}
OBJECT_INFO = {
    "objectTypeName": "java.util.LinkedHashMap",
    "serializationDataFormat": "application/json",
}
MOMENT = "2026-01-02T03:04:05.678+0000"
TEXT = 'ü€😀 "quoted" \\ \n\t'

# type, the engine's value, what the worker reads
VALUES: list[tuple[str, Any, Any]] = [
    ("Boolean", True, True),
    ("Short", -32768, -32768),
    ("Integer", 2**31 - 1, 2**31 - 1),
    ("Long", 2**63 - 1, 2**63 - 1),
    ("Double", 0.1, 0.1),
    ("String", TEXT, TEXT),
    ("String", "x" * 4000, "x" * 4000),
    ("Null", None, None),
    ("Date", MOMENT, MOMENT),
    ("Bytes", "AP8=", "AP8="),
    ("Json", '{"a":[1,{"b":null}],"ü":1.5}', {"a": [1, {"b": None}], "ü": 1.5}),
    ("Xml", "<a>ü</a>", "<a>ü</a>"),
    ("Json", '{"big":12345678901234567890}', {"big": 12345678901234567890}),
]
# what the worker writes without a type, the engine's type and value
PLAIN: list[tuple[Any, str, Any]] = [
    (True, "Boolean", True),
    (-(2**31), "Integer", -(2**31)),
    (2**31, "Long", 2**31),
    (-(2**63), "Long", -(2**63)),
    (1.5, "Double", 1.5),
    (TEXT, "String", TEXT),
    (None, "Null", None),
    ([1, {"a": "ü"}], "Json", '[1,{"a":"ü"}]'),
    ({"value": 1, "type": "Money"}, "Json", '{"value":1,"type":"Money"}'),
]
TOPICS: dict[str, dict[str, Any]] = {
    "any": {},
    "inline": {"file_inline_max": 1000},
    "fenced": {"allowed_variables": ["paymentStatus"]},
}


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS) as stage:
        yield stage


@pytest.mark.parametrize(("kind", "value", "read"), VALUES)
def test_a_value_goes_to_the_worker_and_back(
    stage: Stage, kind: str, value: Any, read: Any
) -> None:
    """The worker reads plain JSON, and may answer with the engine's type."""
    case = stage.begin("any", {"x": {"value": value, "type": kind}})
    message = case.message()
    assert message.json["variables"] == {"x": read}
    assert message.json["variableTypes"] == {"x": kind}

    stage.answer(message, {"y": {"value": read, "type": kind}})

    case.end()
    variables = case.variables()
    assert variables["y"] == variables["x"]


@pytest.mark.parametrize(("written", "kind", "value"), PLAIN)
def test_a_plain_value_finds_its_type(stage: Stage, written: Any, kind: str, value: Any) -> None:
    """A worker that knows no types loses nothing."""
    case = stage.begin("any")

    stage.answer(case.message(), {"y": written})

    case.end()
    assert case.variables() == {"y": {"value": value, "type": kind}}


def test_an_object_is_its_serialized_text_both_ways(stage: Stage) -> None:
    """Java's classes stay the engine's affair."""
    given = {"value": '{"a": 1}', "type": "Object", "valueInfo": OBJECT_INFO}
    case = stage.begin("any", {"x": given})
    message = case.message()

    stage.answer(message, {"y": {**given, "value": message.json["variables"]["x"]}})

    assert message.json["variables"] == {"x": '{"a": 1}'}
    case.end()
    found = stage.engine.history_variable(case.instance, "y")
    assert {k: found[k] for k in given} == given


def test_a_file_comes_as_an_address_and_goes_as_its_content(stage: Stage) -> None:
    """Megabytes stay out of the queue unless somebody asks for them."""
    text = base64.b64encode(b"%PDF").decode()
    variable = {"value": text, "type": "File", "valueInfo": FILE_INFO}
    case = stage.begin("any", {"scan": variable})
    message = case.message()
    file = message.json["variables"]["scan"]
    content = requests.get(file["url"], timeout=5).content

    stage.answer(message, {"signed": variable})

    assert file == {**FILE_INFO, "url": file["url"]}
    assert content == b"%PDF"
    case.end()
    found = stage.engine.history_variable(case.instance, "signed")
    assert (found["type"], found["valueInfo"]) == ("File", FILE_INFO)
    assert stage.engine.history_file(found["id"]) == b"%PDF"


def test_a_small_file_may_come_inline(stage: Stage) -> None:
    """`file_inline_max`: the content up to that size, beyond it the address alone."""
    files = {
        name: {"value": base64.b64encode(b"x" * size).decode(), "type": "File"}
        | {"valueInfo": {"filename": name}}
        for name, size in (("small", 1000), ("large", 1001))
    }

    body = stage.begin("inline", files).message().json["variables"]

    assert base64.b64decode(body["small"]["content"]) == b"x" * 1000
    assert "content" not in body["large"]


def test_a_transient_variable_leaves_no_trace(stage: Stage) -> None:
    """A secret that only the next step may see is not stored."""
    case = stage.begin("any")

    secret = {"value": "s", "type": "String", "valueInfo": {"transient": True}}
    stage.answer(case.message(), {"secret": secret, "kept": 1})

    case.end()
    assert list(case.variables()) == ["kept"]


def test_a_variable_that_a_worker_may_not_write_is_refused(stage: Stage) -> None:
    """`allowed_variables`: nothing of the answer reaches the process."""
    case = stage.begin("fenced", {"amount": {"value": 5, "type": "Integer"}})
    message = case.message()

    stage.answer(message, {"paymentStatus": "ok", "amount": 0})

    assert "'amount'" in case.incident()
    assert stage.parked(message.properties.correlation_id).headers["reason"] == "value-refused"
    assert case.variables() == {"amount": {"value": 5, "type": "Integer"}}


def test_an_allowed_variable_passes_the_fence(stage: Stage) -> None:
    """The fence names what may pass, and that passes."""
    case = stage.begin("fenced")

    stage.answer(case.message(), {"paymentStatus": "ok"})

    case.end()
    assert case.variables()["paymentStatus"]["value"] == "ok"


def test_a_value_beyond_the_engine_is_refused_not_cut(stage: Stage) -> None:
    """An integer of more than 64 bits would arrive as another one."""
    case = stage.begin("any")
    message = case.message()

    stage.answer(message, {"n": 2**64})

    assert "variable 'n'" in case.incident()
    assert stage.parked(message.properties.correlation_id).json == {"n": 2**64}
    eventually(lambda: stage.amqp.count(f"{case.topic}.results") == 0)
