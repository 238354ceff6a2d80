"""The conformance kit on real workers and a real RabbitMQ: good ones pass, bad ones are found out.

What makes the kit trustworthy is that each fault is charged to the case that is about it, and to no
other.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from pika.exceptions import ChannelClosedByBroker

from bridge import conform
from bridge.broker import BrokerOptions
from bridge.broker.client import Client
from bridge.conform.bench import ELSEWHERE, Bench
from bridge.conform.cases import CASES
from deploy.local import choice
from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bad_worker import FAULTS
from tests.support.proxy import Proxy, Way
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "consumers/python"
BAD = ROOT / "tests/support/bad_worker.py"
PAYMENT = "payment-processing"
NAMES = [case.name for case in CASES]

# What each of the samples cannot be asked for: it knows no such outcome.
SAMPLES = {
    "demo_worker": ("demo-worker", {"business-error"}),
    "payment_worker": (PAYMENT, set[str]()),
    "credit_score_worker": ("creditScoreChecker", {"business-error"}),
    "transcode_worker": ("transcodeVideo", {"business-error"}),
}
# Which cases each fault must make fail, where the worker is put through all of them ...
GUILTY_OF_ACCIDENTS = {
    # The first four make the kit wait for the whole of a limit.
    "hangs-without-connection": {"connection-cut"},
    "ignores-sigterm": {"stop"},
    "auto-ack": {"prefetch", "unroutable-answer", "kill", "stop", "connection-cut"},
    "acks-first": {"unroutable-answer", "kill", "connection-cut"},
    "never-acks": {"acknowledgement"},
    "no-prefetch": {"prefetch"},
    "requeues": {"poison"},
    "dies-of-poison": {"poison"},
    "keeps-poison": {"poison"},
    "not-mandatory": {"unroutable-answer"},
    "ends-in-silence": {"connection-cut"},
    "rejects": set[str](),
    "none": set[str](),
}
# ... and where the fault is in its answers, which no accident changes.
GUILTY_OF_ANSWERS = {
    "drops-failures": {"failure"},
    "drops-duplicates": {"duplicate"},
    "requeues-failures": {"failure"},
    "no-correlation-id": {"correlation-id"},
    "transient": {"persistent"},
    "latin-1": {"unicode"},
    "no-null": {"null"},
    "small-numbers": {"numbers"},
    "small-bodies": {"large-body"},
    "no-business-error": {"business-error"},
    "gibberish": set(NAMES[: NAMES.index("correlation-id")]),
}
# ... and where it shows in a few cases alone.
GUILTY_IN_A_FEW = {
    "deaf-after-cut": {"connection-cut"},
    "unconfirmed": {"unroutable-answer"},
    "requeues-unroutable": {"unroutable-answer"},
    "waits": set[str](),
    "crowd": set[str](),
}
GUILTY = GUILTY_OF_ACCIDENTS | GUILTY_OF_ANSWERS | GUILTY_IN_A_FEW
ANSWERS = tuple(NAMES[: NAMES.index("prefetch")])
A_FEW_CASES = {
    "deaf-after-cut": ("connection-cut",),
    "unconfirmed": ("unroutable-answer", "kill"),
    "requeues-unroutable": ("unroutable-answer", "kill"),
    "waits": ("unroutable-answer", "kill"),
    "crowd": ("prefetch", "acknowledgement"),
}
# What the developer is told, where a case has more than one thing to tell.
TOLD = {
    "keeps-poison": "neither acknowledged nor rejected",
    "requeues": "requeued again and again",
    "requeues-unroutable": "requeued again and again",
    "not-mandatory": "no queue took its answer",
    "hangs-without-connection": "neither reconnected nor ended within 20 s (--timeout",
    "deaf-after-cut": "did not answer the task it got again within 20 s (--timeout",
    "ends-in-silence": "ended with code 0",
    "acks-first": "acknowledged before its answer was out. Consume with manual acknowledgement",
    "drops-failures": "no answer within 10 s (--timeout allows for more)",
}
# Judging it the kit would accuse it of what it cannot know; it tells how to start it instead.
UNJUDGED = "ignores-amqp-url"
EXCHANGES = ("bridge.results", "bridge.dead", "bridge.gone")
# The sample, as the user that `external-task-bridge permissions` makes has to start it.
FENCED = """
import runpy, sys
from functools import partial
import bridge.worker
bridge.worker.Worker = partial(bridge.worker.Worker, results_exchange="bridge.results")
runpy.run_path(sys.argv[1], run_name="__main__")
"""
# What a good worker may take while a dozen of them start at once.
GOOD_SECONDS = 40.0
Runs = dict[str, "Future[list[conform.Verdict]]"]


def exists(amqp: Amqp, exchange: str) -> bool:
    try:
        amqp.channel.exchange_declare(exchange, passive=True)
    except ChannelClosedByBroker:
        return False
    return True


def one_run(
    node: choice.Broker,
    command: str,
    topic: str,
    examples: str,
    cases: tuple[str, ...] = (),
    *,
    timeout: float = 10,
) -> list[conform.Verdict]:
    """A worker's verdicts, on a virtual host of its own, of which nothing may be left."""
    vhost = f"conform-{uuid.uuid4().hex[:12]}"
    url = node.add_vhost(vhost)
    wanted = conform.Wanted(
        command=f"{sys.executable} {command}",
        topic=topic,
        amqp_url=url,
        examples=PYTHON / f"{examples}.toml",
        cases=cases,
        timeout=timeout,
    )
    setup = conform.prepare(None, wanted, {"PATH": "", "STEP_SECONDS": "0.01"})
    try:
        verdicts = conform.run(setup, lambda _: None)
        with Amqp(url) as amqp:
            assert amqp.count(topic) is None, "the kit left its queue behind"
            assert not any(exists(amqp, name) for name in EXCHANGES), "or an exchange"
    finally:
        node.delete_vhost(vhost)
    return verdicts


