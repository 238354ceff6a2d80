"""What a worker's message means: the table of the contract, and no way around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ResultRefused
from bridge.messages import BpmnError, Complete, Delivery, ExtendLock, Failure, Result, Unlock
from bridge.results import Profile, ReplyRules, read

JSON = ReplyRules()


def delivery(
    body: bytes | str | Any = b"",
    headers: dict[str, Any] | None = None,
    content_type: str | None = "application/json",
) -> Delivery:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery("q", content, headers or {}, generation=1, tag=1, content_type=content_type)


def meant(body: Any = b"", outcome: Any = None, rules: ReplyRules = JSON) -> Result:
    return read(delivery(body, {} if outcome is None else {"outcome": outcome}), rules)


def reason(body: Any = b"", outcome: Any = None, rules: ReplyRules = JSON) -> str:
    with pytest.raises(ResultRefused) as refused:
        meant(body, outcome, rules)
    return refused.value.reason


# Nothing more than a value


@pytest.mark.parametrize(
    ("body", "variables"),
    [
        ({}, {}),
        (b"", {}),
        (b" \r\n\t", {}),
        ({"a": 1, "b": None, "c": {"d": []}}, {"a": 1, "b": None, "c": {"d": []}}),
        ({"outcome": "failure"}, {"outcome": "failure"}),
        ({"variables": {"a": 1}}, {"variables": {"a": 1}}),
        (b'\n{"a": "\xc3\xa4"}', {"a": "ä"}),
        (b'{"big": 9223372036854775808}', {"big": 2**63}),
    ],
)
def test_an_object_is_the_variables(body: Any, variables: dict[str, Any]) -> None:
    """A consumer that was there before needs to know nothing of engines."""
    assert meant(body) == Complete(variables=variables)


@pytest.mark.parametrize("value", [1, 1.5, "done", True, None, [1, 2]])
def test_any_other_value_is_the_topics_result_variable(value: Any) -> None:
    """A function's return value needs a name that only the topic can give."""
    rules = ReplyRules(result_variable="answer")

    assert meant(value, rules=rules) == Complete(variables={"answer": value})
    assert reason(value) == "no-result-variable"


def test_an_object_stays_the_variables_where_a_result_variable_is_set() -> None:
    """The name is only for values that have none."""
    assert meant({"a": 1}, rules=ReplyRules(result_variable="x")) == Complete(variables={"a": 1})


def test_the_scope_of_the_topic_decides_where_variables_go() -> None:
    """`result_scope = "local"`."""
    local = ReplyRules(local=True, result_variable="x")

    assert meant({"a": 1}, rules=local) == Complete(local_variables={"a": 1})
    assert meant(5, rules=local) == Complete(local_variables={"x": 5})


# With an outcome


@pytest.mark.parametrize(
    ("outcome", "body", "result"),
    [
        ("complete", {"variables": {"a": 1}}, Complete(variables={"a": 1})),
        ("complete", {"localVariables": {"a": 1}}, Complete(local_variables={"a": 1})),
        ("complete", {"a": 1}, Complete()),
        ("complete", b"", Complete()),
        ("complete", {"variables": None, "localVariables": None}, Complete()),
        ("failure", b"", Failure()),
        (
            "failure",
            {"errorMessage": "m", "errorDetails": "d", "retries": 2, "retryTimeout": 500},
            Failure(error_message="m", error_details="d", retries=2, retry_timeout=500),
        ),
        ("failure", {"retries": 0}, Failure(retries=0)),
        (
            "failure",
            {"variables": {"a": 1}, "localVariables": {"b": 2}},
            Failure(variables={"a": 1}, local_variables={"b": 2}),
        ),
        (
            "bpmnError",
            {"errorCode": "E1", "errorMessage": "m", "variables": {"a": 1}},
            BpmnError(error_code="E1", error_message="m", variables={"a": 1}),
        ),
        ("extendLock", {"newDuration": 60_000}, ExtendLock(new_duration=60_000)),
        ("extendLock", b"", ExtendLock()),
        (
            "extendLock",
            {"newDuration": 1, "variables": {"progress": 5}},
            ExtendLock(new_duration=1, variables={"progress": 5}),
        ),
        ("unlock", {}, Unlock()),
        ("unlock", b"", Unlock()),
        ("failure", {"workerId": "me", "unknown": [1]}, Failure()),
    ],
)
def test_an_outcome_makes_the_body_the_engines_own_request(
    outcome: str, body: Any, result: Result
) -> None:
    """One contract with the engine's manual; members the verb does not know are ignored."""
    assert meant(body, outcome) == result
    if isinstance(body, dict):
        assert meant({"$outcome": outcome, **body}) == result


