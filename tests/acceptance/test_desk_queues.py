"""The operator's commands about queues, on a real bridge, engine and RabbitMQ."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
import pytest

from bridge import plan, settings
from bridge.broker import Topology
from bridge.broker.holding import GIVEN_BACK_MAX
from bridge.desk.parked import Chosen, ParkedMessages, ParkedUnusable
from deploy.local import choice
from tests.support.amqp import Amqp, Message
from tests.support.bridge import settings as bridge_settings
from tests.support.bridge import toml
from tests.support.engine import EngineRest, unique
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually

TOPICS: dict[str, dict[str, Any]] = {"pay": {}, "gone": {}, "idle": {}, "still": {}, "spelt": {}}
PARKED, RESULTS = "bridge.parked", "pay.results"
LEAVES_SCREEN = b"\x1b[?1049l"
TOO_LARGE = b'{"n":18446744073709551616}'

pytestmark = pytest.mark.timeout(300)  # many commands, one after the other


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS) as stage:
        yield stage


def command(*arguments: str, config: Path) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")}
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environ,
    )


def ask(stage: Stage, *arguments: str) -> Any:
    """What a command with --json prints."""
    done = command(*arguments, "--json", config=stage.bridge.config)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def park(stage: Stage, case: Case, body: bytes = TOO_LARGE) -> tuple[Message, dict[str, Any]]:
    """Answer with what cannot be applied; the task's message, and the parked one as listed."""
    message = case.message()
    stage.answer(message, body)
    task_id = message.headers["taskId"]

    def look() -> dict[str, Any] | None:
        found = ask(stage, "parked", "list")["messages"]
        return next((dict(one) for one in found if one["taskId"] == task_id), None)

    listed = eventually(look, 40, what="the result is parked")
    assert listed is not None
    return message, listed


# -- through the bridge ---------------------------------------------------------------------------


def test_a_parked_result_is_corrected_and_replayed(stage: Stage, tmp_path: Path) -> None:
    """The work was done once and is not done again: only its answer is mended."""
    case = stage.begin("pay")
    _, listed = park(stage, case)
    assert (listed["reason"], listed["topic"]) == ("value-refused", case.topic)
    assert (listed["queue"], listed["bytes"]) == (f"{case.topic}.results", len(TOO_LARGE))
    body = tmp_path / "body.json"

    none = command("parked", "list", "--topic", "nosuch", config=stage.bridge.config)
    assert none.stdout.startswith("none of topic nosuch; ")
    shown = command("parked", "show", listed["id"], "--body", str(body), config=stage.bridge.config)
    body.write_bytes(body.read_bytes().replace(b"18446744073709551616", b"5"))
    done = command(
        "parked", "replay", listed["id"], "--edit", str(body), "--yes", config=stage.bridge.config
    )

    assert "value-refused" in shown.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert case.end() == "end"
    assert case.variables()["n"]["value"] == 5
    assert listed["id"] not in {one["id"] for one in ask(stage, "parked", "list")["messages"]}


def test_an_edited_body_that_would_be_parked_again_is_refused(stage: Stage, tmp_path: Path) -> None:
    """Said at once, and the message lies where it lay."""
    case = stage.begin("pay")
    _, listed = park(stage, case)
    body = tmp_path / "body.json"
    body.write_bytes(b'{"n": 5')

    done = command(
        "parked", "replay", listed["id"], "--edit", str(body), "--yes", config=stage.bridge.config
    )

    assert done.returncode == 1
    assert "bad-json" in done.stderr
    assert ask(stage, "parked", "show", listed["id"])["body"].encode() == TOO_LARGE


def test_without_an_answer_nothing_is_done(stage: Stage) -> None:
    """A command in a script that nobody watches deletes nothing by mistake."""
    _, listed = park(stage, stage.begin("pay"))

    for act in ("replay", "drop"):
        done = command("parked", act, listed["id"], config=stage.bridge.config)
        assert (done.returncode, "--yes" in done.stderr) == (2, True)

    assert ask(stage, "parked", "show", listed["id"])["id"] == listed["id"]


