"""The published contract: right by its public schemas, and the same that the bridge lives by."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as search
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bridge import plan, schema, task_message
from bridge.errors import ResultRefused, ValueRefused
from bridge.messages import BpmnError, Complete, Delivery, ExtendLock, Failure, LockedTask, Result
from bridge.results import VERBS, read
from bridge.schema.models import STRING_MAX
from bridge.settings import Settings, load
from bridge.variables import names_allowed, typed
from tests.support.bridge import toml
from tests.support.contract import Contract, asyncapi_problems, references, resolve

TOPICS: dict[str, dict[str, Any]] = {
    "task": {},
    "named": {"variables": ["amount"], "priority": True},
    "variables": {"body": "variables", "variables": ["amount", "note"]},
    "variable": {"body": "variable:order"},
    "celery": {"reply": "celery", "celery_task": "app.charge"},
    "celery-fenced": {
        "reply": "celery",
        "celery_task": "app.charge",
        "allowed_variables": ["paid"],
        "result_variable": "paid",
    },
    "spring": {"reply": "spring", "result_variable": "score"},
    "silent": {"reply": "none"},
    "rate": {"result_variable": "rate"},
    "fenced": {"allowed_variables": ["paid"]},
    "mute": {"allowed_variables": []},
    "routed": {"exchange": "orders", "routing_key": "{topicName}.{tenantId}"},
    "a b/c~d%é": {"queue": "odd"},
    "a b/c~d%è": {"queue": "odder"},
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


# A loaded machine is slow now and then.
patient = search(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def the_settings() -> Settings:
    with tempfile.TemporaryDirectory() as directory:
        return given_settings(Path(directory))


@cache
def the_contract() -> Contract:
    return Contract(schema.asyncapi(the_settings()), schema.json_schema(the_settings()))


@pytest.fixture
def settings() -> Settings:
    return the_settings()


@pytest.fixture
def contract() -> Contract:
    return the_contract()


def given_settings(directory: Path, **tables: object) -> Settings:
    file = directory / "bridge.toml"
    file.write_text(toml({"topics": TOPICS, **tables}), encoding="utf-8")
    return load(file, {})


# -- the documents -------------------------------------------------------------------------------


def test_the_asyncapi_document_is_one(contract: Contract) -> None:
    """Generators and portals read it by AsyncAPI's own schema."""
    assert asyncapi_problems(contract.asyncapi) == []


def test_the_public_schema_refuses_what_is_none(contract: Contract) -> None:
    """A judge that lets everything pass would be no test."""
    channels = {"pay": {"address": "pay", "bindings": {"amqp": {"is": "topic"}}}}

    assert asyncapi_problems({**contract.asyncapi, "channels": channels})


def test_the_bundle_is_json_schema(contract: Contract) -> None:
    """Validators in any language take it as it is."""
    Draft202012Validator.check_schema(contract.bundle)


def test_every_reference_leads_somewhere(contract: Contract) -> None:
    """A dangling one breaks whoever generates code, long after it was printed."""
    for document in (contract.asyncapi, contract.bundle):
        found = set(references(document))

        assert found
        for reference in found:
            assert resolve(document, reference) is not None, reference


def test_an_operation_names_messages_of_its_own_channel(contract: Contract) -> None:
    """AsyncAPI demands it, and its schema cannot say it."""
    for name, operation in contract.asyncapi["operations"].items():
        for part in (operation, operation.get("reply")):
            if part is not None:
                channel = part["channel"]["$ref"]
                messages = {message["$ref"] for message in part["messages"]}
                own = resolve(contract.asyncapi, channel)["messages"]
                assert messages == {f"{channel}/messages/{kind}" for kind in own}, name


