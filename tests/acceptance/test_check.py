"""`external-task-bridge check` on a real engine and a real RabbitMQ: each kind of mistake is found
in one run, with its key and its cure, and nothing is touched.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import pytest
import requests

from bridge.check.broker import look as broker_look
from bridge.management import Management
from bridge.settings import load
from deploy.local import choice
from deploy.local.engine_build import EngineKind
from deploy.local.programs import free_port
from tests.support.amqp import Amqp
from tests.support.bridge import settings, toml
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually

LIMIT_SECONDS = 40
QUORUM = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 20,
    "x-dead-letter-exchange": "bridge.dead",
    "x-dead-letter-strategy": "at-least-once",
}


@dataclass(frozen=True)
class Report:
    """What one run of `check` said."""

    code: int
    output: str
    findings: list[dict[str, str]]

    def marked(self, mark: str) -> dict[str, str]:
        """The texts (cures after them) of a mark, by key; several of one key on several lines."""
        texts: dict[str, str] = {}
        for found in self.findings:
            if found["mark"] == mark:
                text = f"{found['text']}; {found['cure']}"
                texts[found["key"]] = "\n".join(filter(None, [texts.get(found["key"]), text]))
        return texts

    @property
    def problems(self) -> dict[str, str]:
        return self.marked("problem")

    @property
    def warnings(self) -> dict[str, str]:
        return self.marked("warning")

    @property
    def fine(self) -> str:
        return "\n".join(found["text"] for found in self.findings if found["mark"] == "ok")


Check = Callable[[Mapping[str, Any]], Report]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs `check --json` on settings; its problems always have a key and its output is JSON."""

    def run(tables: Mapping[str, Any]) -> Report:
        done = run_check(tmp_path, tables, "--json")
        assert done.stderr == ""
        report = json.loads(done.stdout)
        assert report["exitCode"] == done.returncode
        assert all(f["key"] for f in report["findings"] if f["mark"] != "ok")
        assert all(f["cure"] for f in report["findings"] if f["mark"] != "ok")
        return Report(done.returncode, done.stdout, report["findings"])

    return run


def run_check(
    tmp_path: Path, tables: Mapping[str, Any], *options: str
) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "bridge.toml"
    config.write_text(toml(tables))
    return subprocess.run(
        [sys.executable, "-m", "bridge", "check", "--config", str(config), *options],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")},
    )


class Rabbit:
    """The management API as an administrator uses it, for one virtual host."""

    def __init__(self, node: choice.Broker, amqp_url: str) -> None:
        parts = urlsplit(node.management_url)
        self.url = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        self.vhost = urlsplit(amqp_url).path[1:]
        self.users: list[str] = []
        self._amqp_url = amqp_url
        self._session = requests.Session()
        self._session.auth = (parts.username or "guest", parts.password or "guest")

    def call(self, method: str, *path: str, body: Any = None) -> Any:
        address = "/".join([self.url, "api", *(quote(part, safe="") for part in path)])
        answer = self._session.request(method, address, json=body, timeout=10)
        assert answer.ok, f"{method} {address}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def add_user(self, tags: str, **patterns: str) -> str:
        """Make a user with these rights; returns the AMQP URL with its credentials."""
        name = f"user-{uuid.uuid4().hex[:8]}"
        self.call("PUT", "users", name, body={"password": "s3cret", "tags": tags})
        self.users.append(name)
        rights = {"configure": "", "write": "", "read": "", **patterns}
        self.call("PUT", "permissions", self.vhost, name, body=rights)
        return (
            urlsplit(self._amqp_url)
            ._replace(netloc=f"{name}:s3cret@{self._amqp_url.rpartition('@')[2].partition('/')[0]}")
            .geturl()
        )

    def definitions(self) -> Any:
        """Every queue, exchange, binding, policy and limit of the virtual host."""
        return self.call("GET", "definitions", self.vhost)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for user in self.users:
            self.call("DELETE", "users", user)
        self._session.close()


@pytest.fixture
def rabbit(broker_node: choice.Broker, amqp_url: str) -> Iterator[Rabbit]:
    with Rabbit(broker_node, amqp_url) as api:
        yield api


# -- nothing wrong, nothing touched ----------------------------------------------------------