@pytest.fixture(scope="module")
def runs(broker_node: choice.Broker) -> Iterator[Runs]:
    """Every worker's run, several at a time: they mostly wait."""
    with ThreadPoolExecutor(12) as pool:
        started = {}
        for fault, few in A_FEW_CASES.items():
            started[fault] = pool.submit(
                one_run, broker_node, f"{BAD} {fault}", PAYMENT, "payment_worker", few
            )
        for fault in (*GUILTY_OF_ACCIDENTS, *GUILTY_OF_ANSWERS):
            cases = ANSWERS if fault in GUILTY_OF_ANSWERS else ()
            started[fault] = pool.submit(
                one_run, broker_node, f"{BAD} {fault}", PAYMENT, "payment_worker", cases
            )
        for name, (topic, _) in SAMPLES.items():
            command = f"{PYTHON / name}.py"
            started[name] = pool.submit(
                one_run, broker_node, command, topic, name, timeout=GOOD_SECONDS
            )
        command = shlex.join(["-c", FENCED, str(PYTHON / "helper_worker.py")])
        started["fenced"] = pool.submit(
            one_run, broker_node, command, PAYMENT, "payment_worker", timeout=GOOD_SECONDS
        )
        yield started


def marked(verdicts: list[conform.Verdict], mark: str) -> set[str]:
    return {verdict.case for verdict in verdicts if verdict.mark == mark}


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_samples_pass(sample: str, runs: Runs) -> None:
    """They are what people copy."""
    _, silent = SAMPLES[sample]

    verdicts = runs[sample].result()

    assert marked(verdicts, "failed") == set(), verdicts
    assert marked(verdicts, "not tried") == silent
    assert [verdict.case for verdict in verdicts] == NAMES


