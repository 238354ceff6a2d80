"""The Python helper without a broker: what functions are given, and what is made of their ends."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

import bridge.worker
from bridge.worker import BpmnError, Outcome, Retry, Task, Worker
from bridge.worker.functions import variables_of

SAMPLES = Path(__file__).parents[2] / "consumers" / "python"


class Code(Enum):
    """Of a business error; the second one is no code."""

    DECLINED = "DECLINED"
    NONE = ""


class Order(BaseModel):
    """A Json variable."""

    price: float
    placed: date


def call(function: Callable[..., Any], /, **variables: Any) -> Outcome:
    worker = Worker()
    worker.task("t")(function)
    return worker.call("t", **variables)


def completed(outcome: Outcome) -> Any:
    assert outcome.outcome == "complete", outcome
    return outcome.body["variables"]


def failure(outcome: Outcome) -> str:
    """The message of a failure that nobody will try again."""
    assert outcome.outcome == "failure"
    assert set(outcome.body) == {"errorMessage", "retries"}
    assert outcome.body["retries"] == 0
    return str(outcome.body["errorMessage"])


# -- what a function is given ----------------------------------------------------------------------


def test_parameters_are_the_variables_of_their_names() -> None:
    """No other plumbing: what the process has besides is left out."""

    def add(a: int, b: int = 5, *, c: int = 7) -> dict[str, int]:
        return {"sum": a + b + c}

    assert completed(call(add, a=1, c=2, other="x")) == {"sum": 8}


def test_a_parameter_without_a_type_takes_anything() -> None:
    """Types are help, not a duty."""
    assert completed(call(lambda a: {"got": a}, a=[1, None])) == {"got": [1, None]}


def test_values_arrive_as_their_types_say() -> None:
    """What JSON has no form for is text there; models come from Json variables."""

    def kinds(day: date, amount: Decimal, order: Order, tags: set[str] | None) -> dict[str, Any]:
        assert order == Order(price=1.5, placed=date(2026, 1, 2))
        return {"kinds": [type(v).__name__ for v in (day, amount, order, tags)]}

    order = {"price": 1.5, "placed": "2026-01-02"}
    found = completed(call(kinds, day="2026-01-01", amount="1.10", order=order, tags=None))

    assert found == {"kinds": ["date", "Decimal", "Order", "NoneType"]}


def test_the_task_comes_by_name_or_by_type() -> None:
    """For whoever needs the business key, progress, or to know that the task is gone."""

    def named(task: Any) -> dict[str, Any]:
        return {"id": task.headers["taskId"], "topic": task.topic, "all": task.variables}

    def typed(it: Task) -> dict[str, bool]:
        it.progress({"percent": 1})
        return {"gone": it.is_gone()}

    assert completed(call(named, a=1)) == {"id": "call", "topic": "t", "all": {"a": 1}}
    assert completed(call(typed)) == {"gone": False}


def test_a_variable_may_have_any_name() -> None:
    """Those of `call`, of models and of Python's own are in use in processes too."""

    def names(topic: str, self: int, model_config: int, _private: int, copy: int) -> dict[str, Any]:
        return {"got": [topic, self, model_config, _private, copy]}

    worker = Worker()
    worker.task("t")(names)

    outcome = worker.call("t", topic="x", self=1, model_config=2, _private=3, copy=4)

    assert completed(outcome) == {"got": ["x", 1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"taskId": "id", "variables": {"a": 1}}, {"a": 1}),
        ({"taskId": "mine", "a": 1}, {"taskId": "mine", "a": 1}),
        ({"taskId": "mine", "variables": 7}, {"taskId": "mine", "variables": 7}),
        ({"variables": {"a": 1}}, {"variables": {"a": 1}}),
    ],
    ids=["task", "variables", "two names of ours", "one name of ours"],
)
def test_a_process_may_name_its_variables_like_the_message_does(
    body: dict[str, Any], found: dict[str, Any]
) -> None:
    """With `body = "variables"` they stand where the task's own fields would."""
    assert variables_of(json.dumps(body).encode()) == found


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"a": "secret"}, "variable a: Input should be a valid integer, unable to parse"),
        ({"a": 1, "order": {"price": "secret", "placed": "2026-01-02"}}, "variable order.price: "),
        ({}, "variable a: Field required"),
        ({"a": None}, "variable a: Input should be a valid integer"),
        ({"a": 1, "code": "secret-secret"}, "variable code: String should have at most 3 char"),
    ],
)
def test_a_wrong_variable_fails_for_good_and_is_named_without_its_value(
    variables: dict[str, Any], message: str
) -> None:
    """Another attempt would meet the same; what is in it may be nobody's business."""

    def take(
        a: int, order: Order | None = None, code: Annotated[str, Field(max_length=3)] = ""
    ) -> None:
        raise AssertionError("called with the wrong variables")

    said = failure(call(take, **variables))

    assert message in said
    assert "secret" not in said


