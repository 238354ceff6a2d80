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


HOSTILE = """
import sys, structlog
from bridge import logs
logs.configure("{form}", "info", ["s3cret-word", "s3cret", "tiny"])
log = structlog.get_logger("bridge.test")
log.info("BPMN error", code="a\\nb \x1b[31m \u202e \x85", many=["s3cret-word", 1], tiny="tiny")
log.info("s3cret\\n" + "x" * 50_000)
raise ValueError("lost s3cret-word \x1b[31m")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_text_forges_a_line_and_no_secret_is_written(form: str) -> None:
    """Error codes and the words of an engine come from outside; a traceback quotes what it held."""
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE.format(form=form)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    text = done.stderr
    lines = text.splitlines()
    assert done.returncode == 1
    assert "s3cret" not in text
    assert "-word" not in text
    assert "tiny" in text
    assert len(text) < 30_000
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "bridge died" in text
    assert "lost [hidden]" in text
    if form == "json":
        assert [json.loads(line)["level"] for line in lines] == ["info", "info", "critical"]
        assert json.loads(lines[0])["many"] == "['[hidden]', 1]"
    else:
        assert len([line for line in lines if "[info" in line or "[critical" in line]) == 3
