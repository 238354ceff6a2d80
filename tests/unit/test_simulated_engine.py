"""The simulated engine's own levers: clock, faults, call log, outage, refused models.

That it answers as a real engine does is proved by tests/integration/engine_contract.
"""

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge.simulated_engine import (
    Answer,
    Drop,
    Hold,
    RestError,
    SimulatedEngine,
    linear_process,
)
from bridge.simulated_engine.clock import date_ms, date_text

REPOSITORY = Path(__file__).parent.parent.parent
FETCH = "/external-task/fetchAndLock"


@pytest.fixture
def engine() -> Iterator[SimulatedEngine]:
    with SimulatedEngine() as running:
        running.deploy(linear_process("one", "topic", error_codes=("KNOWN",)))
        yield running


def post(engine: SimulatedEngine, path: str, body: Any, limit_s: float = 10) -> requests.Response:
    """One call over a connection of its own."""
    return requests.post(engine.url + path, json=body, timeout=limit_s)


def fetch(engine: SimulatedEngine, worker: str = "w", **members: Any) -> list[dict[str, Any]]:
    """fetchAndLock of topic `topic` for a minute."""
    topics = [{"topicName": "topic", "lockDuration": 60_000}]
    body = {"workerId": worker, "maxTasks": 10, "topics": topics, **members}
    found: list[dict[str, Any]] = post(engine, FETCH, body).json()
    return found


def held_task(engine: SimulatedEngine) -> str:
    """The id of a task that worker `w` holds for a minute."""
    engine.start_process("one")
    return str(fetch(engine)[0]["id"])


def complete(engine: SimulatedEngine, task_id: str, worker: str = "w") -> requests.Response:
    """Complete a task."""
    return post(engine, f"/external-task/{task_id}/complete", {"workerId": worker})


def in_background(action: Any, *arguments: Any) -> tuple[threading.Thread, list[Any]]:
    """Run it in a thread; its result or its exception will lie in the list."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(action(*arguments))
        except requests.RequestException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


class TestClock:
    def test_a_lock_expires_when_the_clock_is_advanced(self, engine: SimulatedEngine) -> None:
        """Tests of leases need no waiting."""
        task_id = held_task(engine)
        assert fetch(engine, "other") == []

        engine.clock.advance(61)

        assert [task["id"] for task in fetch(engine, "other")] == [task_id]

    def test_at_the_very_moment_of_expiry_both_fetch_and_extend_are_allowed(
        self, engine: SimulatedEngine
    ) -> None:
        """The engine fetches at expiry <= now and extends at expiry >= now."""
        engine.clock.freeze()
        task_id = held_task(engine)
        engine.clock.advance(60)

        extended = post(
            engine, f"/external-task/{task_id}/extendLock", {"workerId": "w", "newDuration": 5000}
        )
        assert extended.status_code == 204
        engine.clock.advance(5)

        assert [task["id"] for task in fetch(engine, "other")] == [task_id]

    def test_at_the_very_moment_of_expiry_another_may_not_lock(
        self, engine: SimulatedEngine
    ) -> None:
        """`lock` by another is allowed only once now > expiry."""
        engine.clock.freeze()
        task_id = held_task(engine)
        body = {"workerId": "other", "lockDuration": 1000}
        path = f"/external-task/{task_id}/lock"

        engine.clock.advance(60)
        assert post(engine, path, body).status_code == 400
        engine.clock.advance(0.001)
        assert post(engine, path, body).status_code == 204

    def test_a_frozen_clock_runs_on_after_resume(self, engine: SimulatedEngine) -> None:
        """Back at the machine's time plus the offset."""
        engine.clock.freeze()
        assert engine.clock.now_ms() == engine.clock.now_ms()

        engine.clock.set_offset(1000)
        engine.clock.resume()

        assert abs(engine.clock.now_ms() / 1000 - time.time() - 1000) < 5

    def test_the_date_header_and_all_dates_follow_the_offset(self, engine: SimulatedEngine) -> None:
        """A skewed engine is skewed in everything it says."""
        engine.clock.freeze()
        engine.clock.set_offset(date_ms("2040-02-03T04:05:06.000+0000") / 1000 - time_base(engine))
        engine.start_process("one")

        (task,) = fetch(engine)

        assert task["createTime"].startswith("2040-02-03T04:05:0")
        answer = requests.get(f"{engine.url}/version", timeout=10)
        assert answer.headers["Date"].startswith("Fri, 03 Feb 2040 04:05:0")

    @pytest.mark.parametrize(("seconds", "seen"), [(31, True), (20, False)])
    def test_a_waiting_poll_looks_again_after_30_s_of_engine_time(
        self, engine: SimulatedEngine, seconds: float, seen: bool
    ) -> None:
        """Nothing else makes the engine notice an expired lock before the poll's end."""
        engine.start_process("one")
        topics = [{"topicName": "topic", "lockDuration": 10_000}]
        post(engine, FETCH, {"workerId": "first", "maxTasks": 1, "topics": topics})
        poll = {
            "workerId": "poller",
            "maxTasks": 1,
            "asyncResponseTimeout": 60_000 if seen else 1000,
            "topics": [{"topicName": "other", "lockDuration": 1}, *topics],
        }
        thread, results = in_background(post, engine, FETCH, poll, 30)
        wait_until_polling(engine)

        engine.clock.advance(seconds)
        if seen:
            thread.join(10)
        else:
            assert engine.tasks(workerId="poller") == []
        thread.join(10)

        assert len(results[0].json()) == 1

    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ("2026-01-02T03:04:05.678+0200", "2026-01-02T01:04:05.678+0000"),
            ("2026-01-02T03:04:05.678-0130", "2026-01-02T04:34:05.678+0000"),
            ("2026-13-42T03:04:05.6+0200", "2027-02-11T01:04:05.006+0000"),
            ("2026-02-31T03:04:05.678+0000", "2026-03-03T03:04:05.678+0000"),
            ("2026-01-02T03:04:05.678+0000 and more", "2026-01-02T03:04:05.678+0000"),
        ],
    )
    def test_dates_are_read_as_leniently_as_java_does(self, text: str, read: str) -> None:
        """Each pair was answered by a real engine."""
        assert date_text(date_ms(text)) == read


