"""The parts of the conformance kit: examples, messages, judgement, report, and the relay's frames.

The kit as a whole is judged in tests/acceptance/test_conform.py, on workers good and bad.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pika
import psutil
import pytest
from typer.testing import CliRunner

from bridge.broker.client import Client, Taken
from bridge.cli import app
from bridge.conform import CannotRun, Verdict, Wanted, as_json, as_junit, as_text, exit_code, line
from bridge.conform.accidents import unroutable_answer
from bridge.conform.answers import business_error, judge, persistent
from bridge.conform.bench import Bench
from bridge.conform.cases import CASES
from bridge.conform.examples import ADDED, TABLES, load_examples
from bridge.conform.program import Program
from bridge.conform.relay import Relay
from bridge.conform.setup import prepare
from bridge.conform.tasks import Answer, Tasks
from bridge.conform.verdict import Failed, NotTried
from bridge.conform.wire import Frames
from bridge.errors import SettingsError
from bridge.messages import BpmnError, Complete, Delivery, ExtendLock, Failure, Unlock
from bridge.topics import Topic
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]

# -- examples --------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str, name: str = "conform.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_examples_come_from_toml_or_json(tmp_path: Path) -> None:
    """JSON for what TOML cannot say: null."""
    toml = '[success]\nvariables = { amount = 1.5 }\nexpect = { status = "ok" }\n'
    text = json.dumps({"null": {"variables": {"amount": None}}})

    from_toml = load_examples(written(tmp_path, toml))
    from_json = load_examples(written(tmp_path, text, "conform.json"))

    assert from_toml["success"].variables == {"amount": 1.5}
    assert from_toml["success"].expect == {"status": "ok"}
    assert from_json["null"].variables == {"amount": None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sucess]\n", "sucess is no key of the examples; did you mean 'success'"),
        ("[success]\nvariable = {}\n", "success.variable is no key"),
        ("success = 1\n", "success is no table"),
        ("[failure]\nvariables = 1\n", "failure.variables is no table"),
        ("[failure\n", "is no TOML"),
        (f"[success]\nvariables = {{ n = {2**63} }}\n", "success.variables: variable 'n'"),
    ],
)
def test_a_mistake_in_the_examples_is_named_with_its_cure(
    text: str, words: str, tmp_path: Path
) -> None:
    """A table that is spelled wrong would leave its case untried, in silence."""
    with pytest.raises(CannotRun, match="; ") as refused:
        load_examples(written(tmp_path, text))

    assert words in str(refused.value)


def test_examples_that_are_not_there_are_told(tmp_path: Path) -> None:
    """Running without them would try half of the cases."""
    with pytest.raises(CannotRun, match=r"missing\.toml cannot be read"):
        load_examples(tmp_path / "missing.toml")


def test_every_addition_has_a_table_that_replaces_it() -> None:
    """Or a worker with strict variables could not be tried."""
    assert set(ADDED) <= set(TABLES)


# -- what a run needs ------------------------------------------------------------------------------


def test_without_settings_the_topic_has_defaults() -> None:
    """A worker developer has a worker and a broker, and no bridge.toml."""
    wanted = Wanted(topic="pay", amqp_url="amqp://guest:guest@127.0.0.1:1/x")

    setup = prepare(None, wanted, {})

    assert (setup.topic.name, setup.queue, setup.prefix) == ("pay", "pay", "bridge")
    assert setup.amqp_url == "amqp://guest:guest@127.0.0.1:1/x"
    assert setup.command is None
    assert setup.worker_environ(7)["AMQP_URL"] == "amqp://guest:guest@127.0.0.1:7/x"


def test_the_settings_say_how_the_topic_is_sent_and_read(tmp_path: Path) -> None:
    """The kit and the bridge read one file, so what passes here works there."""
    text = '[topics.pay]\nqueue = "payments"\nbody = "variables"\nresult_variable = "r"\n'
    config = written(tmp_path, text, "bridge.toml")

    setup = prepare(config, Wanted(topic="pay"), {})

    assert setup.queue == "payments"
    assert setup.topic.shape.body == "variables"
    assert setup.topic.replies.result_variable == "r"


def test_the_exchanges_are_the_bridges_own(tmp_path: Path) -> None:
    """The kit brings them where no bridge was; one that comes later must find what it makes."""
    config = written(tmp_path, '[broker]\nprefix = "b2"\n[topics.pay]\n', "bridge.toml")

    found = prepare(config, Wanted(topic="pay"), {}).exchanges

    kinds = {exchange.name: exchange.type for exchange in found}
    assert kinds == {"b2.results": "topic", "b2.gone": "topic", "b2.dead": "fanout"}


def test_a_queue_leads_to_the_topic_that_it_serves(tmp_path: Path) -> None:
    """Whoever knows the queue of a worker need not know what the bridge calls its topic."""
    text = '[topics.pay]\nqueue = "payments"\nbody = "variables"\n[topics.other]\n'
    config = written(tmp_path, text, "bridge.toml")

    served = prepare(config, Wanted(queue="payments"), {})
    named = prepare(config, Wanted(queue="elsewhere", topic="pay"), {})
    unknown = prepare(config, Wanted(queue="elsewhere"), {})

    assert (served.topic.name, served.queue, served.topic.shape.body) == (
        "pay",
        "payments",
        "variables",
    )
    assert (named.topic.name, named.queue) == ("pay", "elsewhere")
    assert (unknown.topic.name, unknown.queue) == ("elsewhere", "elsewhere")


def test_a_topic_with_an_exchange_needs_the_name_of_the_queue(tmp_path: Path) -> None:
    """The exchange's owner decides where its messages end; a queue of the topic's name may be
    nobody's, and the worker would be waited for in vain.
    """
    config = written(tmp_path, '[topics.pay]\nexchange = "orders"\n', "bridge.toml")

    with pytest.raises(CannotRun, match=r"topics\.pay\.exchange is set.*--queue"):
        prepare(config, Wanted(topic="pay"), {})

    assert prepare(config, Wanted(topic="pay", queue="charges"), {}).queue == "charges"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(), "--topic or --queue is missing"),
        (Wanted(topic="a", command="no-such-program x"), "there is no program 'no-such-program'"),
        (Wanted(topic="a", command="'"), "--cmd: No closing quotation"),
        (Wanted(topic="a", command=""), "there is no program ''"),
        (Wanted(topic="a", amqp_url="http://x"), "--amqp-url (or AMQP_URL): "),
        (Wanted(topic="a", amqp_url="amqps://x", command=sys.executable), "cannot look into TLS"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_starts(wanted: Wanted, words: str) -> None:
    """One sentence with the option's name."""
    with pytest.raises(CannotRun) as refused:
        prepare(None, wanted, {})

    assert words in str(refused.value)