def test_each_topic_has_its_queues_and_exchanges(contract: Contract) -> None:
    """What a worker developer needs to know of the broker stands in one place."""
    channels = contract.asyncapi["channels"]
    places = {name: channel["bindings"]["amqp"] for name, channel in channels.items()}

    assert places["task.tasks"]["queue"]["name"] == "task"
    assert places["a_b_c_d__.tasks"]["queue"]["name"] == "odd"
    assert places["a_b_c_d__-2.tasks"]["queue"]["name"] == "odder"
    assert places["task.results"]["queue"]["name"] == "task.results"
    assert places["task.results-exchange"]["exchange"]["name"] == "bridge.results"
    assert places["task.gone"]["exchange"]["name"] == "bridge.gone"
    assert places["routed.tasks"]["exchange"] == {"name": "orders", "vhost": "/"}
    assert channels["routed.tasks"]["address"] == "{topicName}.{tenantId}"
    assert set(channels["routed.tasks"]["parameters"]) == {"topicName", "tenantId"}
    assert channels["a_b_c_d__.gone"]["address"] == "a b/c~d%é"


def test_the_channels_are_what_the_bridge_declares(contract: Contract, settings: Settings) -> None:
    """The names come from one plan: nothing in the document that no bridge makes."""
    bindings = [c["bindings"]["amqp"] for c in contract.asyncapi["channels"].values()]
    told = {(b.get("queue") or b.get("exchange"))["name"] for b in bindings}
    names = settings.broker.names
    own = {names.dead_letters, names.dead_exchange, names.parked, names.wait}

    assert told == {part.name for part in plan.topology(settings)} - own


def test_a_topic_that_never_answers_has_no_results(contract: Contract) -> None:
    """A worker developer would wait for something that nobody reads."""
    names = [n for n in contract.asyncapi["channels"] if n.startswith("silent.")]

    assert names == ["silent.tasks", "silent.gone"]
    assert "reply" not in contract.asyncapi["operations"]["silent.send-tasks"]
    assert "silent.result" not in contract.bundle["$defs"]


def test_no_credentials_are_shown(tmp_path: Path) -> None:
    """The document is made to be passed on."""
    urls = ["amqps://spy:hunter2@mq-1/pay%2Fments", "amqp://spy:hunter2@[::1]:5673/pay%2Fments"]
    broker = {"urls": urls, "heartbeat": "1s"}
    made = schema.asyncapi(given_settings(tmp_path, broker=broker))

    assert "hunter2" not in json.dumps(made)
    assert "spy" not in json.dumps(made)
    servers = made["servers"].values()
    assert [(s["host"], s["protocol"]) for s in servers] == [
        ("mq-1:5671", "amqps"),
        ("[::1]:5673", "amqp"),
    ]
    assert made["channels"]["task.tasks"]["bindings"]["amqp"]["queue"]["vhost"] == "pay/ments"


# -- the command ---------------------------------------------------------------------------------


def command(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", "schema", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.defpath, **environ},
    )


@pytest.mark.parametrize("form", ["asyncapi", "json-schema"])
def test_the_command_prints_the_same_every_time(
    form: str, tmp_path: Path, contract: Contract
) -> None:
    """Kept in a repository, it shows what changed and nothing else."""
    given_settings(tmp_path)

    runs = [command("--format", form, cwd=tmp_path, PYTHONHASHSEED=seed) for seed in ("1", "2")]

    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    whole = contract.asyncapi if form == "asyncapi" else contract.bundle
    assert json.loads(runs[0].stdout) == json.loads(json.dumps(whole))


