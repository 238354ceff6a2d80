"""The bridge and the workers as the demo runs them: settings, commands, and when they are ready.

Imports nothing of the bridge: it is started as its users start it.
"""

import json
import os
import secrets
import sys
from pathlib import Path

from deploy.local.demo_cases import ATTEMPTS, TOPICS
from deploy.local.demo_parts import Address
from deploy.local.programs import Program

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = ROOT / "deploy" / "processes"
WORKERS = {
    "demo-worker": "demo_worker.py",
    "payment-processing": "payment_worker.py",
    "creditScoreChecker": "credit_score_worker.py",
    "transcodeVideo": "transcode_worker.py",
}
STEP_SECONDS = "0.25"


def bridge_toml(engine: Address, amqp_url: str, key_file: Path, listen: str) -> str:
    """The demo's settings file: as few keys as it takes, pauses short so that the demo is quick."""
    text = json.dumps  # a JSON string is a TOML string
    login = f"username = {text(engine.username)}\npassword = {text(engine.password)}\n"
    return f"""\
# Written by the demo. deploy/bridge.toml explains every key.
worker_id = "demo"
token_key_file = {text(str(key_file))}
stop_grace = "10s"
[engine]
url = {text(engine.url)}
{login if engine.username else ""}\
poll_timeout = "1s"          # a retry that falls due wakes no long poll
[broker]
url = {text(amqp_url)}
prefix = "demo"
[status]
listen = {text(listen)}
[topic_defaults]
retries = {ATTEMPTS}
retry_pauses = ["1s"]
[topics.demo-worker]
[topics.payment-processing]
variables = ["amount", "currency"]
allowed_variables = ["paymentStatus"]
[topics.creditScoreChecker]
variables = ["customer"]
[topics.transcodeVideo]
variables = ["video"]
max_in_flight = 50
"""


def write_settings(
    folder: Path, key_file: Path, engine: Address, amqp_url: str, listen: str
) -> Path:
    """Write bridge.toml into the folder, readable by this user alone, and the key if there is none.

    The key outlives the run: a given broker may still hold answers to the tasks of an earlier one.
    """
    settings = folder / "bridge.toml"
    if not key_file.exists():
        _write_private(key_file, secrets.token_hex(32))
    _write_private(settings, bridge_toml(engine, amqp_url, key_file, listen))
    return settings


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(text)


def start_bridge(settings: Path, log: Path) -> Program:
    """Start the bridge with these settings and no others."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("BRIDGE_")}
    command = [sys.executable, "-m", "bridge", "run", "--config", str(settings)]
    return Program("bridge", command, log=log, environment=ours)


def start_worker(topic: str, amqp_url: str, log: Path) -> Program:
    """Start the worker of a topic."""
    told = {**os.environ, "AMQP_URL": amqp_url, "STEP_SECONDS": STEP_SECONDS}
    command = [sys.executable, str(ROOT / "consumers" / "python" / WORKERS[topic])]
    return Program(topic, command, log=log, environment=told)


def result_queues() -> list[str]:
    """The queues that the bridge consumes once it is ready."""
    return [f"{topic}.results" for topic in TOPICS.values()]
