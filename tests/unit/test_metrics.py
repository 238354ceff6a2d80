"""What the bridge counts and measures."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bridge.engine import EngineClient
from bridge.engine.connection import HttpOptions
from bridge.engine.measured import outcome_of, verb_of
from bridge.errors import (
    EngineBroken,
    EngineConflict,
    EngineError,
    EngineForbidden,
    EngineMisconfigured,
    EngineRefused,
    EngineUnauthorized,
    EngineUnavailable,
    LockExpired,
    LockLost,
    TaskGone,
    TaskSuspended,
)
from bridge.metrics import Event, Metrics
from bridge.simulated_engine import SimulatedEngine
from tests.support.rooms import Rooms
from tests.support.waiting import eventually
from tests.unit.conftest import Open


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample as a scrape shows it, by name and labels."""
    text = generate_latest(metrics.registry).decode()
    return {
        f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_counts_begin_at_nought() -> None:
    """A rate or an alert sees the first failure only if there was a count before it."""
    metrics = Metrics()

    metrics.expect(["pay"])

    found = samples(metrics)
    assert found["bridge_tasks_total{event=failed,topic=pay}"] == 0
    assert found["bridge_tasks_total{event=parked,topic=pay}"] == 0
    assert found["bridge_lock_renewals_total{topic=pay}"] == 0
    assert metrics.events() == {}


def test_a_count_goes_on_where_it_was_expected_again() -> None:
    """Topics may be added to a running bridge."""
    metrics = Metrics()
    metrics.count("pay", "failed")

    metrics.expect(["pay", "ship"])

    assert metrics.value("pay", "failed") == 1
    assert metrics.events() == {"pay": {"failed": 1}}


def test_a_stage_falls_into_its_bucket() -> None:
    """Milliseconds and hours are both told apart."""
    metrics = Metrics()

    metrics.took("pay", "reply", 0.2)
    metrics.took("pay", "reply", 400)

    found = samples(metrics)
    name = "bridge_stage_seconds"
    assert found[f"{name}_bucket{{le=0.1,stage=reply,topic=pay}}"] == 0
    assert found[f"{name}_bucket{{le=0.25,stage=reply,topic=pay}}"] == 1
    assert found[f"{name}_bucket{{le=600.0,stage=reply,topic=pay}}"] == 2
    assert found[f"{name}_sum{{stage=reply,topic=pay}}"] == pytest.approx(400.2)


def test_no_time_is_less_than_none() -> None:
    """A long poll that brings tasks takes less than it might have."""
    metrics = Metrics()

    metrics.called("longPoll", "ok", -9.9)
    metrics.took("pay", "reply", -0.001)

    found = samples(metrics)
    assert found["bridge_engine_call_seconds_sum{outcome=ok,verb=longPoll}"] == 0
    assert found["bridge_stage_seconds_sum{stage=reply,topic=pay}"] == 0


def test_the_process_is_measured_too() -> None:
    """Memory and CPU belong on the same board."""
    found = samples(Metrics())

    assert found["process_resident_memory_bytes{}"] > 0
    assert "process_cpu_seconds_total{}" in found


def test_no_series_tells_when_it_was_made() -> None:
    """It would double what is scraped."""
    metrics = Metrics()
    metrics.expect(["pay"])

    assert not [name for name in samples(metrics) if "_created" in name]


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/external-task/fetchAndLock", "fetchAndLock"),
        ("/external-task/8f14e45f-ceea/complete", "complete"),
        ("/external-task/8f14e45f-ceea/extendLock", "extendLock"),
        ("/external-task?firstResult=0&maxResults=500", "query"),
        ("/external-task/8f14e45f-ceea", "read"),
        ("/process-instance/8f14e45f-ceea/variables", "variables"),
        ("/process-definition/pay%3A1%3A8f14/xml", "xml"),
        ("/version", "version"),
    ],
)
def test_a_verb_is_never_an_id(path: str, verb: str) -> None:
    """A label for each task would fill Prometheus."""
    assert verb_of(path) == verb