def test_a_dropped_result_is_gone_and_its_task_is_not(stage: Stage) -> None:
    """The task stays an incident until somebody retries it."""
    case = stage.begin("pay")
    _, listed = park(stage, case)

    done = ask(stage, "parked", "drop", listed["id"], "--yes")

    assert (done["done"], done["notDone"]) == ([listed["id"]], [])
    again = command("parked", "drop", listed["id"], "--yes", config=stage.bridge.config)
    assert again.returncode == 1
    assert listed["id"] in again.stderr
    assert case.retries() == 0


def test_a_replayed_result_of_a_task_that_is_gone_is_acknowledged(stage: Stage) -> None:
    """Nobody can use it any more, and it does not come back to the parking queue."""
    case = stage.begin("gone")
    _, listed = park(stage, case, b"{bad")
    stage.engine.delete(case.instance)
    before = stage.count("gone", "gone")
    edited = Path(stage.bridge.config).with_name("edited.json")
    edited.write_text("{}")

    done = ask(stage, "parked", "replay", listed["id"], "--edit", str(edited), "--yes")

    assert done["done"] == [listed["id"]]
    eventually(lambda: stage.count("gone", "gone") == before + 1)


def test_a_dead_letter_of_nobodys_topic_is_kept_with_the_reason(stage: Stage) -> None:
    """Replayed it would only be parked again."""
    stage.amqp.send("bridge.dead", "", b"{}", type="nobodys", correlation_id="1.x.-.y")

    def look() -> dict[str, Any] | None:
        found = ask(stage, "parked", "list", "--reason", "unknown-topic")["messages"]
        return dict(found[0]) if found else None

    listed = eventually(look, 40)
    assert listed is not None
    done = ask(stage, "parked", "replay", listed["id"], "--yes")

    assert listed["topic"] == "nobodys"
    assert done["done"] == []
    assert "unknown-topic" in done["notDone"][0]["problem"]


def test_headers_that_nobody_can_read_are_listed_and_dropped(stage: Stage) -> None:
    """The list must not break at what the bridge could not read either."""
    case = stage.begin("pay")
    token = case.message().properties.correlation_id
    odd = Unreadable(correlation_id=token, headers={"at": b"x" * 8})
    stage.amqp.channel.basic_publish("", f"{case.topic}.results", b"{}", odd)

    def look() -> dict[str, Any] | None:
        found = ask(stage, "parked", "list", "--reason", "unreadable")["messages"]
        return dict(found[0]) if found else None

    listed = eventually(look, 40)
    assert listed is not None
    kept = ask(stage, "parked", "replay", listed["id"], "--yes")
    dropped = ask(stage, "parked", "drop", listed["id"], "--yes")

    assert "cannot be read" in kept["notDone"][0]["problem"]
    assert dropped["done"] == [listed["id"]]


class Unreadable(pika.BasicProperties):  # type: ignore[misc]  # pika is untyped here
    """Properties whose header `at` is a time in a year that Python does not know."""

    def encode(self) -> list[bytes]:
        late = b"T" + (1_700_000_000_000_000).to_bytes(8, "big")
        bytes_field = b"x" + (8).to_bytes(4, "big") + b"x" * 8
        whole = b"".join(super().encode())
        assert bytes_field in whole
        shorter = len(bytes_field) - len(late)
        at = whole.index(b"\x02at") - 4
        length = int.from_bytes(whole[at : at + 4], "big") - shorter
        whole = whole[:at] + length.to_bytes(4, "big") + whole[at + 4 :]
        return [whole.replace(bytes_field, late)]


# -- top and topics -------------------------------------------------------------------------------