def test_bad_settings_are_exit_code_2(tmp_path: Path) -> None:
    """A pipeline must not publish half a contract."""
    (tmp_path / "bridge.toml").write_text("[topics.pay]\nbodi = 1\n", encoding="utf-8")

    done = command(cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "topics.pay.bodi" in done.stderr


# -- task messages -------------------------------------------------------------------------------


def built(settings: Settings, name: str, **changes: Any) -> Any:
    values = {"amount": 5, "note": None, "order": [1], "traceparent": "00-1-2-01"}
    task = LockedTask(
        id="t1",
        topic_name=name,
        process_instance_id="p1",
        process_definition_key="order",
        activity_id="charge",
        business_key="b1",
        tenant_id="north",
        create_time="2026-01-02T03:04:05.678+0000",
        extension_properties={"sla": "gold"},
        **changes,
    )
    topic = plan.topics(settings)[name]
    named = topic.fetch.get("variables") or values
    seen = {name: value for name, value in values.items() if name in named}
    return task_message.build(
        task,
        topic.shape,
        token="0.t1.-.x",
        values=seen,
        types=dict.fromkeys(seen, "String"),
        timestamp=1,
    )


def properties_of(message: Any) -> dict[str, Any]:
    """As they stand on the wire."""
    names = "message_id correlation_id reply_to type content_type content_encoding timestamp app_id"
    found = {name: getattr(message, name) for name in names.split()}
    priority = {} if message.priority is None else {"priority": message.priority}
    return {**found, **priority, "delivery_mode": 2, "expiration": str(message.expiration_ms)}


ORDINARY = [name for name in TOPICS if name.isascii()]


@pytest.mark.parametrize("retries", [None, 2])
@pytest.mark.parametrize("name", ORDINARY)
def test_a_task_message_keeps_the_contract(
    settings: Settings, contract: Contract, name: str, retries: int | None
) -> None:
    """In every body shape and reply profile."""
    made = built(settings, name, retries=retries)

    body, headers, properties = json.loads(made.body), dict(made.headers), properties_of(made)
    found = contract.problems(f"{name}.task", body, headers=headers, properties=properties)
    assert found == []


def test_every_header_is_published(settings: Settings, contract: Contract) -> None:
    """A header that the schema does not know is one that nobody may rely on."""
    known = contract.bundle["$defs"]["TaskHeaders"]["properties"]

    assert set(built(settings, "task", retries=1).headers) == set(known)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("task", {}),
        ("task", [1]),
        ("named", None),
        ("variables", {"amount": 1, "secret": 2}),
        ("variables", [1]),
        ("celery", [[], {}]),
        ("celery", [["positional"], {}, {}]),
        ("celery", {"amount": 1}),
    ],
)
def test_another_body_is_no_task_message(contract: Contract, name: str, body: Any) -> None:
    """Each shape is a shape of its own."""
    assert contract.problems(f"{name}.task", body)


def test_the_task_of_another_topic_is_refused(settings: Settings, contract: Contract) -> None:
    """A consumer on the wrong queue finds out by the schema."""
    body = json.loads(built(settings, "task").body)

    assert contract.problems("task.task", {**body, "topicName": "other"})
    assert contract.problems("task.task", {**body, "schemaVersion": 2})
    assert contract.problems("named.task", {**body, "topicName": "named"})  # more than it asked for


# -- results -------------------------------------------------------------------------------------


def bridge_takes(settings: Settings, name: str, body: Any, outcome: str | None = None) -> bool:
    """Whether the bridge would tell the engine, or park the message."""
    headers = {} if outcome is None else {"outcome": outcome}
    delivery = Delivery(
        queue="q", body=json.dumps(body).encode(), headers=headers, generation=1, tag=1
    )
    topic = plan.topics(settings)[name]
    try:
        written(read(delivery, topic.replies), topic.allowed_variables)
    except (ResultRefused, ValueRefused):
        return False
    return True


def written(result: Result, allowed: tuple[str, ...] | None) -> None:
    match result:
        case Complete() | Failure():
            sets = [result.variables, result.local_variables]
        case BpmnError() | ExtendLock():
            sets = [result.variables]
        case _:
            sets = []
    for variables in sets:
        names_allowed(variables, allowed)
        typed(variables)