def test_the_names_of_the_code_are_not_the_contract() -> None:
    """What is read once is sent for ever: `error_code` would be a second spelling to keep."""
    assert meant({"error_message": "x"}, "failure") == Failure()


def test_the_header_goes_before_the_member() -> None:
    """A body that is passed through must not change what its sender says."""
    assert isinstance(meant({"$outcome": "failure"}, "unlock"), Unlock)


def test_the_member_is_no_variable() -> None:
    """It says what the body means and is not part of it."""
    rules = ReplyRules(result_variable="x")

    assert meant({"$outcome": "complete", "variables": {}}, rules=rules) == Complete()


@pytest.mark.parametrize("outcome", ["Complete", "", "done", 5, True, ["failure"], {}])
def test_an_unknown_outcome_is_refused(outcome: Any) -> None:
    """Taken for a success, a misspelt failure would complete the task."""
    assert reason({}, outcome) == "bad-outcome"


@pytest.mark.parametrize("outcome", ["Complete", None, 5, ["failure"], {}])
def test_an_unknown_outcome_in_the_body_is_refused(outcome: Any) -> None:
    """The same for stacks without headers; null included."""
    if outcome is None:
        assert meant({"$outcome": None}) == Complete()
    else:
        assert reason({"$outcome": outcome}) == "bad-outcome"


@pytest.mark.parametrize(
    ("outcome", "body"),
    [
        ("complete", [1]),
        ("complete", "text"),
        ("complete", None),
        ("complete", {"variables": [1]}),
        ("complete", {"variables": "a"}),
        ("failure", {"retries": -1}),
        ("failure", {"retries": 2**31}),
        ("failure", {"retries": "many"}),
        ("failure", {"retries": 1.5}),
        ("failure", {"retryTimeout": -1}),
        ("failure", {"errorMessage": 5}),
        ("bpmnError", {}),
        ("bpmnError", b""),
        ("bpmnError", {"errorCode": ""}),
        ("bpmnError", {"errorCode": None}),
        ("bpmnError", {"errorCode": 5}),
        ("extendLock", {"newDuration": 0}),
        ("extendLock", {"newDuration": -5}),
        ("extendLock", {"newDuration": "soon"}),
        ("unlock", []),
    ],
)
def test_a_body_that_the_verb_cannot_take_is_refused(outcome: str, body: Any) -> None:
    """Parked with its reason, not guessed at."""
    assert reason(body, outcome) == "bad-body"


def test_the_reason_names_the_member_and_no_value() -> None:
    """The parked message may be read by more people than the variables."""
    with pytest.raises(ResultRefused) as refused:
        meant({"retries": "s3cret"}, "failure")

    assert "retries" in refused.value.detail
    assert "s3cret" not in refused.value.detail


# Bytes


@pytest.mark.parametrize(
    "body",
    [b"{", b"no json", b"\xff\xfe", b"NaN", b'{"a": Infinity}', b'{"a": "\\ud800"}', b"{} {}"],
)
def test_what_is_not_utf_8_json_is_refused(body: bytes) -> None:
    """NaN and half characters are no JSON, whatever some libraries write."""
    assert reason(body) == "bad-json"


def test_a_body_as_deep_as_a_well_is_refused() -> None:
    """No stack overflow on a caller's thread."""
    assert reason(b"[" * 100_000) == "bad-json"