def test_nothing_would_fail(
    check: Check, engine: EngineRest, amqp_url: str, rabbit: Rabbit
) -> None:
    """What it says of a good installation: which engine, which broker, what it will declare."""
    topic = unique("charge")
    key = engine.deploy_topics(topic)
    engine.start_many(key, 2)
    try:
        report = check(
            settings(engine.url, amqp_url, {topic: {}}, broker={"management_url": rabbit.url})
        )
    finally:
        engine.clean(key)

    assert (report.code, report.problems) == (0, {})
    assert set(report.warnings) == {"token_key_file"}
    for words in (
        "Camunda BPM 7.24.0",
        "clock",
        "RabbitMQ 3.",
        f"{topic}.results",
        "may configure, write and read",
        f"{topic}: in the engine 2 waiting, 0 held by this worker_id",
    ):
        assert words in report.fine


def test_another_engine_is_told_apart(
    check: Check, real_engine: Callable[[EngineKind], str], amqp_url: str
) -> None:
    """Operators run several engines: which one answers is the first question."""
    report = check(settings(real_engine("operaton"), amqp_url, {"charge": {}}))

    assert report.code == 0
    assert "Operaton" in report.fine


@pytest.mark.parametrize("management", [True, False])
def test_it_touches_nothing(
    check: Check, engine: EngineRest, amqp_url: str, rabbit: Rabbit, management: bool
) -> None:
    """People run it against production: same queues, messages, bindings and locks afterwards."""
    here, elsewhere = unique("charge"), unique("refund")
    key = engine.deploy_topics(here)
    engine.start(key)
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare(here, durable=True)
        amqp.send("", here, b"{}")
        amqp.channel.exchange_declare("bridge.dead", "direct", durable=True)
        eventually(lambda: amqp.count(here) == 1)
    before = rabbit.definitions()
    assert [queue["name"] for queue in before["queues"]] == [here]
    try:
        broker = {"management_url": rabbit.url} if management else {}
        report = check(settings(engine.url, amqp_url, {here: {}, elsewhere: {}}, broker=broker))
        tasks = engine.tasks(topicName=here)
    finally:
        engine.clean(key)

    assert "1 messages" in report.warnings[f"topics.{here}.queue"]  # it has looked at all of it
    assert "bridge.dead" in report.problems["broker.prefix"]
    assert elsewhere in report.fine
    assert rabbit.definitions() == before
    assert [(task["workerId"], task["lockExpirationTime"]) for task in tasks] == [(None, None)]
    with Amqp(amqp_url) as amqp:
        message = amqp.get(here)
        assert message is not None
        assert not message.redelivered
        assert amqp.count(here) == 0


# -- everything at once ----------------------------------------------------------------------


def test_bad_settings_are_all_named(tmp_path: Path) -> None:
    """Exit code 2, one line each, the nearest right key, and nothing else is tried."""
    tables = settings("http://127.0.0.1:1/engine-rest", "amqp://127.0.0.1:1/", {})
    tables["engine"]["user_name"] = "demo"
    tables["topics"] = {
        "no queue name": {},
        "pay": {"queue": "shared"},
        "refund": {"queue": "shared", "lease": "10s"},
    }

    done = run_check(tmp_path, tables)

    assert done.returncode == 2
    for words in (
        'engine.user_name: unknown key; did you mean "username"?',
        'topics."no queue name": topic',
        'set queue = "<name>"',
        "'shared' would serve",
        "topics.refund.lease: at least 10 x publish_window",
        "4 problems",
    ):
        assert words in done.stdout
    assert "engine\n" not in done.stdout


def test_a_dead_engine_does_not_hide_a_dead_broker(check: Check) -> None:
    """One run says both, though nothing answers anywhere."""
    dead = f"127.0.0.1:{free_port()}"

    report = check(settings(f"http://{dead}/engine-rest", f"amqp://{dead}/", {"charge": {}}))

    assert report.code == 1
    assert "Connection refused" in report.problems["engine.url"]
    assert "Connection refused" in report.problems["broker.url"]