KEPT: list[tuple[str, str | None, Any]] = [
    ("task", None, {}),
    ("task", None, {"score": 7, "text": "ü", "list": [1, {"a": None}], "none": None}),
    ("task", None, {"total": {"value": "7", "type": "Long"}}),
    ("task", None, {"total": {"value": 7, "type": "currency"}}),
    ("task", None, {"total": {"value": 7, "type": "String", "unit": "m"}}),
    (
        "task",
        None,
        {"f": {"value": "", "type": "File", "valueInfo": {"filename": "a", "mimetype": "a/b"}}},
    ),
    ("task", None, {"file": {"value": "YQ==", "type": "file", "valueInfo": {"filename": "a"}}}),
    ("task", None, {"x": {"value": 1, "type": "Integer", "valueInfo": {"transient": True}}}),
    ("task", None, {"x": {"value": 1, "type": "Integer", "valueInfo": {"odd": None}}}),
    ("task", None, {"text": "x" * STRING_MAX, "n" * 255: 1}),
    ("task", "complete", {"variables": {"a": 1}, "localVariables": None, "more": 1}),
    ("task", None, {"$outcome": "complete", "variables": {"a": 1}}),
    ("task", "failure", {}),
    ("task", "failure", {"errorMessage": "m", "errorDetails": "d", "retries": 0}),
    ("task", "failure", {"retryTimeout": 0, "variables": {"a": 1}}),
    ("task", "failure", {"retries": "2", "retryTimeout": "5000"}),
    ("task", None, {"$outcome": "failure", "errorMessage": None}),
    ("task", None, {"$outcome": None, "score": 7}),
    ("fenced", None, {"$outcome": None, "paid": True}),
    ("mute", None, {"$outcome": None}),
    ("celery", None, {"status": "SUCCESS", "result": {"$outcome": None, "paid": True}}),
    ("task", "bpmnError", {"errorCode": "E", "errorMessage": None, "variables": None}),
    ("task", "extendLock", {}),
    ("task", "extendLock", {"newDuration": 600_000, "variables": {"percent": 4}}),
    ("task", "extendLock", {"newDuration": "600000"}),
    ("task", "unlock", {"anything": 1}),
    ("task", None, {"$outcome": "unlock"}),
    ("rate", None, 0.5),
    ("rate", None, None),
    ("rate", None, {"rate": 1}),
    ("fenced", None, {"paid": True}),
    ("fenced", "failure", {"variables": {"paid": 1}}),
    ("mute", None, {}),
    ("celery", None, {"status": "SUCCESS", "result": {"a": 1}, "task_id": "t", "children": []}),
    ("celery", None, {"status": "SUCCESS", "result": None}),
    ("celery", None, {"status": "SUCCESS", "result": {"$outcome": "bpmnError", "errorCode": "E"}}),
    ("celery", None, {"status": "FAILURE", "result": {"exc_type": "E"}, "traceback": "t"}),
    ("celery", None, {"status": "PROGRESS"}),
    ("celery-fenced", None, {"status": "SUCCESS", "result": 5}),
    (
        "celery-fenced",
        None,
        {"status": "SUCCESS", "result": {"__type__": "decimal", "__value__": "1.5"}},
    ),
    ("spring", None, "text"),
    ("spring", "failure", {"errorMessage": "m"}),
]
BROKEN: list[tuple[str, str | None, Any]] = [
    ("task", None, 5),
    ("task", None, [1]),
    ("task", None, None),
    ("task", None, {"": 1}),
    ("task", None, {"n" * 256: 1}),
    ("task", None, {"text": "x" * (STRING_MAX + 1)}),
    ("task", None, {f"v{n}": n for n in range(1001)}),
    ("task", None, {"total": {"value": 1.5, "type": "Long"}}),
    ("task", None, {"total": {"value": True, "type": "integer"}}),
    ("task", None, {"x": {"value": "maybe", "type": "Boolean"}}),
    ("task", None, {"x": {"value": 1, "type": "String"}}),
    ("task", None, {"x": {"value": 1, "type": "Null"}}),
    ("task", None, {"file": {"value": "YQ==", "type": "File"}}),
    ("task", None, {"file": {"value": None, "type": "File", "valueInfo": {"filename": "a"}}}),
    ("task", None, {"o": {"value": "{}", "type": "Object", "valueInfo": {}}}),
    ("task", None, {"x": {"value": 1, "type": "Integer", "valueInfo": {"odd": 1}}}),
    ("task", None, {"$outcome": "done"}),
    ("task", None, {"$outcome": "bpmnError"}),
    ("task", "complete", [1]),
    ("task", "complete", {"variables": [1]}),
    ("task", "failure", "broken"),
    ("task", "failure", {"errorMessage": 5}),
    ("task", "failure", {"retries": -1}),
    ("task", "failure", {"retries": 2**31}),
    ("task", "failure", {"retryTimeout": "5s"}),
    ("task", "failure", {"retries": "-1"}),
    ("task", "failure", {"retries": ""}),
    ("task", "extendLock", {"newDuration": "00"}),
    ("fenced", None, {"$outcome": None, "other": 1}),
    ("mute", None, {"$outcome": None, "paid": 1}),
    ("task", "bpmnError", {"errorMessage": "no code"}),
    ("task", "bpmnError", {"errorCode": ""}),
    ("task", "extendLock", {"newDuration": 0}),
    ("task", "extendLock", {"newDuration": None}),
    ("fenced", None, {"other": 1}),
    ("fenced", "complete", {"localVariables": {"other": 1}}),
    ("fenced", "extendLock", {"variables": {"other": 1}}),
    ("mute", None, {"paid": 1}),
    ("mute", "bpmnError", {"errorCode": "E", "variables": {"paid": 1}}),
    ("celery", None, {"result": 1}),
    ("celery", None, {"status": 5}),
    ("celery", None, {"status": "SUCCESS", "result": 5}),
    ("celery-fenced", None, {"status": "SUCCESS", "result": {"other": 5}}),
]