@pytest.mark.parametrize("profile", ["json", "celery", "spring", "none"])
def test_a_body_above_the_limit_is_refused_unread(profile: Profile) -> None:
    """A flood of large results must not fill the memory."""
    rules = ReplyRules(profile, max_bytes=10)

    assert reason(b" " * 11, rules=rules) == "too-large"
    if profile in ("json", "none"):
        assert meant(b" " * 10, rules=rules) == Complete()


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream"])
def test_the_content_type_is_ignored(content_type: str | None) -> None:
    """Many clients set none or a wrong one."""
    assert read(delivery({"a": 1}, content_type=content_type), JSON) == Complete(variables={"a": 1})


# Stacks that answer in their own shape

CELERY = ReplyRules("celery", result_variable="answer")


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ({"status": "SUCCESS", "result": {"a": 1}}, Complete(variables={"a": 1})),
        ({"status": "SUCCESS", "result": None}, Complete()),
        ({"status": "SUCCESS"}, Complete()),
        ({"status": "SUCCESS", "result": 5}, Complete(variables={"answer": 5})),
        (
            {"status": "SUCCESS", "result": {"$outcome": "bpmnError", "errorCode": "E"}},
            BpmnError(error_code="E"),
        ),
        (
            {
                "status": "FAILURE",
                "result": {"exc_type": "ValueError", "exc_message": ["bad", 5]},
                "traceback": "Traceback ...",
            },
            Failure(error_message="ValueError: bad, 5", error_details="Traceback ..."),
        ),
        (
            {"status": "FAILURE", "result": {"exc_message": "text"}, "traceback": None},
            Failure(error_message="text"),
        ),
        (
            {"status": "FAILURE", "result": {"exc_type": "KeyError", "exc_message": []}},
            Failure(error_message="KeyError"),
        ),
        ({"status": "FAILURE", "result": "boom"}, Failure(error_message="FAILURE")),
        ({"status": "REVOKED", "result": None}, Failure(error_message="REVOKED")),
        ({"status": "RETRY", "result": {}}, ExtendLock()),
        ({"status": "STARTED"}, ExtendLock()),
        ({"status": "RECEIVED"}, ExtendLock()),
        ({"status": "PENDING"}, ExtendLock()),
        ({"status": "PROGRESS", "result": {"percent": 40}}, ExtendLock()),
    ],
)
def test_celerys_own_result_message_is_understood(body: Any, result: Result) -> None:
    """A Celery worker answers with nothing but its rpc:// backend."""
    assert meant(body, rules=CELERY) == result


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"result": 5}, "bad-body"),
        ([1], "bad-body"),
        (b"", "bad-body"),
        ({"status": None}, "bad-body"),
        ({"status": ["SUCCESS"]}, "bad-body"),
        ({"status": "SUCCESS", "result": {"$outcome": "won"}}, "bad-outcome"),
        (b"x", "bad-json"),
    ],
)
def test_what_celery_does_not_send_is_refused(body: Any, why: str) -> None:
    """A message of another kind in a Celery topic's result queue is a mistake to be seen."""
    assert reason(body, rules=CELERY) == why


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ({"__type__": "decimal", "__value__": "12.50"}, "12.50"),
        ({"__type__": "datetime", "__value__": "2026-01-02T03:04:05"}, "2026-01-02T03:04:05"),
        ({"__type__": "uuid", "__value__": {"hex": "0" * 32}}, "0" * 32),
        ({"__type__": "base64", "__value__": "/w=="}, "/w=="),
        ([{"a": {"__type__": "date", "__value__": "2026-01-02"}}], [{"a": "2026-01-02"}]),
        ({"__type__": "decimal"}, {"__type__": "decimal"}),
    ],
)
def test_what_celery_writes_in_its_own_way_is_its_text(written: Any, read_as: Any) -> None:
    """A Decimal in a process is an amount, not an object of Celery's serializer."""
    body = {"status": "SUCCESS", "result": {"a": written}}

    assert meant(body, rules=CELERY) == Complete(variables={"a": read_as})


def test_a_value_of_celery_without_a_name_is_refused() -> None:
    """The same rule as for every stack."""
    assert reason({"status": "SUCCESS", "result": 5}, rules=ReplyRules("celery")) == (
        "no-result-variable"
    )


