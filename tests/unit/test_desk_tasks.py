"""`tasks`: what each task is doing, in plain words, on the simulated engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.desk.asking import Replica, replica, status_address
from bridge.desk.tasks import (
    Filter,
    TaskList,
    Wanted,
    describe,
    first_line,
    lasts,
    look,
    pause_before,
)
from bridge.engine.record_shapes import TaskRecord
from bridge.simulated_engine import SimulatedEngine
from tests.support import desk
from tests.support.desk import Desk, given, held

ALL_TOPICS = "[topics.pay]\n[topics.ship]"
NOBODY = Replica(desk.silent)


@pytest.fixture
def engine(simulated: SimulatedEngine) -> Desk:
    return Desk(simulated)


def words(found: TaskList) -> dict[str, str]:
    return {shown.task.id: shown.words for shown in found.tasks}


def test_every_state_has_its_words(engine: Desk, tmp_path: Path) -> None:
    """An operator reads what happens next, not an engine's columns."""
    strange, elsewhere = engine.start("unheard-of"), engine.start("ship")
    engine.fetch("ship", worker="legacy")
    incident, paused, leased = (engine.start() for _ in range(3))
    engine.fetch()
    engine.fail(incident)
    engine.fail(paused, retries=2, pause=25)
    engine.act(leased, "extendLock", newDuration=480_000)
    published = engine.start()
    engine.fetch()
    suspended, waits = engine.start(), engine.start()
    engine.suspend(suspended)
    engine.simulated.clock.freeze()

    found = words(look(given(tmp_path, ALL_TOPICS), engine.records, NOBODY, Wanted()))

    assert found[strange] == "its topic is configured nowhere"
    assert found[elsewhere].startswith("locked by worker id legacy for ")
    assert found[incident] == "incident: no retries left"
    assert found[paused].startswith("failed, attempts left: 2; the next in 2")
    assert found[paused].endswith(", or in flight")
    assert found[leased].startswith("in flight, leased for ")
    assert found[published].startswith("published, lock for ")
    assert found[suspended] == "suspended"
    assert found[waits] == "waits to be fetched"


def test_the_bridge_tells_what_the_locks_do_not(engine: Desk, tmp_path: Path) -> None:
    """A second attempt under way and the pause before it look alike in the engine."""
    flying, paused, unconfirmed = (engine.start() for _ in range(3))
    engine.fetch()
    for task in (flying, paused, unconfirmed):
        engine.fail(task, retries=2)
    engine.fetch(seconds=100)
    told = desk.replica(held(flying), held(unconfirmed, confirmed=False))

    found = look(given(tmp_path), engine.records, told, Wanted())

    assert found.silent is None
    assert "published, lock for" in words(found)[flying]
    assert words(found)[paused].startswith("failed, attempts left: 2; the next in 1 min")
    assert "or in flight" not in words(found)[paused]
    assert "being published" in words(found)[unconfirmed]


@pytest.mark.parametrize(
    ("left", "retries", "pause"),
    [
        (25, None, None),  # never failed
        (25, 2, "perhaps"),  # or fetched a moment ago, by any replica
        (100, 2, "sure"),  # more than a publish window, and no lease has so little left
        (299, 2, "perhaps"),  # a pause of 5 min, or a lease that a peer looks after
        (301, 2, "perhaps"),  # the engine's time is a second coarse
        (303, 2, None),
        (600, 2, None),
        (3000, 2, "perhaps"),  # a worker asked for this pause
    ],
)
def test_a_pause_is_told_from_a_lease_by_its_length(
    tmp_path: Path, left: float, retries: int | None, pause: str | None
) -> None:
    """With the default times: publish window 60 s, lease 10 min, longest pause 5 min."""
    task = TaskRecord(id="t", topic_name="pay", process_instance_id="i", retries=retries)

    assert pause_before(given(tmp_path), task, left) == pause


@pytest.mark.parametrize(
    ("problems", "says"),
    [
        ({"topic pay": "312 NO_ROUTE"}, "cannot be published, next fetch in "),
        ({"publisher": "blocked by RabbitMQ"}, "cannot be published, next fetch in "),
        ({"topic ship": "312 NO_ROUTE"}, "published, lock for "),
        ({}, "published, lock for "),
    ],
)
def test_a_message_that_no_queue_takes_is_not_called_published(
    engine: Desk, tmp_path: Path, problems: dict[str, str], says: str
) -> None:
    """The bridge has let go of the task, and its lock still runs."""
    task = engine.start()
    engine.fetch()

    found = look(given(tmp_path), engine.records, desk.replica(problems=problems), Wanted())

    assert words(found)[task].startswith(says)


@pytest.mark.parametrize(
    ("state", "names"),
    [
        ("waiting", {"waiting", "again"}),
        ("locked", {"locked", "paused"}),
        ("retried", {"paused", "again"}),
        ("failed", {"failed"}),
        ("suspended", {"suspended", "both"}),
        (None, {"waiting", "again", "locked", "paused", "failed", "suspended", "both"}),
    ],
)
def test_a_state_chooses(
    engine: Desk, tmp_path: Path, state: Filter | None, names: set[str]
) -> None:
    """The question is mostly for one kind of task among thousands; the document calls each what
    it was asked for.
    """
    made = {name: engine.start() for name in ("locked", "again", "paused", "failed", "both")}
    engine.fetch()
    engine.fail(made["paused"], retries=2, pause=60)
    engine.fail(made["failed"])
    engine.fail(made["both"])
    engine.suspend(made["both"])
    engine.fail(made["again"], retries=2)
    made |= {name: engine.start() for name in ("suspended", "waiting")}
    engine.suspend(made["suspended"])
    engine.simulated.clock.advance(3)

    found = look(given(tmp_path), engine.records, NOBODY, Wanted(state=state))

    assert {s.task.id for s in found.tasks} == {made[name] for name in names}
    rows = [shown.as_json() for shown in found.tasks]
    if state == "retried":
        assert {(row["state"], row["failedBefore"]) for row in rows} == {
            ("waiting", True),
            ("locked", True),
        }
    elif state is not None:
        assert {row["state"] for row in rows} == {state}