def test_top_names_the_queue_that_nobody_consumes(stage: Stage) -> None:
    """What is wrong, and the command that helps, without a dashboard."""
    case = stage.begin("idle")
    url = stage.bridge.status_url()
    assert url is not None

    row = re.compile(rf"^{case.topic}\s+0\s+1\s+-\s+0\s+1/1000", re.MULTILINE)

    def look() -> str | None:
        done = command("top", "--once", "--url", url, config=stage.bridge.config)
        assert done.returncode == 0, done.stderr
        words = f"queue {case.queue} has 1 ready and no consumer"
        return done.stdout if words in done.stdout and row.search(done.stdout) else None

    shown = eventually(look, 60)
    assert shown is not None
    assert "external-task-bridge topics" in shown
    document = ask(stage, "top", "--url", url)
    assert document["schemaVersion"] == 1
    [rate] = [t["donePerSecond"] for t in document["topics"] if t["name"] == case.topic]
    assert rate == 0.0


def test_top_goes_on_until_q_is_pressed(stage: Stage) -> None:
    """On a terminal it is a display, and leaves the terminal as it was."""
    ours, theirs = pty.openpty()
    arguments = ["top", "--interval", "200ms", "--url", str(stage.bridge.status_url())]
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    seen = bytearray()

    def shows(what: bytes) -> bool:
        with suppress(OSError):  # the other end is closed
            if select.select([ours], [], [], 0)[0]:
                seen.extend(os.read(ours, 65536))
        return what in seen

    try:
        eventually(lambda: shows(b"q ends"), 60)
        seen.clear()
        eventually(lambda: shows(b"q ends"), 60, what="it looks again")
        os.write(ours, b"q")
        eventually(lambda: shows(LEAVES_SCREEN) and process.poll() is not None, 60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


def test_topics_says_who_is_missing(stage: Stage) -> None:
    """A topic that nobody bridges, a queue that nobody consumes, a topic that no process uses."""
    lonely = unique("lonely")
    key = stage.engine.deploy_topics(lonely)
    stage.engine.start(key)
    case = stage.begin("still")
    try:
        eventually(lambda: stage.amqp.count(case.queue), 40)
        done = command("topics", "--json", config=stage.bridge.config)
    finally:
        stage.engine.clean(key)

    topics = {topic["name"]: topic for topic in json.loads(done.stdout)["topics"]}
    assert done.returncode == 1
    assert "nobody bridges it: 1 waiting" in topics[lonely]["problem"]
    assert "ready and no consumer" in topics[case.topic]["problem"]
    unused = topics[stage.names["spelt"]]
    # Where another test's model makes its topics by an expression, nobody can be sure.
    assert "no process uses it" in (unused["problem"] or "") or "no task" in unused["remark"]


# -- the parking queue alone ----------------------------------------------------------------------


class Lot:
    """A virtual host with the queues of a bridge that does not run."""

    def __init__(self, amqp: Amqp, url: str, limit: int | None) -> None:
        self.amqp = amqp
        self.tables = bridge_settings("http://127.0.0.1:1/engine-rest", url, {"pay": {}})
        self.settings = settings.load(None, _environ(self.tables))
        if limit is not None:
            arguments = {"x-queue-type": "quorum", "x-delivery-limit": limit}
            amqp.channel.queue_declare(PARKED, durable=True, arguments=arguments)
        options = plan.broker_options(self.settings.broker)
        Topology(options, "missing", plan.topology(self.settings)).ensure()
        amqp.channel.confirm_delivery()

    @property
    def parked(self) -> ParkedMessages:
        return ParkedMessages(self.settings)

    def park(self, count: int, start: int = 0) -> list[str]:
        """Park so many results as the bridge does; their message ids."""
        ids = [f"m{number}" for number in range(start, start + count)]
        headers = {"reason": "bad-json", "resultQueue": RESULTS, "trace": "t-1"}
        for message_id in ids:
            body = f'{{"{message_id}"'.encode()
            self.amqp.send("", PARKED, body, message_id=message_id, headers=headers)
        return ids

    def counts(self) -> tuple[int | None, int | None]:
        return self.amqp.count(PARKED), self.amqp.count(RESULTS)


def _environ(tables: dict[str, Any]) -> dict[str, str]:
    return {
        "BRIDGE_ENGINE__URL": tables["engine"]["url"],
        "BRIDGE_BROKER__URL": tables["broker"]["url"],
        "BRIDGE_TOPICS": ",".join(tables["topics"]),
    }


@pytest.fixture
def amqp(amqp_url: str) -> Iterator[Amqp]:
    with Amqp(amqp_url) as amqp:
        yield amqp


def ids_of(messages: list[Message]) -> Counter[str]:
    return Counter(message.properties.message_id for message in messages)


ALL = Chosen()
Restricted = Callable[..., ParkedMessages]


@pytest.fixture
def restricted(broker_node: choice.Broker, amqp_url: str) -> Iterator[Restricted]:
    """Gives the parking queue to a user with these rights."""
    user, vhost = unique("operator"), amqp_url.rpartition("/")[2]
    broker_node.ctl("add_user", user, "secret")

    def give(*, write: str, read: str, configure: str = "^$") -> ParkedMessages:
        broker_node.ctl("set_permissions", "-p", vhost, user, configure, write, read)
        own = amqp_url.replace("guest:guest@", f"{user}:secret@")
        tables = bridge_settings("http://127.0.0.1:1/engine-rest", own, {"pay": {}})
        return ParkedMessages(settings.load(None, _environ(tables)))

    yield give
    broker_node.ctl("delete_user", user)


def test_looking_never_uses_a_message_up(amqp: Amqp, amqp_url: str) -> None:
    """RabbitMQ drops what was given back too often: from 4.0 on after 20 times, and where a policy
    says so sooner.  The ids stay the same all the while.
    """
    lot = Lot(amqp, amqp_url, limit=GIVEN_BACK_MAX)
    lot.park(30)
    first = {one.id for one in lot.parked.find(ALL)}
    assert len(first) == 30

    for _ in range(4 * GIVEN_BACK_MAX):
        assert {one.id for one in lot.parked.find(ALL)} == first

    assert ids_of(eventually_drained(lot, PARKED, 30)) == Counter(f"m{n}" for n in range(30))


def test_a_thousand_are_listed_and_replayed_as_they_were(amqp: Amqp, amqp_url: str) -> None:
    """Each once, with its own properties, and without our marks."""
    lot = Lot(amqp, amqp_url, limit=None)
    ids = lot.park(1000)

    found = lot.parked.find(ALL)
    done = lot.parked.replay(Chosen(frozenset(one.id for one in found)))

    assert len({one.id for one in found}) == len(done) == 1000
    assert {one.problem for one in done} == {None}
    messages = eventually_drained(lot, RESULTS, 1000)
    assert ids_of(messages) == Counter(ids)
    assert {
        json.dumps({k: v for k, v in m.headers.items() if k != "x-delivery-count"})
        for m in messages
    } == {'{"trace": "t-1"}'}
    assert all(message.properties.delivery_mode == 2 for message in messages)
    assert lot.counts() == (0, 0)


def test_twins_are_told_apart(amqp: Amqp, amqp_url: str) -> None:
    """Dropping one of two that do not differ leaves the other."""
    lot = Lot(amqp, amqp_url, limit=None)
    lot.park(1)
    lot.park(1)

    found = [one.id for one in lot.parked.find(ALL)]
    done = lot.parked.drop(Chosen(frozenset({found[1]})))

    assert found[1] == f"{found[0]}-2"
    assert [one.parked.id for one in done] == [found[1]]
    assert [one.id for one in lot.parked.find(ALL)] == [found[0]]


def test_two_operators_and_a_bridge_that_parks_lose_and_double_nothing(
    amqp: Amqp, amqp_url: str
) -> None:
    """They wait for each other; whoever comes second finds less to do."""
    lot = Lot(amqp, amqp_url, limit=None)
    ids = lot.park(60)
    chosen = Chosen(frozenset(one.id for one in lot.parked.find(ALL)))

    with ThreadPoolExecutor(3) as pool:
        acts = [pool.submit(lot.parked.replay, chosen) for _ in range(2)]
        look = pool.submit(lot.parked.find, ALL)
        ids += lot.park(40, start=60)
        done = [one for act in acts for one in act.result(120)]
        look.result(120)

    assert len(done) == 60
    assert ids_of(eventually_drained(lot, RESULTS, 60)) == Counter(ids[:60])
    assert ids_of(eventually_drained(lot, PARKED, 40)) == Counter(ids[60:])


def test_an_operator_without_the_right_to_claim_harms_nobody(
    restricted: Restricted, amqp: Amqp, amqp_url: str
) -> None:
    """Two who cannot wait for each other still lose and double nothing."""
    lot = Lot(amqp, amqp_url, limit=None)
    ids = lot.park(60)
    chosen = Chosen(frozenset(one.id for one in lot.parked.find(ALL)))
    parked = restricted(write=".*", read=".*")

    with ThreadPoolExecutor(3) as pool:
        acts = [pool.submit(parked.replay, chosen) for _ in range(3)]
        done = [one for act in acts for one in act.result(120)]

    assert len(done) == len({one.parked.id for one in done})
    eventually(lambda: sum(n or 0 for n in lot.counts()) == 60)
    replayed, left = amqp.drain(RESULTS), amqp.drain(PARKED)
    assert len(replayed) == len(done)
    assert ids_of(replayed + left) == Counter(ids)


def test_an_operators_least_rights_suffice(
    restricted: Restricted, amqp: Amqp, amqp_url: str
) -> None:
    """Those that the refusal names: to read one queue, and to put its messages back anywhere."""
    lot = Lot(amqp, amqp_url, limit=None)
    lot.park(2)
    parked = restricted(
        configure=r"^bridge\.parked\.desk$", write=r"^amq\.default$", read=r"^bridge\.parked$"
    )

    first, second = parked.find(ALL)
    replayed = parked.replay(Chosen(frozenset({first.id})))
    dropped = parked.drop(Chosen(frozenset({second.id})))

    assert [one.problem for one in replayed + dropped] == [None, None]
    eventually(lambda: lot.counts() == (0, 1))


@pytest.mark.parametrize("rights", [{"write": ".*", "read": "^$"}, {"write": "^$", "read": ".*"}])
def test_a_missing_right_is_named_and_uses_no_message_up(
    restricted: Restricted, amqp: Amqp, amqp_url: str, rights: dict[str, str]
) -> None:
    """Without the right to publish, looking could not be made good for."""
    lot = Lot(amqp, amqp_url, limit=0)
    lot.park(1)
    parked = restricted(**rights)

    with pytest.raises(ParkedUnusable, match=r"amq\.default"):
        parked.find(ALL)

    assert ids_of(eventually_drained(lot, PARKED, 1)) == Counter(["m0"])


def test_an_operator_who_is_killed_loses_nothing(amqp: Amqp, amqp_url: str, tmp_path: Path) -> None:
    """At most the message in hand is there twice: in its queue and still parked."""
    lot = Lot(amqp, amqp_url, limit=None)
    ids = lot.park(600)
    config = tmp_path / "bridge.toml"
    config.write_text(toml(lot.tables))
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", "parked", "replay", "--all", "--yes", "-c", str(config)],
        stdout=subprocess.DEVNULL,
    )

    eventually(lambda: (amqp.count(RESULTS) or 0) >= 20, 60)
    process.send_signal(signal.SIGKILL)
    process.wait(20)

    eventually(lambda: sum(n or 0 for n in lot.counts()) >= 600, 60, what="everything is back")
    found = ids_of(amqp.drain(RESULTS) + amqp.drain(PARKED))
    assert set(found) == set(ids)
    assert sum(found.values()) <= len(ids) + 1


def test_no_parking_queue_is_named_with_the_cure(amqp: Amqp, amqp_url: str) -> None:
    """The usual cause is another virtual host, or another prefix."""
    tables = bridge_settings("http://127.0.0.1:1/engine-rest", amqp_url, {"pay": {}})

    with pytest.raises(ParkedUnusable, match="prefix"):
        ParkedMessages(settings.load(None, _environ(tables))).find(ALL)


def eventually_drained(lot: Lot, queue: str, count: int) -> list[Message]:
    """All messages of a queue, once there are so many."""
    eventually(lambda: lot.amqp.count(queue) == count, 40, what=f"{count} in {queue}")
    return lot.amqp.drain(queue)