def time_base(engine: SimulatedEngine) -> float:
    """The frozen machine time in seconds (the offset is still 0)."""
    return engine.clock.now_ms() / 1000


def wait_until_polling(engine: SimulatedEngine, polls: int = 1) -> None:
    """Wait until so many long polls are queued: only then does the engine look again for them."""
    end = time.monotonic() + 10
    while engine.waiting_polls < polls:
        assert time.monotonic() < end, f"{engine.waiting_polls} polls wait, not {polls}"
        time.sleep(0.005)


class TestLongPolls:
    def test_they_are_served_in_the_order_in_which_they_came(self, engine: SimulatedEngine) -> None:
        """As by the engine's single thread."""
        topics = [{"topicName": "topic", "lockDuration": 60_000}]
        running = []
        for number, worker in enumerate(("first", "second"), 1):
            body = {"workerId": worker, "maxTasks": 1, "topics": topics}
            body["asyncResponseTimeout"] = 20_000
            running.append(in_background(post, engine, FETCH, body, 30))
            wait_until_polling(engine, number)

        engine.start_process("one")
        running[0][0].join(10)

        assert [task["workerId"] for task in running[0][1][0].json()] == ["first"]
        engine.start_process("one")
        running[1][0].join(10)
        assert [task["workerId"] for task in running[1][1][0].json()] == ["second"]

    def test_a_stopping_engine_ends_them_with_its_own_error(self, engine: SimulatedEngine) -> None:
        """The bridge must take that for a normal retry."""
        body = {
            "workerId": "w",
            "maxTasks": 1,
            "asyncResponseTimeout": 20_000,
            "topics": [{"topicName": "topic", "lockDuration": 1}],
        }
        thread, results = in_background(post, engine, FETCH, body, 30)
        wait_until_polling(engine)

        engine.stop()
        thread.join(10)

        assert results[0].status_code == 500
        assert results[0].json()["message"].startswith("Request rejected due to shutdown")