def test_a_long_poll_is_told_from_a_fetch() -> None:
    """How long it takes says nothing about the engine."""
    assert verb_of("/external-task/fetchAndLock", wait=10.0) == "longPoll"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (TaskGone("404"), "gone"),
        (EngineUnavailable("no connection"), "unavailable"),
        (EngineUnauthorized("401"), "failed"),
        (EngineMisconfigured("200"), "failed"),
        (EngineBroken("500"), "failed"),
        (EngineConflict("500"), "refused"),
        (EngineForbidden("403"), "refused"),
        (EngineRefused("400"), "refused"),
        (TaskSuspended("400"), "refused"),
        (LockLost("400", None), "refused"),
        (LockExpired("400"), "refused"),
    ],
)
def test_an_outcome_says_whose_fault_it_is(error: EngineError | None, outcome: str) -> None:
    """An alert on `unavailable` and `failed` must not ring for a task that was cancelled."""
    assert outcome_of(error) == outcome


def test_counting_from_many_threads_loses_nothing_while_it_is_scraped() -> None:
    """A scrape reads what eight callers and two connections count."""
    metrics, threads, each = Metrics(), 6, 2000
    scraping = threading.Event()

    def work(number: int) -> None:
        for _ in range(each):
            metrics.count(f"t{number % 2}", "completed")
            metrics.took(f"t{number % 2}", "engine", 0.01)
            metrics.called("complete", "ok", 0.01)
        scraping.set()

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    scrapes = [samples(metrics)]
    while not scraping.is_set():
        scrapes.append(samples(metrics))
    for worker in workers:
        worker.join(60)

    found = samples(metrics)
    half = threads * each / 2
    assert metrics.value("t0", "completed") == metrics.value("t1", "completed") == half
    assert found["bridge_stage_seconds_count{stage=engine,topic=t0}"] == half
    assert found["bridge_engine_call_seconds_count{outcome=ok,verb=complete}"] == 2 * half


def test_measuring_a_task_is_cheap() -> None:
    """A task may cost half a millisecond of CPU in all.  The limit is five times what it takes."""
    metrics, tasks = Metrics(), 1000
    events: tuple[Event, ...] = ("fetched", "confirmed", "completed")

    def measured() -> float:
        began = time.thread_time()
        for _ in range(tasks):
            for event in events:
                metrics.count("pay", event)
            metrics.took("pay", "confirm", 0.004)
            metrics.took("pay", "reply", 0.2)
            metrics.took("pay", "engine", 0.01)
            metrics.called("complete", "ok", 0.01)
        return (time.thread_time() - began) / tasks

    assert min(measured() for _ in range(5)) < 100e-6


# -- what the rooms report ---------------------------------------------------------------------


def passed(rooms: Rooms, stage: str) -> float:
    """How many tasks of topic `a` have passed a stage."""
    return samples(rooms.metrics).get(f"bridge_stage_seconds_count{{stage={stage},topic=a}}", 0)


def took(rooms: Rooms, stage: str) -> float:
    """The seconds that they took, summed up."""
    return samples(rooms.metrics)[f"bridge_stage_seconds_sum{{stage={stage},topic=a}}"]


def test_a_task_passes_its_stages(open_rooms: Open) -> None:
    """From the fetch to the confirm, to the reply, and until the engine has it."""
    rooms = open_rooms().start(dispatcher=True)
    task_id = rooms.instance()
    entry = eventually(lambda: (e := rooms.ledger.entry(task_id)) and e.confirmed and e)
    assert entry
    rooms.advance(40)

    rooms.answer(entry, {"paid": True})

    eventually(lambda: passed(rooms, "reply") == 1)
    assert passed(rooms, "confirm") == passed(rooms, "engine") == 1
    assert 40 <= took(rooms, "reply") < 80
    assert took(rooms, "engine") < 40


