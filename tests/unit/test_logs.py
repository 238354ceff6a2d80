"""The log, in a process of its own: one line per event, machine-readable, without colours."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from bridge import logs
logs.configure("{form}", "{level}")
log = structlog.get_logger("bridge.test")
log.debug("too small")
log.info("task failed", task_id="t1", topic="pay", retries=2)
try:
    raise ValueError("because")
except ValueError:
    log.exception("loop died", part="keeper")
logging.getLogger("library").warning("from a library")
logging.getLogger("pika.connection").error("told by pika")
logging.getLogger("urllib3.connectionpool").warning("told by urllib3")
"""


def written(form: str, level: str = "info") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form, level=level)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "", "standard output belongs to the commands"
    return done.stderr.splitlines()


def test_json_is_one_object_a_line() -> None:
    """A collector splits at line ends: an exception must not spread over several."""
    first, died, library = (json.loads(line) for line in written("json"))

    assert first["event"] == "task failed"
    assert (first["task_id"], first["topic"], first["retries"]) == ("t1", "pay", 2)
    assert (first["level"], first["logger"]) == ("info", "bridge.test")
    assert first["timestamp"].endswith("Z")
    assert died["event"] == "loop died"
    assert "ValueError: because" in died["exception"]
    assert (library["event"], library["level"]) == ("from a library", "warning")


def test_the_console_has_no_colours_where_no_terminal_is() -> None:
    """Escape sequences in a file are unreadable."""
    text = "\n".join(written("console"))

    assert "\x1b" not in text
    assert "task failed" in text
    assert "topic=pay" in text
    assert "ValueError: because" in text


@pytest.mark.parametrize(
    ("level", "events"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)],
)
def test_the_level_is_the_least_that_is_written(level: str, events: int) -> None:
    """And the chatter of pika and urllib3 is left out at every level."""
    lines = written("json", level)

    assert len(lines) == events
    assert not any("told by" in line for line in lines)