SPRING = ReplyRules("spring", result_variable="answer")


@pytest.mark.parametrize(
    ("body", "content_type", "result"),
    [
        ({"a": 1}, "application/json", Complete(variables={"a": 1})),
        (b"5", "application/json", Complete(variables={"answer": 5})),
        (b"5", "text/plain", Complete(variables={"answer": "5"})),
        (b'{"a": 1}', "text/plain;charset=UTF-8", Complete(variables={"answer": '{"a": 1}'})),
        (b"{}", None, Complete()),
    ],
)
def test_what_a_rabbit_listener_returns_is_understood(
    body: Any, content_type: str | None, result: Result
) -> None:
    """Without a JSON converter Spring sends a String as text, which is no JSON."""
    assert read(delivery(body, content_type=content_type), SPRING) == result


def test_spring_can_set_the_outcome_header() -> None:
    """A MessagePostProcessor on the reply."""
    message = delivery({"errorMessage": "m"}, {"outcome": "failure"})

    assert read(message, SPRING) == Failure(error_message="m")


def test_a_serialized_java_object_is_a_failure() -> None:
    """Nobody here reads Java's own serialization; whoever owns the listener must see it."""
    message = delivery(b"\xac\xed", content_type="application/x-java-serialized-object")

    result = read(message, SPRING)

    assert isinstance(result, Failure)
    assert "serialized Java object" in str(result.error_message)
    assert "JSON message converter" in str(result.error_message)


def test_an_exception_that_a_listener_answers_with_is_a_failure() -> None:
    """It comes as a JSON object, under the type of what the method would have returned."""
    frame = {"className": "a.B", "methodName": "c", "fileName": "B.java", "lineNumber": 3}
    cause = {"message": "inner", "stackTrace": None, "cause": None}
    thrown = {"message": "outer", "stackTrace": [frame, 5], "cause": cause}
    message = delivery(
        {"value": None, "exception": thrown}, {"__TypeId__": "a.Receipt"}, "application/json"
    )

    assert read(message, SPRING) == Failure(
        error_message="outer",
        error_details="outer\n    at a.B.c(B.java:3)\nCaused by:\ninner",
    )


@pytest.mark.parametrize(
    "body",
    [
        {"value": 1, "exception": None},
        {"value": None, "exception": {"message": "m"}},
        {"value": None, "exception": {"stackTrace": []}, "more": 1},
    ],
)
def test_an_answer_that_only_looks_like_an_exception_completes(body: dict[str, Any]) -> None:
    """Variables may have these names."""
    assert read(delivery(body), SPRING) == Complete(variables=body)


def test_text_that_is_not_utf_8_is_refused() -> None:
    """No guessing of encodings."""
    with pytest.raises(ResultRefused) as refused:
        read(delivery(b"\xe4", content_type="text/plain"), SPRING)

    assert refused.value.reason == "bad-json"


# Whatever arrives

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(
    ["$outcome", "variables", "localVariables", "retries", "retryTimeout", "errorCode", "status"]
)
outcomes = st.sampled_from(["complete", "failure", "bpmnError", "extendLock", "unlock", "SUCCESS"])
bodies = st.dictionaries(members, values | outcomes).map(lambda v: json.dumps(v).encode())
rules = st.builds(
    ReplyRules,
    st.sampled_from(["json", "celery", "spring", "none"]),
    st.none() | st.just("answer"),
    st.booleans(),
)
types = st.sampled_from([None, "text/plain", "application/x-java-serialized-object", "x"])


@given(
    st.binary() | bodies,
    st.dictionaries(st.just("outcome") | st.text(), values | outcomes | st.binary(), max_size=2),
    types,
    rules,
)
def test_whatever_arrives_is_understood_or_refused(
    body: bytes, headers: dict[str, Any], content_type: str | None, rules: ReplyRules
) -> None:
    """One bad message never stops the others: no other exception leaves `read`."""
    message = delivery(body, headers, content_type)

    try:
        result: object = read(message, rules)
    except ResultRefused as refused:
        result = refused

    assert isinstance(result, Complete | Failure | BpmnError | ExtendLock | Unlock | ResultRefused)