def test_topic_process_and_business_key_choose(engine: Desk, tmp_path: Path) -> None:
    """The business key is the only name that the people who complain know."""
    mine = engine.start(business_key="order-7")
    other, shipped = engine.start(business_key="order-70"), engine.start("ship")

    def found(**wanted: Any) -> list[str]:
        made = look(given(tmp_path), engine.records, NOBODY, Wanted(**wanted))
        return [shown.task.id for shown in made.tasks]

    assert found(business_key="order-7") == [mine]
    assert found(business_key="order-8") == []
    assert found(topic="ship") == [shipped]
    assert found(process="pay-process") == [mine, other]
    assert found(process="pay-process", topic="ship") == []


def test_the_oldest_come_first_up_to_the_limit(engine: Desk, tmp_path: Path) -> None:
    """What has waited longest is the question; that there is more must not go unsaid."""
    ids = [engine.start() for _ in range(4)]

    some = look(given(tmp_path), engine.records, NOBODY, Wanted(limit=3))
    exactly = look(given(tmp_path), engine.records, NOBODY, Wanted(limit=4))

    assert [shown.task.id for shown in some.tasks] == ids[:3]
    assert (some.more, exactly.more) == (True, False)


def test_the_document_is_complete(engine: Desk, tmp_path: Path) -> None:
    """Scripts read it: names, numbers in seconds, null where something is not known."""
    task = engine.start(business_key="order-7")
    engine.fetch()
    engine.fail(task, retries=1, pause=25, message="no money\nstack trace")

    document = look(given(tmp_path), engine.records, NOBODY, Wanted()).as_json()

    (row,) = document["tasks"]
    assert (document["schemaVersion"], document["more"]) == (1, False)
    assert document["bridge"] == {"problem": desk.SILENT}
    assert (row["taskId"], row["topic"], row["businessKey"]) == (task, "pay", "order-7")
    assert (row["process"], row["activityId"]) == ("pay-process", "task-1")
    assert (row["state"], row["retries"], row["workerId"]) == ("locked", 1, "bridge")
    assert row["failedBefore"] is True
    assert 0 < row["lockSecondsLeft"] <= 26
    assert row["ageSeconds"] >= 0
    assert first_line(row["errorMessage"]) == "no money"


def test_a_lock_that_never_ends_is_told(tmp_path: Path) -> None:
    """A careless duration reaches beyond the year 9999, which JSON cannot count."""
    task = TaskRecord(
        id="t",
        topic_name="pay",
        process_instance_id="i",
        worker_id="legacy",
        lock_expiration_time="+287225-01-01T00:00:00.000+0000",
    )

    shown = describe(given(tmp_path), task, 1_700_000_000.0, {}, {})

    assert shown.words == "locked by worker id legacy for ever"
    assert shown.as_json()["lockSecondsLeft"] is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (34, "34 s"),
        (303, "5 min 3 s"),
        (300, "5 min"),
        (7800, "2 h 10 min"),
        (90_061, "1 d 1 h"),
        (86_430, "1 d"),
        (float("inf"), "ever"),
    ],
)
def test_a_length_of_time_reads_easily(seconds: float, text: str) -> None:
    """Two units are enough to decide by."""
    assert lasts(seconds) == text


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        ("0.0.0.0:9464", "127.0.0.1:9464"),
        ("[::]:9464", "[::1]:9464"),
        ("127.0.0.1:0", None),
        ("", None),
    ],
)
def test_the_bridge_is_asked_where_it_listens(
    tmp_path: Path, listen: str, address: str | None
) -> None:
    """Every address of a machine includes loopback, which is where the operator is."""
    settings = given(tmp_path, f"[topics.pay]\n[status]\nlisten = '{listen}'")

    assert status_address(settings) == address


def test_a_bridge_that_is_not_there_is_no_error(engine: Desk, tmp_path: Path) -> None:
    """The engine's answer is worth more than a complaint."""
    engine.start()
    settings = given(tmp_path, "[topics.pay]\n[status]\nlisten = '127.0.0.1:1'")

    found = look(settings, engine.records, replica(settings), Wanted())

    assert len(found.tasks) == 1
    assert found.silent == "no bridge answers at http://127.0.0.1:1: Connection refused"


def test_whatever_else_answers_there_is_no_bridge(engine: Desk, tmp_path: Path) -> None:
    """Another service has the port: its page is not taken for a memory."""
    port = engine.simulated.url.split(":")[2].partition("/")[0]
    settings = given(tmp_path, f"[topics.pay]\n[status]\nlisten = '127.0.0.1:{port}'")

    found = look(settings, engine.records, replica(settings), Wanted())

    assert found.silent == f"what answers at http://127.0.0.1:{port} is no bridge of this version"