def test_a_topic_whose_workers_never_answer_is_refused(tmp_path: Path) -> None:
    """There is nothing to judge."""
    config = written(tmp_path, '[topics.pay]\nreply = "none"\n', "bridge.toml")

    with pytest.raises(CannotRun, match=r"topics\.pay\.reply"):
        prepare(config, Wanted(topic="pay"), {})


def test_bad_settings_are_the_settings_own_error(tmp_path: Path) -> None:
    """With the key's path, as in every other command."""
    config = written(tmp_path, "[topics.pay]\nretrys = 1\n", "bridge.toml")

    with pytest.raises(SettingsError, match="retrys"):
        prepare(config, Wanted(topic="pay"), {})


# -- messages and answers --------------------------------------------------------------------------


def topic() -> Topic:
    return prepare(None, Wanted(topic="pay"), {}).topic


@pytest.fixture
def tasks() -> Tasks:
    return Tasks(topic(), "payments", "answers")


def answered(correlation_id: str | None, body: Any, **changes: Any) -> Taken:
    """An answer as it comes from the queue."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    known: dict[str, Any] = {"headers": {}, "correlation_id": correlation_id}
    return Taken(Delivery("answers", content, generation=0, tag=1, **(known | changes)), True)


def test_a_message_is_the_bridges_own(tasks: Tasks) -> None:
    """What the kit sends is what the bridge will send."""
    task_id, message = tasks.make({"amount": 12.5, "note": None})

    body = json.loads(message.body)
    assert (message.exchange, message.routing_key, message.reply_to) == ("", "payments", "answers")
    assert message.message_id == f"{task_id}:-"
    assert message.headers["taskId"] == body["taskId"] == task_id
    assert body["variables"] == {"amount": 12.5, "note": None}
    assert body["variableTypes"] == {"amount": "Double", "note": "Null"}
    assert message.expiration_ms is not None, "what a worker leaves behind goes by itself"


@pytest.mark.parametrize("table", ADDED)
def test_what_a_case_adds_is_carried_unchanged(table: str, tasks: Tasks) -> None:
    """A case that sends something else than it says judges nothing."""
    _, message = tasks.make(ADDED[table])

    sent = json.loads(message.body)["variables"]
    assert sent == {
        name: value["value"] if isinstance(value, dict) else value
        for name, value in ADDED[table].items()
    }


def test_the_large_body_has_a_megabyte(tasks: Tasks) -> None:
    """More than any frame, so that it comes in pieces."""
    assert len(tasks.make(ADDED["large"])[1].body) > 2**20


def test_the_poison_is_no_json(tasks: Tasks) -> None:
    """All of its properties are good: only the body is bad."""
    task_id, message = tasks.make_unreadable()

    assert message.message_id == f"{task_id}:-"
    with pytest.raises(json.JSONDecodeError):
        json.loads(message.body)


def test_an_answer_names_its_task_and_its_result(tasks: Tasks) -> None:
    """Read by the bridge's own code."""
    task_id, message = tasks.make({})

    answer = tasks.read(answered(message.correlation_id, {"paid": True}))

    assert answer == Answer(Complete(variables={"paid": True}), "", task_id, "", True)