def test_every_wrong_variable_is_named_at_once() -> None:
    """One round of corrections."""

    def take(a: int, b: int) -> None: ...

    said = failure(call(take, a="x"))

    assert said.startswith("variable a: ")
    assert "; variable b: " in said


# -- what becomes of its end -----------------------------------------------------------------------


def test_none_completes_without_variables() -> None:
    """A function that has nothing to say is done all the same."""
    assert completed(call(lambda: None)) == {}


def test_what_is_returned_is_written_as_json() -> None:
    """Models, dates and decimals too, at any depth."""
    order = Order(price=1.5, placed=date(2026, 1, 2))
    at = datetime(2026, 1, 2, 3, tzinfo=UTC)

    assert completed(call(lambda: {"o": [order], "at": at, "d": Decimal("1.10")})) == {
        "o": [{"price": 1.5, "placed": "2026-01-02"}],
        "at": "2026-01-02T03:00:00Z",
        "d": "1.10",
    }
    assert completed(call(lambda: order)) == {"price": 1.5, "placed": "2026-01-02"}


@pytest.mark.parametrize(
    "result",
    [[1], 7, {"a": float("nan")}, {"a": object()}, {"a": "\ud800"}],
    ids=["list", "number", "NaN", "object", "half a character"],
)
def test_a_result_that_no_answer_can_hold_is_a_failure(result: Any) -> None:
    """Said to the operator, not lost on the way."""
    outcome = call(lambda: result)

    assert outcome.outcome == "failure"
    assert "retries" not in outcome.body


def test_a_bpmn_error_carries_code_message_and_variables() -> None:
    """A path of the process, no failure."""

    def pay() -> None:
        raise BpmnError("DECLINED", "no funds", {"missing": 12})

    body = {"errorCode": "DECLINED", "errorMessage": "no funds", "variables": {"missing": 12}}
    assert call(pay) == Outcome("bpmnError", body)


@pytest.mark.parametrize("code", ["", None, Code.NONE])
def test_a_bpmn_error_without_a_code_is_a_mistake_in_the_program(code: Any) -> None:
    """The engine refuses it as an answer; raised in the function it is a failure that shows the
    line.
    """

    def pay() -> None:
        raise BpmnError(code, "no funds")

    outcome = call(pay)

    assert outcome.outcome == "failure"
    assert outcome.body["errorMessage"].startswith("ValueError: BpmnError needs a code")
    assert "in pay" in outcome.body["errorDetails"]


@pytest.mark.parametrize("after", [1.5, timedelta(seconds=1.5)])
def test_retry_names_the_pause(after: float | timedelta) -> None:
    """In the engine's milliseconds; how many attempts are left is the bridge's affair."""

    def busy() -> None:
        raise Retry("busy", after)

    assert call(busy) == Outcome("failure", {"errorMessage": "busy", "retryTimeout": 1500})