@pytest.mark.parametrize(("name", "outcome", "body"), KEPT)
def test_what_the_contract_allows_is_applied(
    settings: Settings, contract: Contract, name: str, outcome: str | None, body: Any
) -> None:
    """A worker that validates before it sends is never parked for its shape."""
    headers = {} if outcome is None else {"outcome": outcome}

    assert contract.problems(f"{name}.{outcome or 'result'}", body, headers=headers) == []
    assert bridge_takes(settings, name, body, outcome)


@pytest.mark.parametrize(("name", "outcome", "body"), BROKEN)
def test_what_the_contract_refuses_is_parked(
    settings: Settings, contract: Contract, name: str, outcome: str | None, body: Any
) -> None:
    """And what would be parked is found before it is sent."""
    assert contract.problems(f"{name}.{outcome or 'result'}", body)
    assert not bridge_takes(settings, name, body, outcome)


@pytest.mark.parametrize(
    ("body", "is_exception"),
    [
        ({"value": None, "exception": {"message": "m", "stackTrace": []}}, True),
        ({"value": None, "exception": {"message": "m"}}, False),
        ({"value": 1, "exception": {"stackTrace": []}, "more": 1}, False),
        ({"exception": {"stackTrace": []}}, False),
        ({"value": 1, "exception": None}, False),
    ],
)
def test_a_listeners_exception_is_told_from_its_answers(
    settings: Settings, contract: Contract, body: Any, is_exception: bool
) -> None:
    """By its shape, as the bridge tells it: a process must not complete with an exception."""
    rules = plan.topics(settings)["spring"].replies

    result = read(Delivery("q", json.dumps(body).encode(), {}, 1, 1), rules)

    assert isinstance(result, Failure) == is_exception
    assert (contract.problems("spring.exception", body) == []) == is_exception
    assert (contract.problems("spring.result", body) == []) != is_exception


@pytest.mark.parametrize("outcome", VERBS)
def test_a_header_names_exactly_one_message(contract: Contract, outcome: str) -> None:
    """AsyncAPI: every message is one, and only one, of its channel's."""
    messages = contract.asyncapi["channels"]["task.results"]["messages"]
    by_header = {
        kind
        for kind in messages
        if not contract.problems(
            f"task.{kind}",
            {"errorCode": "E"},
            headers={"outcome": outcome},
            properties={"correlation_id": "c"},
        )
    }

    assert by_header == {outcome}