def test_another_kits_token_names_no_task(tasks: Tasks) -> None:
    """Each run signs with a key of its own: what is left of an earlier one counts for nothing."""
    _, message = Tasks(topic(), "payments", "answers").make({})

    answer = tasks.read(answered(message.correlation_id, {}))

    assert answer.task_id is None
    assert "damaged, forged" in answer.token_refused


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"gibberish", "bad-json"), ({"n": 2**63}, "value-refused"), (7, "no-result-variable")],
)
def test_an_answer_that_the_bridge_would_park_has_no_result(
    body: Any, words: str, tasks: Tasks
) -> None:
    """A value that no engine can hold is found here, not in production."""
    _, message = tasks.make({})

    answer = tasks.read(answered(message.correlation_id, body))

    assert answer.result is None
    assert words in answer.refused


@pytest.mark.parametrize(("reason", "fails"), [("rejected", True), ("delivery_limit", False)])
def test_a_rejection_counts_as_failure_and_a_loop_does_not(
    reason: str, fails: bool, tasks: Tasks
) -> None:
    """The contract lets a worker reject; requeueing until the broker gives up burns a core."""
    _, message = tasks.make({})
    headers = {"x-death": [{"reason": reason, "queue": "payments"}]}

    died = tasks.read(answered(message.correlation_id, message.body, headers=headers, type="pay"))

    assert died.dead == reason
    assert isinstance(died.result, Failure) is fails
    assert bool(died.refused) is not fails


def test_progress_is_not_the_end_of_a_task(tasks: Tasks) -> None:
    """A slow worker that says so is waited for."""
    _, message = tasks.make({})

    answer = tasks.read(answered(message.correlation_id, {}, headers={"outcome": "extendLock"}))

    assert isinstance(answer.result, ExtendLock)
    assert not answer.final


GOOD = Answer(
    Complete(variables={"n": 1, "typed": {"value": 2, "type": "Long"}}), "", "t", "", True
)


def test_a_good_answer_passes() -> None:
    """With its type or without, a value is the same."""
    judge(GOOD, Complete, {"n": 1, "typed": 2})
    judge(GOOD, None, {})


@pytest.mark.parametrize(
    ("answer", "kind", "expect", "words"),
    [
        (GOOD, Failure, {}, "answered complete, not failure"),
        (GOOD, Complete, {"m": 1}, "no variable 'm'"),
        (GOOD, Complete, {"n": 2}, "'n' is 1, not 2"),
        (replace(GOOD, result=None, refused="bad-json"), Complete, {}, "would park"),
        (replace(GOOD, result=None, refused="gave up", dead="delivery_limit"), None, {}, "gave up"),
        (replace(GOOD, result=BpmnError(error_code="E")), Complete, {}, "answered bpmnError"),
        (replace(GOOD, result=Unlock()), Complete, {}, "answered unlock"),
        (replace(GOOD, result=ExtendLock()), Complete, {}, "answered extendLock"),
        (replace(GOOD, result=Failure(error_message="no")), Complete, {}, "complete: no"),
    ],
)
def test_a_bad_answer_is_told_as_it_was_seen(
    answer: Answer, kind: Any, expect: dict[str, Any], words: str
) -> None:
    """The sentence is all that the developer of the worker has."""
    with pytest.raises(Failed) as failed:
        judge(answer, kind, expect)

    assert words in str(failed.value)