def test_retry_without_a_pause_leaves_it_to_the_topic() -> None:
    """Its `retry_pauses` are made for that."""

    def busy() -> None:
        raise Retry("busy")

    assert call(busy) == Outcome("failure", {"errorMessage": "busy"})


def test_an_exit_in_an_async_function_ends_its_task_alone() -> None:
    """asyncio lets an exit through its loop: every other task would fail with it."""

    async def leave() -> None:
        raise SystemExit(3)

    for _ in range(2):
        outcome = call(leave)
        assert outcome.outcome == "failure"
        assert outcome.body["errorMessage"] == "RuntimeError: SystemExit: 3"


def test_a_code_may_be_an_enum_and_a_pause_never_is_negative() -> None:
    """What the engine refuses would become an incident."""

    def decline() -> None:
        raise BpmnError(Code.DECLINED, "no")  # type: ignore[arg-type]

    def later() -> None:
        raise Retry("a moment too late", after=-3)

    assert json.loads(json.dumps(call(decline).body))["errorCode"] == "DECLINED"
    assert call(later).body["retryTimeout"] == 0


@pytest.mark.parametrize("error", [LookupError("not there"), SystemExit(3)], ids=repr)
def test_any_other_exception_is_a_failure_with_its_traceback(error: BaseException) -> None:
    """Even one that would end a thread without a word, and the task with it."""

    def fall() -> None:
        error.add_note("a note")
        raise error

    outcome = call(fall)

    assert outcome.outcome == "failure"
    assert outcome.body["errorMessage"] == f"{type(error).__name__}: {error}"
    assert "in fall" in outcome.body["errorDetails"]


def test_progress_refuses_what_is_no_json_where_it_is_said() -> None:
    """In the function that made it, with its traceback."""

    def long(task: Task) -> None:
        with pytest.raises((TypeError, ValueError)):
            task.progress({"percent": object()})

    assert completed(call(long)) == {}


# -- async functions -------------------------------------------------------------------------------


def test_an_async_function_is_like_any_other() -> None:
    """Its results and its exceptions."""

    async def pay(amount: int) -> dict[str, int]:
        await asyncio.sleep(0)
        if amount > 1000:
            raise BpmnError("DECLINED")
        return {"paid": amount}

    assert completed(call(pay, amount=5)) == {"paid": 5}
    assert call(pay, amount=5000).body["errorCode"] == "DECLINED"


def test_call_works_inside_an_event_loop() -> None:
    """Tests of asynchronous programs run in one."""

    async def pay() -> dict[str, int]:
        return {"paid": 1}

    async def test() -> Outcome:
        return call(pay)

    assert completed(asyncio.run(test())) == {"paid": 1}


# -- mistakes in the program -----------------------------------------------------------------------


def test_the_decorated_function_stays_as_it_was() -> None:
    """It can be called and tested without the worker."""
    worker = Worker()

    @worker.task("t")
    def double(a: int) -> dict[str, int]:
        return {"double": 2 * a}

    assert double(2) == {"double": 4}


def test_a_topic_has_one_function() -> None:
    """Two would take each other's tasks."""
    worker = Worker()
    worker.task("t")(lambda: None)

    with pytest.raises(ValueError, match="'t' has a function already"):
        worker.task("t")(lambda: None)


def test_a_queue_has_one_function() -> None:
    """RabbitMQ would give each of two functions the other's tasks, every second one."""
    worker = Worker()
    worker.task("t", queue="q")(lambda: None)

    for topic, queue in (("u", "q"), ("q", None)):
        with pytest.raises(ValueError, match="queue 'q' has a function already"):
            worker.task(topic, queue=queue)(lambda: None)


@pytest.mark.parametrize("function", [lambda *a: None, lambda **a: None, lambda a, /: None])
def test_a_parameter_that_no_variable_can_be_given_to_is_refused(
    function: Callable[..., Any],
) -> None:
    """When the program starts, not with the first task."""
    with pytest.raises(TypeError, match="t: parameter a has no name"):
        Worker().task("t")(function)