def test_silence_is_bounded(check: Check) -> None:
    """Behind a firewall that swallows packets nobody ever answers; `check` ends all the same."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        report = check(
            settings(f"http://{silent_address}/engine-rest", f"amqp://{silent_address}/", {"a": {}})
        )

    assert time.monotonic() - began < 25
    assert set(report.problems) == {"engine.url", "broker.url"}


def test_secrets_are_never_shown(tmp_path: Path, engine: EngineRest, amqp_url: str) -> None:
    """The output goes into tickets and chats."""
    address = amqp_url.rpartition("@")[2]
    tables = settings(
        engine.url,
        f"amqp://guest:hushhush@{address}",
        {"charge": {}},
        engine={"url": f"{engine.url}/engine/nope", "username": "u", "password": "hushhush"},
        broker={"management_url": "http://127.0.0.1:1"},
    )

    for options in ([], ["--json"]):
        done = run_check(tmp_path, tables, *options)
        assert done.returncode == 1
        assert "hushhush" not in done.stdout + done.stderr


# -- the engine ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (lambda url: url.removesuffix("-rest"), "engine.url", "404"),
        (lambda url: f"{url}/engine/defalt", "engine.url", "/engine/default?"),
        (lambda url: url.replace("http:", "https:"), "engine.url", "TLS: wrong version number"),
    ],
    ids=["path", "name", "tls"],
)
def test_a_wrong_address_of_the_engine(
    *,
    check: Check,
    engine: EngineRest,
    amqp_url: str,
    change: Callable[[str], str],
    key: str,
    words: str,
) -> None:
    """Without authentication an engine answers some calls even for a name it does not know."""
    report = check(settings(change(engine.url), amqp_url, {"charge": {}}))

    assert report.code == 1
    assert set(report.problems) == {key}
    assert words in report.problems[key]


def test_a_named_engine_is_accepted(check: Check, engine: EngineRest, amqp_url: str) -> None:
    """The look at the names must not refuse a right one."""
    assert check(settings(f"{engine.url}/engine/default", amqp_url, {"charge": {}})).code == 0


@pytest.mark.parametrize(
    ("credentials", "key", "words"),
    [
        ({}, "engine.username", "set username and password_file"),
        ({"username": "nobody", "password": "wrong"}, "engine.username", "does not accept"),
        ({"token": "wrong"}, "engine.token", "does not accept"),
    ],
    ids=["none", "password", "token"],
)
def test_credentials_that_the_engine_refuses(
    *,
    check: Check,
    guarded_engine: EngineRest,
    amqp_url: str,
    credentials: dict[str, str],
    key: str,
    words: str,
) -> None:
    """401 in words, at the key that holds the credentials."""
    report = check(settings(guarded_engine.url, amqp_url, {"charge": {}}, engine=credentials))

    assert report.code == 1
    assert words in report.problems[key]


def test_a_user_without_rights_in_the_engine(
    check: Check, guarded_engine: EngineRest, amqp_url: str
) -> None:
    """The engine hides tasks instead of refusing them: no other sign would ever come."""
    topics = {"any": {}, "some": {"process_definition_key": "order"}}
    weak = {"username": "weak", "password": "weak"}

    without = check(settings(guarded_engine.url, amqp_url, topics, engine=weak))
    right = {"type": 1, "userId": "weak", "resourceType": 6, "resourceId": "order"}
    right["permissions"] = ["READ_INSTANCE", "UPDATE_INSTANCE"]
    guarded_engine.call("POST", "/authorization/create", right)
    with_one = check(settings(guarded_engine.url, amqp_url, topics, engine=weak))
    all_rights = {"username": "demo", "password": "demo"}
    with_all = check(settings(guarded_engine.url, amqp_url, topics, engine=all_rights))

    assert without.code == 1
    assert "READ_INSTANCE" in without.problems["topics.some.process_definition_key"]
    assert "topic any" in without.warnings["engine.username"]
    assert (with_one.code, with_one.problems) == (0, {})
    assert "topic any" in with_one.warnings["engine.username"]
    assert with_all.code == 0
    assert "may read and update the instances of every process" in with_all.fine


def test_misspelt_topics_and_shared_worker_ids_are_pointed_out(
    check: Check, engine: EngineRest, amqp_url: str
) -> None:
    """Both are valid, and both leave tasks lying or answered by the wrong bridge."""
    topic, worker_id = unique("charge"), unique("bridge")
    key = engine.deploy_topics(topic)
    engine.start(key)
    try:
        lock = {"topicName": topic, "lockDuration": 60_000}
        body = {"workerId": worker_id, "maxTasks": 1, "topics": [lock]}
        engine.call("POST", "/external-task/fetchAndLock", body)
        report = check(settings(engine.url, amqp_url, {f"{topic}s": {}}, worker_id=worker_id))
    finally:
        engine.clean(key)

    assert report.code == 0
    assert repr(topic) in report.warnings[f"topics.{topic}s"]
    assert topic in report.warnings["worker_id"]


# -- the broker ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("guest:guest@", "guest:wrong@"), "refuses the user name or"),
        (lambda url: f"{url}-nowhere", "virtual host is not found"),
        (lambda url: url.replace("amqp:", "amqps:"), "TLS"),
    ],
    ids=["password", "vhost", "tls"],
)
def test_an_address_that_the_broker_refuses(
    check: Check, engine: EngineRest, amqp_url: str, change: Callable[[str], str], words: str
) -> None:
    """Each in words of its own: one is mended by a password, another by an administrator."""
    report = check(settings(engine.url, change(amqp_url), {"charge": {}}))

    assert report.code == 1
    assert words in report.problems["broker.url"]


def test_one_dead_node_of_a_cluster_is_a_warning(
    check: Check, engine: EngineRest, amqp_url: str
) -> None:
    """The bridge goes on to the next; somebody should know all the same."""
    tables = settings(engine.url, amqp_url, {"charge": {}})
    del tables["broker"]["url"]
    tables["broker"]["urls"] = [f"amqp://127.0.0.1:{free_port()}/", amqp_url]

    report = check(tables)

    assert report.code == 0
    assert "Connection refused" in report.warnings["broker.urls[0]"]


def test_missing_rights_at_the_broker(
    check: Check, engine: EngineRest, amqp_url: str, rabbit: Rabbit
) -> None:
    """RabbitMQ tells them one by one and only when it is too late."""
    poor = rabbit.add_user("administrator", configure="^bridge", write="^bridge", read=".*")
    broker = {"management_url": rabbit.url}

    report = check(settings(engine.url, poor, {"charge": {}}, broker=broker))

    assert report.code == 1
    lacking = report.problems["broker.username"]
    assert "may not configure 'charge', 'charge.results'" in lacking
    assert "may not write 'amq.default', 'charge.results'" in lacking
    assert "may not read" not in lacking


@pytest.mark.parametrize(("tags", "words"), [("management", "administrator"), ("", "401")])
def test_rights_that_cannot_be_read_are_not_called_fine(
    *, check: Check, engine: EngineRest, amqp_url: str, rabbit: Rabbit, tags: str, words: str
) -> None:
    """A user of the least rights is good practice; check then says what it has not seen."""
    user = rabbit.add_user(tags, configure=".*", write=".*", read=".*")
    broker = {"management_url": rabbit.url}

    report = check(settings(engine.url, user, {"charge": {}}, broker=broker))

    assert report.code == 0
    assert words in report.warnings["broker.management_url"]
    assert "may configure" not in report.fine


@pytest.mark.parametrize("management", [True, False])
def test_existing_queues_that_differ(
    check: Check, engine: EngineRest, amqp_url: str, rabbit: Rabbit, management: bool
) -> None:
    """They are used as they are: a warning says what that means; the equal one is not named."""
    topics: dict[str, Any] = {"classic": {}, "limit": {}, "equal": {}}
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare("classic", durable=True)
        amqp.channel.queue_declare(
            "limit", durable=True, arguments={**QUORUM, "x-delivery-limit": 3}
        )
        amqp.channel.queue_declare("equal", durable=True, arguments=QUORUM)
        broker = {"management_url": rabbit.url} if management else {}
        report = check(settings(engine.url, amqp_url, topics, broker=broker))

    assert report.code == 0
    assert "used as it is" in report.warnings["topics.classic.queue"]
    assert "x-delivery-limit" in report.warnings["topics.limit.queue"]
    assert "used as it is" not in report.warnings["topics.equal.queue"]
    assert "nobody consumes" in report.warnings["topics.equal.queue"]
    if management:
        assert "x-dead-letter-exchange: none" in report.warnings["topics.classic.queue"]


def test_a_result_queue_that_drops_what_is_unreadable(
    check: Check, engine: EngineRest, amqp_url: str, rabbit: Rabbit
) -> None:
    """Somebody declared it before the bridge did, without a way to the parking queue."""
    with Amqp(amqp_url) as amqp:
        arguments = {name: QUORUM[name] for name in ("x-queue-type", "x-delivery-limit")}
        amqp.channel.queue_declare("pay.results", durable=True, arguments=arguments)
        broker = {"management_url": rabbit.url}
        report = check(settings(engine.url, amqp_url, {"pay": {}}, broker=broker))

    assert "an unreadable message vanishes there" in report.warnings["topics.pay"]


def test_a_parking_queue_that_loses_messages(
    amqp_url: str, rabbit: Rabbit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 4 limits deliveries where nobody asked for it, and a policy lifts that."""
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare(
            "bridge.parked", durable=True, arguments={"x-queue-type": "quorum"}
        )
    monkeypatch.setattr(Management, "version", lambda _: "4.1.0")
    config = tmp_path / "bridge.toml"
    broker = {"management_url": rabbit.url}
    config.write_text(toml(settings("http://127.0.0.1:1", amqp_url, {"pay": {}}, broker=broker)))

    findings = broker_look(load(config, {}))

    [told] = [finding for finding in findings if "given back 20 times" in finding.text]
    assert told.mark == "warning"
    assert '{"delivery-limit": -1}' in told.cure


