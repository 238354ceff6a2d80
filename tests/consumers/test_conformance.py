"""The samples pass the conformance kit, as a user's own worker has to: no engine, no bridge."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from deploy.local.choice import Broker
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.consumers.samples import SAMPLES, Sample
from tests.consumers.stacks import CONSUMERS, vhost

EXAMPLES = CONSUMERS / "python" / "payment_worker.toml"
LIMIT_S = 200.0


@pytest.mark.timeout(900)  # the first run builds the samples
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.language)
def test_conformance_kit(sample: Sample, broker_node: Broker) -> None:
    """What the samples teach and what the kit demands are the same contract."""
    try:
        command = sample.command()
    except PartError as error:
        missing(error)
        raise
    kit = [
        sys.executable, "-m", "bridge", "conform", "--topic", "payment-processing",
        "--cmd", shlex.join(command), "--examples", str(EXAMPLES), "--timeout", "30",
    ]  # fmt: skip

    with vhost(broker_node) as url:
        environment = {**os.environ, "AMQP_URL": url, "NO_COLOR": "1"}
        done = subprocess.run(
            kit, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )

    assert done.returncode == 0, done.stdout + done.stderr