@pytest.mark.parametrize("written", ["Invoice", "'Invoice'", "list['Invoice']"])
def test_a_type_that_only_a_type_checker_knows_is_refused(written: str) -> None:
    """When the program starts: variables are checked against it, none would ever pass."""
    known: dict[str, Any] = {}
    exec(f"def take(order: {written}) -> None: ...", known)

    with pytest.raises(TypeError, match="t: type 'Invoice' is not known when the program runs"):
        Worker().task("t")(known["take"])


def test_a_call_of_an_unknown_topic_names_the_known_ones() -> None:
    """Mostly a slip of the pen, in somebody's test."""
    worker = Worker()
    with pytest.raises(ValueError, match="'t' has no function; those that have one: none"):
        worker.call("t")
    for topic in ("pay", "ship"):
        worker.task(topic)(lambda: None)

    with pytest.raises(ValueError, match=r"'sihp' has no function; .*: 'pay', 'ship'"):
        worker.call("sihp")


def test_a_worker_of_no_tasks_at_once_is_refused() -> None:
    """For RabbitMQ a prefetch of 0 has no limit."""
    with pytest.raises(ValueError, match="prefetch"):
        Worker(prefetch=0)


def test_a_worker_without_functions_does_not_pretend_to_work() -> None:
    """It would sit there for ever."""
    with pytest.raises(ValueError, match="nothing to do"):
        Worker("amqp://localhost").run()


def test_an_address_that_is_none_is_refused_without_quoting_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may hold a password."""
    monkeypatch.delenv("AMQP_URL", raising=False)

    for url in (None, "localhost:secret", "http://u:secret@h", "amqp://u:secret@h:port/"):
        with pytest.raises(ValueError, match="AMQP_URL") as raised:
            Worker(url).run()
        assert "secret" not in str(raised.value)


def test_the_helper_needs_pika_and_pydantic_and_nothing_of_the_service() -> None:
    """A worker's image holds no bridge: who imports the helper imports no engine client."""
    allowed = {"pika", "pydantic", "pydantic_core", "typing_extensions", *sys.stdlib_module_names}
    files = list(Path(bridge.worker.__path__[0]).glob("*.py"))
    assert len(files) == 7

    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.startswith("bridge.worker.") or name.split(".")[0] in allowed, name


def test_the_example_of_the_package_takes_a_variable_that_is_null(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is copied first; a type without None would make every such task an incident."""
    monkeypatch.setenv("AMQP_URL", "amqp://localhost")
    monkeypatch.setattr(Worker, "run", lambda _: None)
    known: dict[str, Any] = {}
    prose, _, example = (bridge.worker.__doc__ or "").partition("\n\n    ")

    exec(textwrap.dedent(f"    {example}"), known)

    assert prose
    outcome = known["worker"].call("payment-processing", amount=7, currency=None)
    assert completed(outcome) == {"paymentStatus": "7.0 EUR"}


def test_the_tests_on_the_helper_s_page_pass_as_printed(tmp_path: Path) -> None:
    """What somebody copies to begin with."""
    page = (SAMPLES / "helper.md").read_text(encoding="utf-8")
    (printed,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "test_printed.py").write_text(printed, encoding="utf-8")
    path = os.pathsep.join((str(SAMPLES), str(SAMPLES.parents[1])))

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--rootdir", tmp_path, tmp_path],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{printed.count('def test_')} passed" in done.stdout


def test_a_task_never_shows_its_variables() -> None:
    """In a log line or a traceback it stands by itself."""
    seen: list[str] = []

    def look(task: Task) -> None:
        seen.append(repr(task))

    call(look, card=json.dumps({"number": "4111"}))

    assert "call" in seen[0]
    assert "4111" not in seen[0]