def bench_of(settings: str, tmp_path: Path, *heard: Answer) -> Bench:
    """A bench that has heard something, and never connects."""
    setup = prepare(written(tmp_path, settings, "bridge.toml"), Wanted(topic="pay"), {})
    bench = Bench(setup, Client(setup.broker, "test"))
    bench.heard += heard
    return bench


CELERY = '[topics.pay]\nreply = "celery"\ncelery_task = "app.pay"\n'
TRANSIENT = replace(GOOD, persistent=False)


def test_a_transient_answer_fails_with_the_advice_of_its_stack(tmp_path: Path) -> None:
    """Nobody sets delivery_mode in a Celery application; and where the bridge makes the result
    queue nothing is to be set, for a quorum queue keeps every message.
    """
    with pytest.raises(NotTried, match="quorum queue keeps"):
        persistent(bench_of(CELERY, tmp_path, TRANSIENT))
    with pytest.raises(Failed) as celery:
        persistent(bench_of(f'{CELERY}[broker]\ndeclare = "never"\n', tmp_path, TRANSIENT))
    with pytest.raises(Failed) as plain:
        persistent(bench_of("[topics.pay]\n", tmp_path, TRANSIENT))

    persistent(bench_of(CELERY, tmp_path, GOOD))
    assert "result_persistent" in celery.value.advice
    assert not plain.value.advice


@pytest.mark.parametrize("reply", ["celery", "spring"])
def test_a_stack_that_publishes_by_itself_is_not_asked_for_mandatory(
    reply: str, tmp_path: Path
) -> None:
    """Neither library can be told to, so the advice would lead nowhere."""
    settings = CELERY if reply == "celery" else '[topics.pay]\nreply = "spring"\n'

    with pytest.raises(NotTried, match="publishes its answers itself"):
        unroutable_answer(bench_of(settings, tmp_path))


def test_an_untried_outcome_names_the_option_that_lets_it_be_tried(tmp_path: Path) -> None:
    """Nobody can guess that there are examples."""
    with pytest.raises(NotTried, match=r"no \[business_error\] in a file given with --examples"):
        business_error(bench_of("[topics.pay]\n", tmp_path))


# -- report ----------------------------------------------------------------------------------------

VERDICTS = [
    Verdict("success", "passed", 0.04),
    Verdict("kill", "failed", 2.1, "the task is lost", "Acknowledge last."),
    Verdict("stop", "not tried", 0.0, "no --cmd"),
]


def test_the_exit_code_follows_the_failures() -> None:
    """What was not tried is no failure; CI goes by this alone."""
    assert exit_code(VERDICTS) == 1
    assert exit_code([VERDICTS[0], VERDICTS[2]]) == 0
    assert exit_code([VERDICTS[2]]) == 2, "nothing was tried"


def test_each_case_that_did_not_pass_gets_its_sentence() -> None:
    """What was seen, then what mends it."""
    told = as_text(VERDICTS).splitlines()

    assert "kill: the task is lost. Acknowledge last." in told
    assert "stop: no --cmd." in told
    assert told[-1] == "1 passed, 1 failed, 1 not tried"


def test_a_row_has_color_only_where_it_is_wanted() -> None:
    """A log in CI is no terminal."""
    assert line(VERDICTS[0], color=False).split() == ["success", "passed", "0.0", "s"]
    assert "\x1b[31m" in line(VERDICTS[1], color=True)
    assert "\x1b" not in "".join(line(verdict, color=False) for verdict in VERDICTS)


def test_the_json_has_every_verdict() -> None:
    """For programs, with the sums that they would make."""
    report = json.loads(as_json(VERDICTS))

    sums = (report["exitCode"], report["passed"], report["failed"], report["notTried"])
    assert sums == (1, 1, 1, 1)
    assert report["cases"][1]["advice"] == "Acknowledge last."


