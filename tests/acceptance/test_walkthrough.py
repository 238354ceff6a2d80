"""The walk-through of deploy/README.md, performed word for word on the real parts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.programs import free_port
from tests.support.engine import EngineRest
from tests.support.monitoring import DEPLOY, section
from tests.support.prometheus import Prometheus

LIMIT_SECONDS = 240
END = "----- end of a block"
# Nothing that it starts outlives it.
BEFORE = "trap 'kill $(jobs -p) 2> /dev/null' EXIT\n"


def blocks() -> list[tuple[str, str]]:
    """Each block of commands with what is seen then, "" where nothing is shown."""
    pattern = r"^```sh\n(.*?)^```(?:\n\n```text\n(.*?)^```)?"
    return re.findall(pattern, section("Walk-through"), re.MULTILINE | re.DOTALL)


def as_seen(line: str) -> re.Pattern[str]:
    """A shown line: `…` stands for anything, and columns may be as wide as they like."""
    parts = re.split(r"(…|\s+)", line.strip())
    words = (r"\s+" if part.isspace() else re.escape(part) for part in parts)
    return re.compile("".join(words).replace("…", ".*"))


@pytest.fixture
def place(engine: EngineRest, tmp_path: Path) -> Iterator[Path]:
    """A folder that looks like the checkout; the deployment goes with its instances."""
    for name in ("deploy", "consumers"):
        (tmp_path / name).symlink_to(DEPLOY.parent / name)
    yield tmp_path
    for one in engine.call("GET", "/deployment", name="walk-through"):
        engine.call("DELETE", f"/deployment/{one['id']}", cascade="true")


def perform(script: str, folder: Path, environment: dict[str, str]) -> str:
    """What a shell prints that does it; whatever it started has ended then."""
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            return shell.communicate(timeout=LIMIT_SECONDS)[0]
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            log = (folder / "bridge.log").read_text() if (folder / "bridge.log").exists() else ""
            pytest.fail(f"not done in time:\n{shell.communicate()[0]}\n{log[-2000:]}")


@pytest.mark.timeout(LIMIT_SECONDS + 120)  # with the start of every part
def test_the_walk_through_happens_as_it_is_written(
    engine: EngineRest, amqp_url: str, prometheus_program: str, place: Path
) -> None:
    """It is what an operator learns from; each word that is wrong costs one of them an hour."""
    listen = f"127.0.0.1:{free_port()}"
    ours = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    programs = str(Path(sys.executable).parent)
    watch = Prometheus(prometheus_program, f"http://{listen}", place / "prometheus", ["NoConsumer"])

    with watch as prometheus:
        environment = {
            **ours,
            "PATH": f"{programs}:{ours['PATH']}",
            "ENGINE_URL": engine.url,
            "AMQP_URL": amqp_url,
            "PROMETHEUS_URL": prometheus.url,
            "BRIDGE_STATUS__LISTEN": listen,
            "BRIDGE_ENGINE__POLL_TIMEOUT": "1s",  # a retry and a stop wait for it
        }
        script = BEFORE + "".join(f"{commands}echo '{END}'\n" for commands, _ in blocks())
        printed = perform(script, place, environment)

    parts = printed.split(f"{END}\n")
    assert len(parts) == len(blocks()) + 1, printed
    for part, (commands, shown) in zip(parts, blocks(), strict=False):
        lines = [line.strip() for line in part.splitlines()]
        for wanted in shown.splitlines():
            assert any(map(as_seen(wanted).fullmatch, lines)), (
                f"after\n{commands}\nthere is no {wanted!r} in\n{part}"
            )


def test_every_block_that_waits_shows_what_for() -> None:
    """A block without its output teaches nothing, and nothing of it would be checked."""
    waiting = [shown for commands, shown in blocks() if "await '" in commands]

    assert len(waiting) > 5
    assert all(waiting)