@pytest.mark.parametrize("management", [True, False])
def test_an_exchange_of_another_type(
    check: Check, engine: EngineRest, amqp_url: str, rabbit: Rabbit, management: bool
) -> None:
    """Results published there would reach nobody, or everybody."""
    with Amqp(amqp_url) as amqp:
        amqp.channel.exchange_declare("bridge.results", "fanout", durable=True)
        broker = {"management_url": rabbit.url} if management else {}
        report = check(settings(engine.url, amqp_url, {"charge": {}}, broker=broker))

    assert report.code == 1
    assert "bridge.results" in report.problems["broker.prefix"]


def test_what_is_missing_where_nothing_is_declared(
    check: Check, engine: EngineRest, amqp_url: str, rabbit: Rabbit
) -> None:
    """Somebody else makes the topology, and has forgotten something."""
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare("there", durable=True, arguments=QUORUM)
        amqp.channel.queue_declare("there.results", durable=True)
        broker = {"management_url": rabbit.url, "declare": "passive"}
        topics: dict[str, Any] = {"there": {}, "gone": {}}
        report = check(settings(engine.url, amqp_url, topics, broker=broker))

    assert report.code == 1
    assert "no queue 'gone'" in report.problems["topics.gone.queue"]
    assert "no queue 'gone.results'" in report.problems["topics.gone"]
    assert "not bound to 'bridge.results' with 'there'" in report.problems["topics.there"]
    assert "topics.there.queue" not in report.problems
    assert "no exchange 'bridge.gone'" in report.problems["broker.prefix"]