def test_the_junit_document_survives_what_a_worker_says() -> None:
    """Last words may hold characters that no XML can."""
    strange = replace(VERDICTS[1], detail="it said \x1b[1m\x00 <&>")

    suite = ElementTree.fromstring(as_junit([VERDICTS[0], strange, VERDICTS[2]]))

    counts = [suite.get(name) for name in ("tests", "failures", "skipped")]
    assert counts == ["3", "1", "1"]
    failure = suite.find("testcase[@name='kill']/failure")
    assert failure is not None
    assert failure.get("message", "").endswith("<&>")
    assert failure.text == "Acknowledge last."


def test_every_case_has_advice_in_whole_sentences() -> None:
    """One that only says that it failed leaves its reader alone."""
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.advice.endswith(".") for case in CASES)


def test_the_help_leads_to_the_examples() -> None:
    """Without them half of the contract is not tried, and a newcomer has none to look at."""
    told = " ".join(CliRunner().invoke(app, ["conform", "--help"]).output.split())

    assert "a file (TOML, or JSON for null), given with --examples" in told
    shipped = re.findall(r"--examples (consumers/\S+)", told)
    assert shipped
    assert all(load_examples(ROOT / path) for path in shipped)


def test_the_help_warns_of_work_that_is_really_done() -> None:
    """Tried on a worker in production, the examples would charge somebody's card."""
    told = " ".join(CliRunner().invoke(app, ["conform", "--help"]).output.split())

    assert "really does the examples" in told
    assert "never use it on one in production" in told


def test_a_junit_file_without_a_folder_is_refused_before_the_run(tmp_path: Path) -> None:
    """A run of minutes would end without its verdicts."""
    file = str(tmp_path / "missing" / "conform.xml")
    arguments = ["conform", "--topic", "pay", "--junit-xml", file]
    arguments += ["--amqp-url", "amqp://guest:guest@127.0.0.1:1/x"]

    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == 2
    assert "--junit-xml: there is no folder" in done.output
    assert "RabbitMQ" not in done.output, "it was not even asked"


# -- the relay -------------------------------------------------------------------------------------


def method(frame: Any) -> bytes:
    """A method frame as a client library writes it."""
    marshalled: bytes = pika.frame.Method(1, frame).marshal()
    return marshalled


BASIC = pika.spec.Basic
GREETING = b"AMQP\x00\x00\x09\x01"
ACK = method(BASIC.Ack(delivery_tag=7))
ANSWER = method(BASIC.Publish(exchange="", routing_key="answers"))
CONTENT = pika.frame.Body(1, b"x" * 300).marshal()


@pytest.mark.parametrize("size", [1, 3, 7, 8, 100, 10_000])
def test_frames_are_found_however_they_are_cut(size: int) -> None:
    """TCP keeps no boundaries."""
    stream = GREETING + ACK + ANSWER + CONTENT
    frames = Frames()

    found = [
        frame for at in range(0, len(stream), size) for frame in frames.feed(stream[at : at + size])
    ]

    assert [frame.raw for frame in found] == [GREETING, ACK, ANSWER, CONTENT]
    assert [frame.destination for frame in found] == [None, None, ("", "answers"), None]
    assert [frame.settles for frame in found] == [False, True, False, False]


@pytest.mark.parametrize(
    ("frame", "requeues"),
    [
        (BASIC.Reject(delivery_tag=1, requeue=True), True),
        (BASIC.Reject(delivery_tag=1, requeue=False), False),
        (BASIC.Nack(delivery_tag=1, multiple=False, requeue=True), True),
        (BASIC.Nack(delivery_tag=1, multiple=True, requeue=False), False),
        (BASIC.Ack(delivery_tag=1, multiple=True), False),
    ],
)
def test_a_requeue_is_told_from_a_rejection(frame: Any, requeues: bool) -> None:
    """The one is a loop, the other the end of it."""
    [found] = Frames().feed(method(frame))

    assert found.requeues is requeues


class Ends:
    """A relay with a worker's socket on one side and the broker's on the other."""

    def __init__(self, relay: Relay, listener: socket.socket) -> None:
        self.relay = relay
        self.worker = socket.create_connection(("127.0.0.1", relay.port), 5)
        self.broker, _ = listener.accept()
        self.broker.settimeout(5)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        port = listener.getsockname()[1]
        with Relay("127.0.0.1", port, lambda _, key: key == "answers") as relay:
            ends = Ends(relay, listener)
            with ends.worker, ends.broker:
                yield ends


