"""RabbitMQ's definitions: the same as the bridge declares, and no password in them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge import definitions, permissions, plan
from bridge.broker import Exchange, Queue
from bridge.errors import SettingsError
from bridge.settings import Settings, load
from tests.support.bridge import toml

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRET = "kept in a file"
FOREIGN = {"exchange": "orders", "routing_key": "{topicName}"}


def given_settings(tmp_path: Path, **tables: object) -> Settings:
    file = tmp_path / "bridge.toml"
    topics = {"pay": {}, "ship": FOREIGN, "log": {"reply": "none"}}
    broker = {"url": "amqp://localhost/shop"}
    file.write_text(toml({"topics": topics, "broker": broker, **tables}))
    return load(file, {})


def passwords(folder: Path, settings: Settings) -> Path:
    for file in permissions.password_files(permissions.users(settings)).values():
        (folder / file).write_text(f"{SECRET}\n")
    return folder


def test_the_file_of_the_repository_is_the_example_s() -> None:
    """Whoever imports it gets what the commented settings describe."""
    settings = load(DEPLOY / "bridge.toml", {})

    kept = json.loads((DEPLOY / "rabbitmq" / "definitions.json").read_text())

    assert kept == definitions.definitions(settings)


def test_all_that_the_bridge_would_declare_is_in_it(tmp_path: Path) -> None:
    """And nothing that is somebody else's: an exchange of others keeps its type."""
    settings = given_settings(tmp_path)
    made = definitions.definitions(settings)
    parts = plan.topology(settings)
    own = {p.name for p in parts if isinstance(p, Exchange) and p.type is not None}
    queues = [p for p in parts if isinstance(p, Queue)]

    assert {one["name"] for one in made["exchanges"]} == own
    assert "orders" not in own
    assert {one["name"]: one["arguments"] for one in made["queues"]} == {
        queue.name: dict(queue.arguments) for queue in queues
    }
    assert {(b["source"], b["destination"], b["routing_key"]) for b in made["bindings"]} == {
        (exchange, queue.name, key) for queue in queues for exchange, key in queue.bindings
    }
    everything = made["exchanges"] + made["queues"] + made["bindings"]
    assert {one["vhost"] for one in everything} == {"shop"} == {v["name"] for v in made["vhosts"]}
    assert all(one["durable"] for one in made["exchanges"] + made["queues"])


def test_without_passwords_there_are_no_users(tmp_path: Path) -> None:
    """A user without a password in the file would lose the one that he has."""
    made = definitions.definitions(given_settings(tmp_path))

    assert made.keys() == {"vhosts", "exchanges", "queues", "bindings"}


def test_users_come_with_the_rights_that_permissions_gives(tmp_path: Path) -> None:
    """Two lists of rights would drift apart."""
    settings = given_settings(tmp_path)
    users = {user.name: user for user in permissions.users(settings, gone_notices=True)}

    made = definitions.definitions(
        settings, passwords=passwords(tmp_path, settings), gone_notices=True
    )

    assert {one["name"] for one in made["users"]} == users.keys()
    given = {one["user"]: one for one in made["permissions"]}
    assert given.keys() == users.keys()
    for name, user in users.items():
        for right in ("configure", "write", "read"):
            assert given[name][right] == getattr(user, right), (name, right)
    assert {(one["user"], one["exchange"]) for one in made["topic_permissions"]} == {
        (user.name, right.exchange) for user in users.values() for right in user.topic_permissions
    }
    assert all(one["tags"] == [] for one in made["users"])


def test_a_password_is_salted_and_hashed(tmp_path: Path) -> None:
    """The file lies beside a node for years; two users with one password must not look alike."""
    settings = given_settings(tmp_path)

    made = definitions.definitions(settings, passwords=passwords(tmp_path, settings))

    hashes = [base64.b64decode(one["password_hash"]) for one in made["users"]]
    assert len(set(hashes)) == len(hashes) == 4
    for found in hashes:
        assert found[4:] == hashlib.sha256(found[:4] + SECRET.encode()).digest()
    assert SECRET not in json.dumps(made)


def test_every_password_that_lacks_is_named_at_once(tmp_path: Path) -> None:
    """With the user and the cure; nobody wants to be told one by one."""
    settings = given_settings(tmp_path)
    passwords(tmp_path, settings)
    (tmp_path / "worker-pay.password").unlink()
    (tmp_path / "worker-ship.password").write_text("\n")
    (tmp_path / "worker-log.password").write_bytes(b"\xff")

    with pytest.raises(SettingsError) as refused:
        definitions.definitions(settings, passwords=tmp_path)

    first, second, third = refused.value.problems
    assert "'worker-pay.password'" in first
    assert "No such file" in first
    assert "openssl rand -base64 24 > worker-pay.password" in first
    assert "it is empty" in second
    assert "not UTF-8" in third


def command(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", "definitions", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")},
    )


def test_the_command_prints_the_file() -> None:
    """Standard output goes straight into it."""
    done = command("--config", str(DEPLOY / "bridge.toml"))

    assert done.returncode == 0
    assert done.stdout == (DEPLOY / "rabbitmq" / "definitions.json").read_text()


def test_the_command_refuses_in_words(tmp_path: Path) -> None:
    """And prints nothing that could be taken for a file."""
    done = command("--config", str(DEPLOY / "bridge.toml"), "--passwords", str(tmp_path))

    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 3
    assert "'worker-demo-worker.password'" in done.stderr