def test_a_worker_that_answers_through_the_exchange_passes(runs: Runs) -> None:
    """A virtual host without a bridge has no such exchange: the kit has to bring it."""
    verdicts = runs["fenced"].result()

    assert [verdict.case for verdict in verdicts if verdict.mark == "passed"] == NAMES, verdicts


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != UNJUDGED])
def test_a_fault_is_charged_to_its_case_and_to_no_other(fault: str, runs: Runs) -> None:
    """A kit that lets a bad worker pass is worse than none, and one that accuses the wrong thing
    sends its user looking there.
    """
    verdicts = runs[fault].result()

    assert marked(verdicts, "failed") == GUILTY[fault], verdicts
    told = " ".join(f"{verdict.detail}. {verdict.advice}" for verdict in verdicts)
    assert TOLD.get(fault, "") in told, verdicts
    assert all(
        verdict.advice and verdict.detail for verdict in verdicts if verdict.mark == "failed"
    )


def test_every_case_can_fail() -> None:
    """A case that no fault makes fail proves nothing."""
    assert set().union(*GUILTY.values()) == set(NAMES)


def test_a_worker_that_connects_elsewhere_is_told_how_to_be_started(amqp_url: str) -> None:
    """Past the relay it would fail half of the cases, whatever it does; as told it passes."""
    worker = f"{sys.executable} {BAD} {UNJUDGED}"
    environ = {"PATH": "/usr/bin:/bin", "BROKER_URL": amqp_url}
    wanted = conform.Wanted(worker, topic=PAYMENT, amqp_url=amqp_url, cases=("kill", "stop"))
    cure = ELSEWHERE.partition("--cmd ")[2].replace("MY_URL", "BROKER_URL").replace("...", worker)
    [as_typed] = shlex.split(cure)

    with pytest.raises(conform.CannotRun, match="by the name that it reads"):
        conform.run(conform.prepare(None, wanted, environ), lambda _: None)
    cured = conform.prepare(None, replace(wanted, command=as_typed), environ)

    assert marked(conform.run(cured, lambda _: None), "passed") == {"kill", "stop"}


def test_a_script_that_keeps_the_stop_signal_to_itself_is_found_out(amqp_url: str) -> None:
    """In a container the worker behind it is never told to stop, and killed in the end."""
    script = shlex.quote(f"{sys.executable} {BAD} none; :")
    wanted = conform.Wanted(
        command=f"/bin/sh -c {script}",
        topic=PAYMENT,
        amqp_url=amqp_url,
        cases=("stop",),
        timeout=5,
    )

    [verdict] = conform.run(conform.prepare(None, wanted, {}), lambda _: None)

    assert verdict.mark == "failed"
    assert "something of it still consumes" in verdict.detail


# -- what is left behind ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Hoarder:
    """A bench, a way to its broker that can be slow, and a worker that keeps all that it gets."""

    bench: Bench
    way: Proxy
    amqp: Amqp

    def holds_all(self) -> bool:
        return self.amqp.count(PAYMENT) == 0


@pytest.fixture
def hoarder(amqp_url: str) -> Iterator[Hoarder]:
    command = f"{sys.executable} {BAD} never-acks"
    with Proxy(amqp_url) as way, Amqp(amqp_url) as amqp:
        wanted = conform.Wanted(command, topic=PAYMENT, amqp_url=way.url)
        setup = conform.prepare(None, wanted, {"PATH": ""})
        direct = BrokerOptions(urls=(amqp_url,))
        with Client(direct, "test") as client, Bench(setup, client) as bench:
            yield Hoarder(bench, way, amqp)


def test_a_queue_is_taken_away_even_if_the_worker_is_missed_late(hoarder: Hoarder) -> None:
    """RabbitMQ gives a killed worker's messages back when it notices, not when it happens."""
    task_id = hoarder.bench.queues.send({"amount": 1, "currency": "EUR"})
    hoarder.bench.answers([task_id])

    hoarder.way.delay(1000, Way.TO_SERVER)
    hoarder.bench.__exit__(None, None, None)

    assert hoarder.amqp.count(PAYMENT) is None


def test_what_others_sent_stays_even_if_it_comes_back_late(hoarder: Hoarder) -> None:
    """A bridge may have found the queue: the worker that was killed had its task in hand."""
    hoarder.amqp.send("", PAYMENT, b"{}", reply_to="nowhere")
    eventually(hoarder.holds_all)

    hoarder.way.delay(1000, Way.TO_SERVER)
    hoarder.bench.__exit__(None, None, None)

    assert eventually(lambda: hoarder.amqp.count(PAYMENT)) == 1