def test_a_reply_that_beats_its_confirm_took_no_time(rooms: Rooms) -> None:
    """It is a reply all the same: without the fastest a mean would lie."""
    entry = rooms.fetched()

    rooms.answer(entry, {"paid": True})

    eventually(lambda: passed(rooms, "reply") == 1)
    assert took(rooms, "reply") == 0


def test_what_another_replica_published_has_no_time_of_work(rooms: Rooms) -> None:
    """Nobody here knows when a worker could see the message; what it took from then on we know."""
    entry = rooms.fetched()
    rooms.ledger.settle(entry.task_id)

    rooms.answer(entry, {"paid": True})

    eventually(lambda: passed(rooms, "engine") == 1)
    assert passed(rooms, "reply") == 0


def test_a_reply_to_an_older_attempt_has_no_time_of_work(rooms: Rooms) -> None:
    """The entry's confirm is that of another message."""
    entry = rooms.in_flight()
    rooms.engine_sets_retries(entry.task_id, 2)

    rooms.answer(replace(entry, retries=1), {"paid": True})

    eventually(lambda: passed(rooms, "engine") == 1)
    assert passed(rooms, "reply") == 0


def test_work_that_reports_progress_is_measured_to_its_end(rooms: Rooms) -> None:
    """A worker that says "still busy" has not replied, and its work began with the message."""
    entry = rooms.in_flight()
    rooms.advance(40)
    rooms.answer(entry, {"newDuration": 600_000}, "extendLock")
    eventually(lambda: rooms.count("progress") == 1)
    assert passed(rooms, "reply") == 0
    rooms.advance(40)

    rooms.answer(entry, {"paid": True})

    eventually(lambda: passed(rooms, "reply") == 1)
    assert 80 <= took(rooms, "reply") < 120


def test_every_lock_that_is_set_anew_is_counted(open_rooms: Open) -> None:
    """The engine's work for long tasks: a lease, and a renewal at half of it."""
    rooms = open_rooms()
    entry = rooms.in_flight()
    rooms.start(keeper=True)
    rooms.advance(6)
    rooms.leased(entry)
    eventually(lambda: rooms.count("leased") == 1)

    rooms.advance(400)

    name = "bridge_lock_renewals_total{topic=a}"
    eventually(lambda: samples(rooms.metrics)[name] == 2)


def test_an_adoption_is_a_renewal(open_rooms: Open) -> None:
    """After a restart the engine sets as many locks anew as there were tasks in flight."""
    first, second = open_rooms().start(), open_rooms()
    entry = first.in_flight()
    first.client.extend_lock(entry.task_id, 200)

    second.start(keeper=True)

    name = "bridge_lock_renewals_total{topic=a}"
    eventually(lambda: samples(second.metrics).get(name) == 1)
    assert second.count("adopted") == 1


def test_every_call_to_the_engine_is_counted_with_its_outcome(simulated: SimulatedEngine) -> None:
    """Also the one that finds nobody."""
    metrics, stopping = Metrics(), threading.Event()
    stopping.set()  # nothing is tried again
    client = EngineClient(
        HttpOptions(simulated.url), "bridge", stopping=stopping, called=metrics.called
    )
    nobody = EngineClient(
        HttpOptions("http://127.0.0.1:9", connect_timeout=1),
        "bridge",
        stopping=stopping,
        called=metrics.called,
    )

    client.fetch_and_lock([], 1)
    client.fetch_and_lock([], 1, wait=0.01)
    client.tasks(["x"])
    with pytest.raises(TaskGone):
        client.complete("x", {}, {})
    with pytest.raises(EngineUnavailable):
        nobody.version()

    found = samples(metrics)
    for verb, outcome in (
        ("fetchAndLock", "ok"),
        ("longPoll", "ok"),
        ("query", "ok"),
        ("complete", "gone"),
        ("version", "unavailable"),
    ):
        labels = f"{{outcome={outcome},verb={verb}}}"
        assert found[f"bridge_engine_call_seconds_count{labels}"] == 1, (verb, outcome)
