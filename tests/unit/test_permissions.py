"""Rights at the broker: each user gets its own names, and a shell gets what was meant."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import permissions, plan
from bridge.check import rights
from bridge.check.rights import ToDo
from bridge.errors import SettingsError
from bridge.settings import Settings, load
from tests.support.bridge import toml

CELERY = {"reply": "celery", "celery_task": "app.charge"}
RABBITMQCTL = """#!/bin/sh
printf '%s\\0' "$@" >> "$CALLS"; printf '\\n' >> "$CALLS"
if [ "$1" = add_user ]; then cat >> "$PASSWORDS"; fi
"""


def given_settings(tmp_path: Path, **tables: object) -> Settings:
    file = tmp_path / "bridge.toml"
    file.write_text(toml({"topics": {"pay": {}, "ship": {}}, **tables}))
    return load(file, {})


def named(settings: Settings, topic: str, *, gone_notices: bool = False) -> permissions.User:
    found = permissions.users(settings, gone_notices=gone_notices)
    return next(user for user in found if user.topic == topic)


def may(pattern: str, name: str) -> bool:
    """As RabbitMQ judges: a match anywhere in the name."""
    return re.search(pattern, name) is not None


@given(st.sets(st.text(min_size=1), min_size=1), st.text())
def test_a_pattern_matches_its_names_and_no_other(names: set[str], other: str) -> None:
    """A dot that matches any character opens the neighbour's queue."""
    pattern = permissions.pattern(names)

    assert all(may(pattern, name) for name in names)
    assert may(pattern, other) == (other in names or other.removesuffix("\n") in names)


def test_no_names_are_no_right() -> None:
    """An empty pattern reads as if something had been forgotten."""
    assert permissions.pattern([]) == "^$"


# -- the bridge ----------------------------------------------------------------------------------


def test_where_the_bridge_declares_it_may_make_everything_it_needs(tmp_path: Path) -> None:
    """What `check` would complain about must not come from our own advice."""
    settings = given_settings(tmp_path)
    parts = plan.topology(settings)
    bindings = [(part.name, *b) for part in parts for b in getattr(part, "bindings", ())]

    [bridge, *_] = permissions.users(settings)

    patterns = {"configure": bridge.configure, "write": bridge.write, "read": bridge.read}
    found = rights.findings(rights.needed(settings, ToDo(parts, bindings)), patterns, "bridge")
    assert [finding.mark for finding in found] == ["ok"]


@pytest.mark.parametrize("declare", ["passive", "never"])
def test_where_the_bridge_declares_nothing_it_may_configure_nothing(
    tmp_path: Path, declare: str
) -> None:
    """Whoever makes the topology by other means wants it left alone."""
    settings = given_settings(tmp_path, broker={"declare": declare})

    [bridge, *_] = permissions.users(settings)

    assert bridge.configure == "^$"
    assert bridge.write == r"^(amq\.default|bridge\.gone|bridge\.wait)$"
    assert may(bridge.read, "pay.results")
    assert may(bridge.read, "bridge.dead-letters")
    assert may(bridge.read, "pay") is (declare == "passive")


def test_whoever_counts_consumers_may_look_at_the_queue(tmp_path: Path) -> None:
    """From RabbitMQ 4.3.1 on a passive look takes a right; without one nothing is fetched."""
    topics = {"pay": {"wait_for_consumer": True}, "ship": {}}

    [bridge, *_] = permissions.users(
        given_settings(tmp_path, topics=topics, broker={"declare": "never"})
    )

    assert may(bridge.read, "pay")
    assert not may(bridge.read, "ship")


def test_an_exchange_of_others_may_be_written_and_never_configured(tmp_path: Path) -> None:
    """It is somebody else's, and so is the queue behind it."""
    topics = {"pay": {"exchange": "shop", "routing_key": "paid"}}

    [bridge, *_] = permissions.users(given_settings(tmp_path, topics=topics))

    assert may(bridge.write, "shop")
    assert not may(bridge.configure, "shop")
    assert not may(bridge.configure, "pay")


@pytest.mark.parametrize(
    ("broker", "name"),
    [
        ({}, "bridge"),
        ({"prefix": "shop"}, "shop"),
        ({"url": "amqp://carrier:secret@rabbit/"}, "carrier"),
        ({"username": "carrier", "password": "secret"}, "carrier"),
    ],
)
def test_the_bridge_keeps_its_user_but_guest(
    tmp_path: Path, broker: dict[str, str], name: str
) -> None:
    """Rights for guest would change what every other program on that broker may do."""
    settings = given_settings(tmp_path, broker=broker)

    [bridge, *_] = users = permissions.users(settings)

    assert bridge.name == name
    assert "secret" not in permissions.as_text(settings, users)
    assert "secret" not in permissions.as_json(settings, users)


