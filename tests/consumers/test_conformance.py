"""The samples pass the conformance kit, as a user's own worker has to: no engine, no bridge."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from deploy.local.choice import Broker
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.consumers.samples import SAMPLES, Sample
from tests.consumers.stacks import CONSUMERS, celery_python, spring_jar, vhost
from tests.support.amqp import Amqp

PYTHON = CONSUMERS / "python"
LIMIT_S = 200.0
pytestmark = pytest.mark.timeout(900)  # the first run builds the samples
T = TypeVar("T")
Row = Callable[[str, object], None]

# Existing applications, whose topics and examples are theirs.
CHARGE = """
[topics.charge-card]
queue = "charges"
reply = "celery"
celery_task = "app.charge"
variables = ["amount"]
"""
CHARGE_EXAMPLES = """
success = { variables = { amount = 500 }, expect = { receipt = "r-500" } }
failure = { variables = { amount = 2000 } }
"""
PAY = """
[topics.charge-card]
queue = "payments"
reply = "spring"
body = "variables"
variables = ["order", "amount"]
"""
PAY_EXAMPLES = """
success = { variables = { order = "o-1", amount = 500 }, expect = { receipt = "r-o-1" } }
failure = { variables = { order = "o-1", amount = 2000 } }
"""


@dataclass(frozen=True)
class Kit:
    """One run of the kit: its options beside the command, and the worker's environment."""

    command: tuple[str, ...]
    topic: str
    examples: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, amqp_url: str) -> str:
        """What the kit said.  Fails where it found a fault."""
        words = [
            sys.executable, "-m", "bridge", "conform", "--topic", self.topic,
            "--cmd", shlex.join(self.command), "--examples", str(self.examples),
            "--timeout", "30", *self.options,
        ]  # fmt: skip
        environment = {**os.environ, "AMQP_URL": amqp_url, "NO_COLOR": "1", **self.environment}
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def had(part: Callable[[], T]) -> T:
    try:
        return part()
    except PartError as error:
        missing(error)
        raise


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_conformance_kit(sample: Sample, broker_node: Broker) -> None:
    """What the samples teach and what the kit demands are the same contract."""
    topic = "payment-processing"
    kit = Kit(had(sample.command), topic, PYTHON / "payment_worker.toml")

    with vhost(broker_node) as url:
        said = kit.run(url)

    assert "not tried" not in said


def test_long_work_that_acknowledges_early_passes_as_well(broker_node: Broker) -> None:
    """The kit's kill and its cut come with the first thing that a worker says: here `extendLock`,
    which it says before it acknowledges.  What comes later is the engine's to guard.
    """
    worker = (sys.executable, str(PYTHON / "transcode_worker.py"))
    fast = {"STEP_SECONDS": "0.01"}
    kit = Kit(worker, "transcodeVideo", PYTHON / "transcode_worker.toml", environment=fast)

    with vhost(broker_node) as url:
        said = kit.run(url)

    assert re.findall(r"^  (\S+) +not tried", said, re.MULTILINE) == ["business-error"]


def test_celery(broker_node: Broker, tmp_path: Path, record_property: Row) -> None:
    """With the settings that its page names; the code stays as it is."""
    record_property("matrix", "celery/conformance kit")
    page = (CONSUMERS / "celery" / "README.md").read_text(encoding="utf-8")
    [careful] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "careful.py").write_text(f"from app import app\n{careful}")
    python = str(had(celery_python))
    worker = (
        python, "-m", "celery", "--app", "careful", "worker", "--concurrency", "2",
        "--without-gossip", "--without-mingle",
    )  # fmt: skip
    paths = {"PYTHONPATH": f"{tmp_path}:{CONSUMERS / 'celery'}", "PYTHONDONTWRITEBYTECODE": "1"}
    kit = existing(tmp_path, worker, CHARGE, CHARGE_EXAMPLES, paths)

    with vhost(broker_node) as url:
        said = kit.run(url)

    assert re.search(r"^  kill +passed", said, re.MULTILINE)


def test_spring(broker_node: Broker, tmp_path: Path, record_property: Row) -> None:
    """Its container acknowledges a message after the answer was sent, and rejects what throws."""
    record_property("matrix", "spring/conformance kit")
    worker = ("java", "-XX:TieredStopAtLevel=1", "-Xmx128m", "-jar", str(had(spring_jar)))
    kit = existing(tmp_path, worker, PAY, PAY_EXAMPLES, {})

    with vhost(broker_node) as url:
        with Amqp(url) as amqp:
            amqp.channel.queue_declare("refunds", durable=True)
        said = kit.run(url)

    assert re.search(r"^  kill +passed", said, re.MULTILINE)


def existing(
    directory: Path,
    worker: tuple[str, ...],
    topic: str,
    examples: str,
    environment: Mapping[str, str],
) -> Kit:
    """A run on an application of another stack, with its topic as the settings have it."""
    (directory / "bridge.toml").write_text(topic)
    (directory / "examples.toml").write_text(examples)
    return Kit(
        worker,
        "charge-card",
        directory / "examples.toml",
        ("--config", str(directory / "bridge.toml")),
        environment,
    )