def test_exchanges_of_others_stay(amqp_url: str) -> None:
    """One that was there first is a bridge's; one that got a binding meanwhile is by now."""
    command = f"{sys.executable} {BAD} none"
    wanted = conform.Wanted(command, topic=PAYMENT, amqp_url=amqp_url)
    setup = conform.prepare(None, wanted, {"PATH": ""})
    direct = BrokerOptions(urls=(amqp_url,))
    with Amqp(amqp_url) as amqp:
        amqp.channel.exchange_declare("bridge.gone", "topic", durable=True)

        with Client(direct, "test") as client, Bench(setup, client):
            assert all(exists(amqp, name) for name in EXCHANGES)
            amqp.channel.queue_declare("a.results", durable=True)
            amqp.channel.queue_bind("a.results", "bridge.results", "a")

        assert [exists(amqp, name) for name in EXCHANGES] == [True, False, True]


# -- a worker that runs already --------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """A virtual host with a queue that was there first."""

    url: str
    queue: str = "payments"

    def wanted(self, *cases: str, timeout: float = 10) -> conform.Setup:
        wanted = conform.Wanted(
            queue=self.queue,
            topic=PAYMENT,
            amqp_url=self.url,
            examples=PYTHON / "payment_worker.toml",
            cases=cases,
            timeout=timeout,
        )
        return conform.prepare(None, wanted, {})


@pytest.fixture
def running(amqp_url: str) -> Running:
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare("payments", durable=True)
    return Running(amqp_url)


def pay(message: Message) -> Reply:
    """The rules of the payment sample."""
    try:
        variables = message.json["variables"]
    except ValueError:
        return Reply({"errorMessage": "no JSON"}, "failure")
    amount = variables["amount"]
    if amount == 503:
        return Reply({"errorMessage": "503"}, "failure")
    if amount > 1000:
        return Reply({"errorCode": "PAYMENT_ERROR"}, "bpmnError")
    return Reply({"paymentStatus": f"{amount} {variables['currency']}"})


def test_a_running_worker_is_tried_as_far_as_it_can_be(running: Running) -> None:
    """Nobody else's process is killed; what cannot be seen from outside is said, not guessed."""
    with Worker(running.url, running.queue, pay):
        verdicts = conform.run(running.wanted(), lambda _: None)

    assert marked(verdicts, "failed") == set(), verdicts
    needs_command = set(NAMES[NAMES.index("prefetch") :])
    assert marked(verdicts, "not tried") == needs_command
    with Amqp(running.url) as amqp:
        assert amqp.count(running.queue) == 0, "an existing queue stays, without our messages"


def test_a_running_worker_that_requeues_for_ever_is_found_out(running: Running) -> None:
    """From outside a loop shows only as a message that is ready again and again."""
    command = [sys.executable, str(BAD), "requeues"]
    with Amqp(running.url) as amqp:
        amqp.channel.queue_declare(PAYMENT, durable=True)
    setup = Running(running.url, PAYMENT).wanted("poison")

    with subprocess.Popen(command, env={"AMQP_URL": running.url}) as worker:
        try:
            verdicts = conform.run(setup, lambda _: None)
        finally:
            worker.kill()

    assert marked(verdicts, "failed") == {"poison"}
    assert "again and again" in verdicts[0].detail


def test_what_a_queue_that_was_there_rejects_is_heard(amqp_url: str) -> None:
    """Its policy sends it to the bridge's exchange, where a bridge would take it for a failure."""
    command = [sys.executable, str(BAD), "rejects"]
    with Amqp(amqp_url) as amqp:
        dead = {"x-dead-letter-exchange": "bridge.dead"}
        amqp.channel.queue_declare(PAYMENT, durable=True, arguments=dead)
    setup = Running(amqp_url, PAYMENT).wanted("failure")

    with subprocess.Popen(command, env={"AMQP_URL": amqp_url}) as worker:
        try:
            verdicts = conform.run(setup, lambda _: None)
        finally:
            worker.kill()

    assert marked(verdicts, "passed") == {"failure"}, verdicts