# -- workers -------------------------------------------------------------------------------------


def test_a_worker_touches_its_own_topic_only(tmp_path: Path) -> None:
    """The names beside its own, and every name of the bridge, are closed to it."""
    worker = named(given_settings(tmp_path), "pay")

    assert worker.configure == "^$"
    assert (worker.read, worker.write) == ("^pay$", r"^bridge\.results$")
    assert worker.topic_permissions == (
        permissions.TopicPermission("bridge.results", "^pay$", "^$"),
    )


def test_a_workers_queue_and_topic_may_have_different_names(tmp_path: Path) -> None:
    """It reads the queue and answers with the topic, whatever characters either has."""
    topics = {"pay (new) $1": {"queue": "payments.new"}}
    worker = named(
        given_settings(tmp_path, topics=topics, broker={"prefix": "p.q"}), "pay (new) $1"
    )

    assert worker.read == r"^payments\.new$"
    assert worker.write == r"^p\.q\.results$"
    assert worker.topic_permissions[0].write == r"^pay \(new\) \$1$"


def test_a_worker_that_never_answers_may_write_nothing(tmp_path: Path) -> None:
    """Its tasks are completed without it."""
    worker = named(given_settings(tmp_path, topics={"pay": {"reply": "none"}}), "pay")

    assert (worker.write, worker.topic_permissions) == ("^$", ())


@pytest.mark.parametrize("reply", [{"reply": "spring"}, CELERY])
def test_what_answers_to_reply_to_alone_may_do_so(tmp_path: Path, reply: dict[str, str]) -> None:
    """With the rights of a fenced worker its first answer would close its channel."""
    settings = given_settings(tmp_path, topics={"pay": reply})
    worker = named(settings, "pay")

    assert may(worker.write, "amq.default")
    assert not may(worker.write, "bridge.results")
    assert (may(worker.read, "pay"), worker.topic_permissions) == (True, ())
    assert "nothing fences it in" in comments(settings, "pay")


def test_celery_may_make_what_it_declares_at_its_start(tmp_path: Path) -> None:
    """It declares its queue and exchange each time, there or not, and three more for control."""
    worker = named(given_settings(tmp_path, topics={"pay": {**CELERY, "queue": "charges"}}), "pay")

    for right in (worker.configure, worker.write, worker.read):
        for name in (
            "charges",
            "celery.pidbox",
            "reply.celery.pidbox",
            "celery@host.celery.pidbox",
        ):
            assert may(right, name)
        assert may(right, "celeryev.4711")
        for name in ("pay", "celery", "bridge.results", "xcelery.pidbox", "celeryevil"):
            assert not may(right, name)


def test_behind_an_exchange_the_queue_is_told_or_not_known(tmp_path: Path) -> None:
    """Where it routes to is its owner's affair: the topic's name would be a wrong queue."""
    shop = {"exchange": "shop", "routing_key": "paid"}
    topics = {
        "unknown": shop,
        "told": {**shop, "queue": "paid-orders"},
        "counted": {**shop, "wait_for_consumer": True},
        "odd-celery": {**shop, **CELERY},
        "celery": {"exchange": "charges", "routing_key": "charges", **CELERY},
    }
    settings = given_settings(tmp_path, topics=topics)

    assert {name: named(settings, name).queue for name in topics} == {
        "unknown": None,
        "told": "paid-orders",
        "counted": "counted",
        "odd-celery": None,
        "celery": "charges",
    }
    assert named(settings, "unknown").read == "^$"
    assert named(settings, "told").read == "^paid-orders$"
    assert may(named(settings, "celery").configure, "charges")
    for name in topics:
        is_unknown = name in ("unknown", "odd-celery")
        assert ("NOT FOR USE AS IT STANDS" in comments(settings, name)) is is_unknown


def comments(settings: Settings, topic: str) -> str:
    """What the lines say about a topic's worker."""
    _, _, said = permissions.as_text(settings, [named(settings, topic)]).partition("\n\n")
    return " ".join(line[2:] for line in said.splitlines() if line.startswith("# "))


def test_a_queue_behind_an_exchange_is_no_gone_queue_either(tmp_path: Path) -> None:
    """Else the workers of one topic could delete it."""
    topics = {"pay": {}, "ship": {"exchange": "shop", "queue": "pay.gone.again"}}

    with pytest.raises(SettingsError, match=r"topics\.pay\.queue: .*pay\.gone\.again"):
        permissions.users(given_settings(tmp_path, topics=topics), gone_notices=True)