def test_an_exchange_of_others_must_exist(check: Check, engine: EngineRest, amqp_url: str) -> None:
    """The bridge never declares it, whatever it may declare."""
    topics = {"charge": {"exchange": "shop", "routing_key": "charge"}}

    missing_one = check(settings(engine.url, amqp_url, topics))
    with Amqp(amqp_url) as amqp:
        amqp.channel.exchange_declare("shop", "headers", durable=True)
    there = check(settings(engine.url, amqp_url, topics))

    assert missing_one.code == 1
    assert "no exchange 'shop'" in missing_one.problems["topics.charge.exchange"]
    assert (there.code, there.problems) == (0, {})


def test_a_queue_that_another_connection_owns(
    check: Check, engine: EngineRest, amqp_url: str
) -> None:
    """An exclusive queue can be used by nobody else, be it declared or not."""
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare("charge", exclusive=True)
        report = check(settings(engine.url, amqp_url, {"charge": {}}))

    assert report.code == 1
    assert "exclusive" in report.problems["topics.charge.queue"]


def test_a_dead_management_api_hides_nothing_else(
    check: Check, engine: EngineRest, amqp_url: str
) -> None:
    """What can be looked at over AMQP is looked at."""
    broker = {"management_url": f"http://127.0.0.1:{free_port()}", "declare": "passive"}

    report = check(settings(engine.url, amqp_url, {"charge": {}}, broker=broker))

    assert "Connection refused" in report.warnings["broker.management_url"]
    assert "no queue 'charge'" in report.problems["topics.charge.queue"]