TYPED = st.fixed_dictionaries(
    {
        "value": JSON | st.sampled_from(["7", "true", "YQ==", "{}"]),
        "type": st.sampled_from(
            [s for t in ("Long", "File", "Json", "Date") for s in (t, t.lower())]
        )
        | st.text(max_size=4),
    },
    optional={
        "valueInfo": st.none()
        | st.dictionaries(st.sampled_from(["filename", "transient", "odd"]), JSON, max_size=2)
    },
)
WHOLE = ("retries", "retryTimeout", "newDuration")
MEMBERS = st.sampled_from(["variables", "localVariables", "errorCode", "errorMessage", *WHOLE])
DIGITS = st.integers(min_value=-1, max_value=9999).map(str) | st.sampled_from(["", "0", "007"])
BODIES = (
    JSON
    | st.dictionaries(st.sampled_from(["paid", "a", "$outcome"]), JSON | TYPED, max_size=3)
    | st.dictionaries(MEMBERS, JSON | st.dictionaries(st.just("paid"), TYPED), max_size=4)
    | st.dictionaries(st.sampled_from(WHOLE), DIGITS, min_size=1)
)


@patient
@given(
    body=BODIES,
    outcome=st.none() | st.sampled_from(list(VERBS)),
    name=st.sampled_from(["task", "rate", "fenced"]),
)
def test_the_contract_never_refuses_what_the_bridge_takes(
    body: Any, outcome: str | None, name: str
) -> None:
    """A worker that the schema turned away would have been right.  The exception: odd spellings
    of whole numbers, which the contract does not promise.
    """
    if bridge_takes(the_settings(), name, body, outcome) and not _oddly_spelt(body):
        assert the_contract().problems(f"{name}.{outcome or 'result'}", body) == []


def _oddly_spelt(body: Any) -> bool:
    """Such as " 3", "+3", "3.0", "1_000" and true."""
    numbers = [body.get(key) for key in WHOLE] if isinstance(body, dict) else []
    return any(
        isinstance(number, bool) or (isinstance(number, str) and not re.fullmatch("[0-9]+", number))
        for number in numbers
    )


@patient
@given(body=BODIES, outcome=st.none() | st.sampled_from(list(VERBS)))
def test_what_the_contract_allows_can_be_read(body: Any, outcome: str | None) -> None:
    """What a schema cannot say is about single values; the shape of a body it says whole."""
    if not the_contract().problems(f"rate.{outcome or 'result'}", body):
        headers = {} if outcome is None else {"outcome": outcome}
        delivery = Delivery("q", json.dumps(body).encode(), headers, 1, 1)

        result = read(delivery, plan.topics(the_settings())["rate"].replies)

        assert isinstance(result, get_args(Result))


def test_a_topic_tells_its_shape_and_profile(contract: Contract) -> None:
    """What a worker has to answer with depends on them."""
    messages = contract.asyncapi["components"]["messages"]
    told = {name: messages[f"{name}.task"]["x-topic"] for name in ("variable", "celery", "silent")}

    assert told == {
        "variable": {"name": "variable", "body": "variable:order", "reply": "json"},
        "celery": {"name": "celery", "body": "celery", "reply": "celery"},
        "silent": {"name": "silent", "body": "task", "reply": "none"},
    }


def test_every_outcome_of_the_bridge_is_published(contract: Contract) -> None:
    """A new verb is part of the contract from its first day."""
    assert set(VERBS) <= set(contract.asyncapi["channels"]["task.results"]["messages"])


def test_a_gone_notice_names_the_task(contract: Contract) -> None:
    """Nothing else is promised."""
    assert contract.problems("task.gone", {"taskId": "t1"}) == []
    assert contract.problems("task.gone", {"task": "t1"})


@pytest.mark.parametrize("outcome", [None, *VERBS])
def test_a_header_without_a_value_is_no_header(
    settings: Settings, contract: Contract, outcome: str | None
) -> None:
    """Some clients cannot leave a header out; the bridge reads null as none."""
    headers = {"outcome": outcome}
    delivery = Delivery("q", b'{"errorCode": "E"}', headers, generation=1, tag=1)

    is_plain = contract.problems("task.result", {"errorCode": "E"}, headers=headers) == []

    assert is_plain == (outcome is None)
    result = read(delivery, plan.topics(settings)["task"].replies)
    assert isinstance(result, Complete) == (outcome in (None, "complete"))
    assert (result == Complete(variables={"errorCode": "E"})) == is_plain
