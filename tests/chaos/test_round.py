"""A short round of chaos on every run of the tests; `make chaos` plays long ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from deploy.local.programs import PartError
from tests.chaos.plan import WITHOUT_PURGE, Options
from tests.chaos.report import table
from tests.chaos.round import play
from tests.conftest import missing

# A purged message is missed after a deadline and a lease: tests/acceptance/test_recovery.py waits.
ROUND = Options(tasks=200, seconds=40.0, seed=20, replicas=2, kinds=WITHOUT_PURGE)


@pytest.mark.timeout(480)
def test_nothing_is_lost_whatever_dies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Replicas, broker and engine are killed, frozen and cut off under load, workers misbehave;
    all invariants hold when it is over.
    """
    caplog.set_level(logging.CRITICAL, "pika")  # it tells at length of a broker that is killed
    try:
        result = play(ROUND, tmp_path)
    except PartError as error:
        missing(error)
        raise

    assert result.good, table(result)
    assert len(result.evidence.instances) == ROUND.tasks
    assert result.evidence.parked, "no worker sent garbage: the round proves less than it should"