def received(end: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (data := end.recv(count - len(got))):
        got += data
    return got


def test_an_answer_is_held_back_with_all_that_follows_it(ends: Ends) -> None:
    """What the worker said before has arrived: whoever acknowledges first has lost the task."""
    ends.relay.hold_answers()

    ends.worker.sendall(ACK + ANSWER + CONTENT)

    assert ends.relay.held.wait(5)
    assert received(ends.broker, len(ACK)) == ACK
    assert ends.relay.settled == 1
    ends.relay.cut()
    assert ends.broker.recv(1) == b"", "the answer never arrives"


def test_what_is_released_arrives_whole_and_in_order(ends: Ends) -> None:
    """A stop is judged by what the worker sends afterwards."""
    ends.relay.hold_answers()
    ends.worker.sendall(ANSWER + CONTENT)
    assert ends.relay.held.wait(5)

    ends.relay.release()
    ends.worker.sendall(ACK)

    whole = ANSWER + CONTENT + ACK
    assert received(ends.broker, len(whole)) == whole


def test_other_messages_pass_while_answers_are_held(ends: Ends) -> None:
    """Celery publishes events of its own."""
    event = method(BASIC.Publish(exchange="celeryev", routing_key="worker.online"))
    ends.relay.hold_answers()

    ends.worker.sendall(event)

    assert received(ends.broker, len(event)) == event
    assert not ends.relay.held.is_set()


def test_deliveries_are_held_back_and_then_released(ends: Ends) -> None:
    """While they are, the broker counts them as unacknowledged, however fast the worker is."""
    ends.relay.hold_deliveries()
    ends.broker.sendall(CONTENT)
    ends.worker.settimeout(0.2)

    with pytest.raises(TimeoutError):
        ends.worker.recv(1)
    ends.relay.release()

    ends.worker.settimeout(5)
    assert received(ends.worker, len(CONTENT)) == CONTENT


# -- the process -----------------------------------------------------------------------------------


@pytest.fixture
def program() -> Iterator[Program]:
    shell = "sleep 60 & echo $!; echo word; wait"
    program = Program(["/bin/sh", "-c", shell], {"PATH": "/usr/bin:/bin"})
    yield program
    program.close()


def test_a_program_is_killed_with_its_children_and_started_again(program: Program) -> None:
    """`npm start` and `go run` are parents of the worker."""
    for _ in range(2):
        program.start()
        eventually(lambda: re.fullmatch(r"\d+ \| word", program.last_words()))
        child = psutil.Process(int(program.last_words().split()[0]))

        program.kill()

        assert not program.alive
        assert program.code == -9
        eventually(partial(is_gone, child))


class _Stop(Exception):
    """What a signal's handler raises, in the middle of whatever is being done."""


def test_a_kit_that_is_stopped_as_it_starts_a_worker_still_kills_it() -> None:
    """Cancelled in that moment it would leave a worker that nobody knows."""
    mark = uuid.uuid4().hex

    def stop(*_: object) -> None:
        raise _Stop

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for microseconds in range(100, 6000, 100):
            program = Program([sys.executable, "-c", "import time; time.sleep(60)", mark], {})
            timer = threading.Timer(microseconds / 1e6, os.kill, (os.getpid(), signal.SIGTERM))
            with suppress(_Stop):
                timer.start()
                program.start()
                timer.join()
            with suppress(_Stop):
                timer.join()
            program.close()
    finally:
        signal.signal(signal.SIGTERM, before)

    left = [child for child in psutil.Process().children() if mark in child.cmdline()]
    for child in left:
        child.kill()
        child.wait()
    assert not left


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended, waited for by its parent or not."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_sigterm_goes_to_the_process_alone(program: Program) -> None:
    """As a container gets it: a script that does not pass it on leaves the worker running."""
    program.start()
    eventually(lambda: "word" in program.last_words())
    child = psutil.Process(int(program.last_words().split()[0]))

    program.terminate()

    eventually(lambda: program.code == -15)
    assert not is_gone(child)
    program.kill()
    eventually(partial(is_gone, child))