def ask_again(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/engine-rest/version")
    connection.getresponse()


class TestFaults:
    def test_a_drop_before_leaves_the_engine_as_it_was(self, engine: SimulatedEngine) -> None:
        """The call never happened; the same call again is the first."""
        task_id = held_task(engine)
        engine.faults.add("complete", when="before", action=Drop())

        with pytest.raises(requests.ConnectionError):
            complete(engine, task_id)

        assert complete(engine, task_id).status_code == 204

    def test_a_drop_after_has_committed(self, engine: SimulatedEngine) -> None:
        """The answer is lost, the work is done: the retry finds nothing."""
        task_id = held_task(engine)
        engine.faults.add("complete", when="after", action=Drop())

        with pytest.raises(requests.ConnectionError):
            complete(engine, task_id)

        assert complete(engine, task_id).status_code == 404

    def test_an_answer_before_replaces_the_call_and_after_only_its_answer(
        self, engine: SimulatedEngine
    ) -> None:
        """A proxy's 503 says nothing about what the engine did."""
        task_id = held_task(engine)
        page = Answer(503, "<html>busy</html>", {"Retry-After": "1"})
        engine.faults.add("complete", when="before", action=page)
        engine.faults.add("complete", when="after", action=Answer(502))

        refused = complete(engine, task_id)
        assert (refused.status_code, refused.text) == (503, "<html>busy</html>")
        assert refused.headers["Retry-After"] == "1"
        assert len(engine.tasks()) == 1
        lost = complete(engine, task_id)
        assert (lost.status_code, lost.content) == (502, b"")
        assert engine.tasks() == []

    def test_a_drop_during_the_answer_cuts_it_in_half(self, engine: SimulatedEngine) -> None:
        """The tasks are locked, and nobody knows their ids."""
        engine.start_process("one")
        engine.faults.add("fetchAndLock", when="response", action=Drop())

        with pytest.raises(requests.RequestException):
            fetch(engine)

        assert len(engine.tasks(locked=True, workerId="w")) == 1

    def test_a_drop_when_idle_makes_the_kept_connection_stale(
        self, engine: SimulatedEngine
    ) -> None:
        """The answer is whole and promises more; the next request on that connection is lost."""
        engine.faults.add("version", when="idle", action=Drop())
        connection = http.client.HTTPConnection(engine.url.split("/")[2], timeout=10)

        connection.request("GET", "/engine-rest/version")
        answer = connection.getresponse()
        assert (answer.status, answer.will_close) == (200, False)
        answer.read()

        with pytest.raises(OSError, match=r".+"):
            ask_again(connection)
        connection.close()
        assert len(engine.calls.of("version")) == 1

    @pytest.mark.parametrize(("when", "left"), [("before", 1), ("after", 0)])
    def test_a_hold_stops_one_call_and_no_other(
        self, engine: SimulatedEngine, when: Any, left: int
    ) -> None:
        """The engine's lock is not held meanwhile."""
        task_id = held_task(engine)
        hold = engine.faults.add("complete", when=when, action=Hold())

        thread, results = in_background(complete, engine, task_id)
        assert hold.reached.wait(10)

        assert len(engine.tasks()) == left
        assert requests.get(f"{engine.url}/version", timeout=10).status_code == 200
        assert results == []
        hold.release()
        thread.join(10)
        assert results[0].status_code == 204

    def test_a_fault_strikes_as_often_as_told_and_then_no_more(
        self, engine: SimulatedEngine
    ) -> None:
        """None means always, until cleared."""
        engine.faults.add("version", when="before", times=2, action=Answer(503))
        url = f"{engine.url}/version"

        assert [requests.get(url, timeout=10).status_code for _ in range(3)] == [503, 503, 200]
        engine.faults.add("*", when="before", times=None, action=Answer(401))
        assert [requests.get(url, timeout=10).status_code for _ in range(3)] == [401] * 3
        engine.faults.clear()
        assert requests.get(url, timeout=10).status_code == 200

    def test_a_fault_for_one_task_spares_the_others(self, engine: SimulatedEngine) -> None:
        """One bad task must not stop the rest: tests need one bad task."""
        engine.start_process("one")
        engine.start_process("one")
        bad, good = (task["id"] for task in fetch(engine))
        conflict = {"type": "OptimisticLockingException", "message": "ENGINE-03005", "code": 1}
        engine.faults.add("complete", when="before", task_id=bad, action=Answer(500, conflict))

        assert complete(engine, good).status_code == 204
        assert complete(engine, bad).json() == conflict

    @pytest.mark.parametrize(
        ("when", "action", "problem"),
        [
            ("response", Answer(500), "Answer cannot strike at when='response'"),
            ("idle", Hold(), "Hold cannot strike at when='idle'"),
            ("later", Drop(), "when='later': give one of before, after, response, idle"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, engine: SimulatedEngine, when: Any, action: Any, problem: str
    ) -> None:
        """A fault that never strikes would make a test that cannot fail."""
        with pytest.raises(ValueError, match=problem):
            engine.faults.add("complete", when=when, action=action)


class TestCallLog:
    def test_it_tells_verb_task_status_and_body(self, engine: SimulatedEngine) -> None:
        """What a test asserts about how often the engine was told."""
        task_id = held_task(engine)
        engine.faults.add("complete", when="after", action=Drop())
        with pytest.raises(requests.ConnectionError):
            complete(engine, task_id)
        complete(engine, task_id, "v")

        calls = engine.calls.of("complete", task_id)

        assert [(call.status, call.body) for call in calls] == [
            (None, {"workerId": "w"}),
            (404, {"workerId": "v"}),
        ]
        assert [call.verb for call in engine.calls.of()] == ["fetchAndLock", "complete", "complete"]
        engine.calls.clear()
        assert engine.calls.of() == ()


class TestOutage:
    def test_stop_and_start_keep_port_and_state(self, engine: SimulatedEngine) -> None:
        """An engine that was away, not one that was lost."""
        url, task_id = engine.url, held_task(engine)

        engine.stop()
        with pytest.raises(requests.ConnectionError):
            complete(engine, task_id)
        assert engine.start() == url

        assert complete(engine, task_id).status_code == 204

    def test_basic_authentication_refuses_with_an_empty_401(self) -> None:
        """As the real filter does: no JSON to parse."""
        with SimulatedEngine(basic_auth=("demo", "demo")) as engine:
            url = f"{engine.url}/version"
            refused = requests.get(url, auth=("demo", "wrong"), timeout=10)
            accepted = requests.get(url, auth=("demo", "demo"), timeout=10)

        assert (refused.status_code, refused.content) == (401, b"")
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="default"'
        assert accepted.status_code == 200

    def test_a_chunked_request_is_read(self, engine: SimulatedEngine) -> None:
        """Some clients send no Content-Length."""
        headers = {"Content-Type": "application/json"}
        parts = iter([b'{"workerId": "w", ', b'"maxTasks": 1, "topics": []}'])
        answer = requests.post(engine.url + FETCH, data=parts, headers=headers, timeout=10)

        assert (answer.status_code, answer.json()) == (200, [])


def process(inner: str) -> bytes:
    """A BPMN file around these elements."""
    return (
        '<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" '
        'xmlns:camunda="http://camunda.org/schema/1.0/bpmn" targetNamespace="t">'
        '<process id="p" isExecutable="true" camunda:historyTimeToLive="P1D">'
        f'<startEvent id="s"/>{inner}</process></definitions>'
    ).encode()


EXTERNAL = 'camunda:type="external" camunda:topic="t"'


class TestModels:
    @pytest.mark.parametrize(
        ("inner", "problem"),
        [
            ('<userTask id="u"/>', "userTask is not supported .* 'u'"),
            ('<serviceTask id="x" camunda:class="a.B"/>', "serviceTask is not supported .* 'x'"),
            ('<serviceTask id="x" camunda:type="external"/>', "must specify a 'topic'"),
            (
                f'<serviceTask id="x" {EXTERNAL}><multiInstanceLoopCharacteristics/></serviceTask>',
                "multi-instance is not supported",
            ),
            (
                '<serviceTask id="x" camunda:type="external" camunda:topic="${a.b()}"/>',
                r"expression \$\{a.b\(\)\}",
            ),
            (
                '<task id="x"/><sequenceFlow id="f" sourceRef="s" targetRef="x">'
                "<conditionExpression>a</conditionExpression></sequenceFlow>",
                "conditional sequence flow .* 'f'",
            ),
            (
                f'<serviceTask id="x" {EXTERNAL}/><boundaryEvent id="b" attachedToRef="x">'
                "<signalEventDefinition/></boundaryEvent>",
                "only error and timer boundary events",
            ),
            ('<startEvent id="s2"/>', "2 start events"),
        ],
    )
    def test_what_it_cannot_run_is_refused_by_name(
        self, engine: SimulatedEngine, inner: str, problem: str
    ) -> None:
        """Silently running a model wrongly would be worse than not at all."""
        with pytest.raises(RestError, match=problem) as refused:
            engine.deploy(process(inner))

        assert (refused.value.status, refused.value.kind) == (400, "ParseException")

    def test_boundary_timers_are_ignored(self, engine: SimulatedEngine) -> None:
        """They never fire here; the same file serves a real engine."""
        timer = (
            f'<serviceTask id="x" {EXTERNAL}/><sequenceFlow id="f" sourceRef="s" targetRef="x"/>'
            '<boundaryEvent id="b" attachedToRef="x"><timerEventDefinition>'
            "<timeDuration>PT1H</timeDuration></timerEventDefinition></boundaryEvent>"
        )
        engine.deploy(process(timer))
        engine.start_process("p")

        assert [task["activityId"] for task in engine.tasks()] == ["x"]

    def test_every_process_of_the_demo_deploys_and_starts(self, engine: SimulatedEngine) -> None:
        """The demo without Java runs the very same files."""
        files = sorted((REPOSITORY / "deploy" / "processes").glob("*.bpmn"))
        assert files

        definitions = engine.deploy(*files)
        for definition in definitions:
            engine.start_process(definition.split(":")[0])

        assert len(engine.tasks()) == len(definitions)

    def test_errors_of_a_linear_process_lead_to_their_own_end(
        self, engine: SimulatedEngine
    ) -> None:
        """`linear_process` is the short way to a process in users' tests."""
        task_id = held_task(engine)
        body = {"workerId": "w", "errorCode": "KNOWN"}

        assert post(engine, f"/external-task/{task_id}/bpmnError", body).status_code == 204

        visits = requests.get(f"{engine.url}/history/activity-instance", timeout=10).json()
        ended = [visit["activityId"] for visit in visits if visit["activityType"] == "noneEndEvent"]
        assert ended == ["task-1-error-0-end"]


class TestCommand:
    def test_it_says_loudly_that_it_is_simulated_and_stops_on_sigterm(self) -> None:
        """Nobody may take it for a real engine."""
        command = [sys.executable, "-m", "bridge.simulated_engine", "--port", "0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        ) as started:
            try:
                assert started.stdout is not None
                line = started.stdout.readline()
                url = line.split()[-1]
                version = requests.get(f"{url}/version", timeout=10).json()["version"]
                started.send_signal(signal.SIGTERM)
                code = started.wait(10)
            finally:
                started.kill()

        assert line.startswith("SIMULATED engine")
        assert version.endswith("SIMULATED")
        assert code == 0

    def test_a_taken_port_is_one_clear_message(self, engine: SimulatedEngine) -> None:
        """With the cure in it."""
        port = engine.url.split(":")[2].split("/")[0]
        command = [sys.executable, "-m", "bridge.simulated_engine", "--port", port]
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=20, cwd=REPOSITORY, check=False
        )

        assert ended.returncode == 1
        assert ended.stderr.startswith(f"port {port} cannot be used")
        assert "--port" in ended.stderr