# -- when there is nothing to judge ----------------------------------------------------------------


def test_other_peoples_messages_are_left_alone(running: Running) -> None:
    """The kit refuses a queue in use, rather than have a worker in a trial do real work."""
    with Amqp(running.url) as amqp:
        amqp.send("", running.queue, b"{}")

        with pytest.raises(conform.CannotRun, match="holds 1 messages"):
            conform.run(running.wanted(), lambda _: None)

        assert eventually(lambda: amqp.count(running.queue)) == 1


def test_a_worker_beside_the_one_in_trial_is_refused(amqp_url: str) -> None:
    """It would answer for it."""
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare(PAYMENT, durable=True)
        wanted = conform.Wanted(f"{sys.executable} {BAD} none", topic=PAYMENT, amqp_url=amqp_url)
        setup = conform.prepare(None, wanted, {})

        with Worker(amqp_url, PAYMENT, pay):
            eventually(lambda: amqp.consumers(PAYMENT))
            with pytest.raises(conform.CannotRun, match="other consumers"):
                conform.run(setup, lambda _: None)


def kit(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", "conform", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env={"AMQP_URL": url, "PATH": ""},
    )


def test_the_command_prints_a_table_and_advice(amqp_url: str, tmp_path: Path) -> None:
    """What a person reads, what their CI reads, and the exit code, of one run."""
    junit = tmp_path / "conform.xml"
    arguments = ["--topic", PAYMENT, "--cmd", f"{sys.executable} {BAD} transient"]
    arguments += ["--case", "persistent", "--case", "success", "--junit-xml", str(junit)]

    done = kit(*arguments, url=amqp_url)

    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["success", "not", "tried"]
    assert lines[1].split()[:2] == ["persistent", "failed"]
    assert "1 of 1 answers are transient. Publish answers with delivery_mode 2" in done.stdout
    assert lines[-1] == "1 failed, 1 not tried"
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "1")


def test_the_command_speaks_json(amqp_url: str) -> None:
    """Nothing but the document is on stdout."""
    arguments = ["--topic", PAYMENT, "--cmd", f"{sys.executable} {BAD} none", "--json"]

    done = kit(*arguments, "--case", "correlation-id", url=amqp_url)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] == 1
    assert [case["case"] for case in report["cases"]] == ["correlation-id"]


def test_a_run_that_tried_nothing_is_exit_code_2(amqp_url: str) -> None:
    """Green in CI, it would be taken for a worker that passed."""
    arguments = ["--topic", PAYMENT, "--cmd", f"{sys.executable} {BAD} none"]

    done = kit(*arguments, "--case", "success", url=amqp_url)

    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "1 not tried"
    assert done.stderr.startswith("no case was tried")


def test_a_worker_that_does_not_stay_is_exit_code_2_with_its_last_words(amqp_url: str) -> None:
    """There is nothing to judge, and the reason is the worker's own."""
    command = f"{sys.executable} -c \"raise SystemExit('no such luck')\""

    done = kit("--topic", "a", "--cmd", command, url=amqp_url)

    assert done.returncode == 2
    assert "no such luck" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kit_that_is_stopped_leaves_no_worker_behind(amqp_url: str) -> None:
    """CI cancels jobs; a worker left over would eat the next run's messages."""
    mark = uuid.uuid4().hex
    command = f"{sys.executable} {BAD} ignores-sigterm {mark}"
    started = subprocess.Popen(
        [sys.executable, "-m", "bridge", "conform", "--topic", PAYMENT, "--cmd", command],
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env={"AMQP_URL": amqp_url, "PATH": ""},
    )

    def workers() -> list[psutil.Process]:
        found = psutil.Process(started.pid).children() if started.poll() is None else []
        return [process for process in found if mark in process.cmdline()]

    [worker] = eventually(workers)
    started.terminate()

    assert started.wait(30) == 2
    assert not worker.is_running()