def test_gone_notices_take_a_queue_of_ones_own(tmp_path: Path) -> None:
    """Every worker hears them, so each needs a queue, bound to its own topic's notices."""
    worker = named(given_settings(tmp_path), "pay", gone_notices=True)

    for right in (worker.configure, worker.write, worker.read):
        assert may(right, "pay.gone.host-1")
        assert not may(right, "ship.gone.host-1")
        assert not may(right, "pay.gone.host-1.results")
    assert may(worker.read, "bridge.gone")
    assert not may(worker.write, "bridge.gone")
    assert not may(worker.configure, "pay")
    assert permissions.TopicPermission("bridge.gone", "^$", "^pay$") in worker.topic_permissions


def test_a_topic_that_looks_like_a_gone_queue_is_refused(tmp_path: Path) -> None:
    """Else one topic's workers could delete another's queue."""
    settings = given_settings(tmp_path, topics={"pay": {}, "pay.gone.again": {}})

    assert len(permissions.users(settings)) == 3
    with pytest.raises(SettingsError, match=r"topics\.pay\.queue: .*pay\.gone\.again"):
        permissions.users(settings, gone_notices=True)


# -- as a shell takes it -------------------------------------------------------------------------


def test_a_shell_takes_the_lines_as_they_were_meant(tmp_path: Path) -> None:
    """Names come from process models and may hold anything but control characters."""
    vhost, user = "it's $HOME; `id`\n#", "an \"owner\" & 'more'"
    topics = {"$(touch broken)": {"queue": "a"}, "$(touch broken>": {"queue": "b"}}
    url = f"amqp://{quote(user, safe='')}:secret@localhost/{quote(vhost, safe='')}"
    settings = given_settings(tmp_path, topics=topics, broker={"url": url})
    users = permissions.users(settings)

    calls, passwords = run_in_shell(tmp_path, permissions.as_text(settings, users))

    expected = []
    for one in users:
        rights = [one.name, one.configure, one.write, one.read]
        expected += [["add_user", one.name], ["set_permissions", "-p", vhost, *rights]]
        for at in one.topic_permissions:
            at_exchange = [one.name, at.exchange, at.write, at.read]
            expected.append(["set_topic_permissions", "-p", vhost, *at_exchange])
    assert calls == expected
    assert not (tmp_path / "broken").exists()
    assert len(set(passwords)) == len(users)
    assert all(len(password) >= 32 for password in passwords)


def test_a_password_that_is_there_is_used(tmp_path: Path) -> None:
    """Run again, the lines must not write a new one over that of an existing user."""
    settings = given_settings(tmp_path)
    (tmp_path / "bridge.password").write_text("chosen\n")

    _, passwords = run_in_shell(
        tmp_path, permissions.as_text(settings, permissions.users(settings)[:1])
    )

    assert passwords == ["chosen"]
    assert (tmp_path / "bridge.password").read_text() == "chosen\n"


def run_in_shell(directory: Path, text: str) -> tuple[list[list[str]], list[str]]:
    """Give the lines to a shell whose rabbitmqctl only writes down; its calls, and passwords."""
    program = directory / "rabbitmqctl"
    program.write_text(RABBITMQCTL)
    program.chmod(0o755)
    calls, passwords = directory / "calls", directory / "passwords"
    environment = {
        "PATH": f"{directory}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "PASSWORDS": str(passwords),
    }
    subprocess.run(["sh", "-eu"], input=text, cwd=directory, env=environment, text=True, check=True)
    made = [call.split("\0") for call in calls.read_text().split("\0\n")[:-1]]
    return made, passwords.read_text().splitlines()


# -- the command ---------------------------------------------------------------------------------


def command(tmp_path: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "bridge.toml"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "bridge", "permissions", "--config", str(file), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")},
    )


def test_the_command_prints_lines_or_data(tmp_path: Path) -> None:
    """For a terminal, and for a tool that keeps the broker's definitions."""
    lines, data = command(tmp_path, "[topics.pay]"), command(tmp_path, "[topics.pay]", "--json")

    assert (lines.returncode, data.returncode) == (0, 0)
    assert "rabbitmqctl add_user worker-pay < worker-pay.password\n" in lines.stdout
    users = json.loads(data.stdout)["users"]
    assert [(user["role"], user["name"]) for user in users] == [
        ("bridge", "bridge"),
        ("worker", "worker-pay"),
    ]


@pytest.mark.parametrize("text", ["", "[topics.pay]\n[topics.'pay.gone.x']"])
def test_bad_settings_are_exit_code_2(tmp_path: Path, text: str) -> None:
    """As with every command: one sentence with its cure, on standard error."""
    done = command(tmp_path, text, "--gone-notices")

    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
