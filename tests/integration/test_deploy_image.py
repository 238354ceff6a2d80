"""deploy/Dockerfile without Docker: linted, and its instructions carried out by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge import __version__
from deploy.local.programs import PartError, free_port
from tests.conftest import missing
from tests.support import deploy_tools, dockerfile
from tests.support.waiting import eventually

HOME = "/opt/bridge"

pytestmark = pytest.mark.timeout(deploy_tools.BUILD_LIMIT_S)


def test_the_linter_finds_nothing() -> None:
    """hadolint knows what costs others a morning."""
    lint(dockerfile.FILE)


def lint(file: Path) -> None:
    try:
        deploy_tools.lint_dockerfile(file)
    except PartError as error:
        missing(error)
        raise


def test_the_linter_would_notice(tmp_path: Path) -> None:
    """A linter that is content with everything says nothing."""
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM python:latest\nRUN sudo cd /x\nUSER root\n")

    with pytest.raises(deploy_tools.RefusedError, match="DL3007"):
        lint(broken)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `/opt/bridge` of the image is: what the first stage makes of what it can see."""
    root = tmp_path_factory.mktemp("image")
    (root / "opt").mkdir()
    seen, source = root / "context", root / "source"
    dockerfile.context(seen)
    source.mkdir()
    for name, rest in dockerfile.stages()[0]:
        words = [word for word in rest.split() if word not in {"./", "&&"}]
        if name == "COPY":
            copy = ["cp", "-r", *words, str(source)] if rest.endswith("./") else None
            copy = copy or ["cp", "-r", words[0], str(source / words[1])]
            subprocess.run(copy, cwd=seen, check=True)
        elif name == "RUN":
            carry_out(rest.replace(HOME, str(root / HOME[1:])), source)
    return root / HOME[1:]


def carry_out(line: str, source: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", line],
        cwd=source,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def entrypoint(image: Path) -> list[str]:
    words: list[str] = json.loads(dict(dockerfile.stages()[-1])["ENTRYPOINT"])
    return [word.replace(HOME, str(image)) for word in words]


def environment(image: Path, **settings: str) -> dict[str, str]:
    return {"PATH": f"{image}/bin", "PYTHONDONTWRITEBYTECODE": "1", **settings}


def test_it_has_the_command_and_what_is_pinned(image: Path) -> None:
    """What is let in must suffice for the build, and the lock must hold there too."""
    done = subprocess.run(
        [*entrypoint(image), "--version"],
        env=environment(image),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    frozen = subprocess.run(
        [image / "bin" / "pip", "freeze"],
        env=environment(image),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()

    assert done.stdout == f"external-task-bridge {__version__}\n"
    pins = (dockerfile.ROOT / "deploy/requirements.lock").read_text().lower().splitlines()
    ours = [line for line in frozen if not line.startswith("external-task-bridge")]
    assert ours
    assert {line.lower().replace("-", "_") for line in ours} <= {
        pin.replace("-", "_") for pin in pins
    }


@contextmanager
def running(image: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The image's ENTRYPOINT and CMD, without engine and broker."""
    command = [*entrypoint(image), *json.loads(dict(dockerfile.stages()[-1])["CMD"])]
    settings = {
        "BRIDGE_ENGINE__URL": f"http://127.0.0.1:{free_port()}/engine-rest",
        "BRIDGE_BROKER__URL": f"amqp://127.0.0.1:{free_port()}",
        "BRIDGE_STATUS__LISTEN": f"127.0.0.1:{port}",
        "BRIDGE_TOPICS": "payment-processing",
    }
    process = subprocess.Popen(
        command,
        env=environment(image, **settings),
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def test_its_health_check_tells_a_bridge_from_none(image: Path) -> None:
    """A check that cannot fail, or cannot pass, makes an orchestrator do harm; and SIGTERM, the
    signal that Docker sends, reaches the bridge.
    """
    port = free_port()
    check = dict(dockerfile.stages()[-1])["HEALTHCHECK"].split("CMD ", 1)[1]
    assert ":9464/" in check
    words = [
        word.replace(HOME, str(image)).replace(":9464/", f":{port}/") for word in json.loads(check)
    ]

    def healthy() -> bool:
        done = subprocess.run(words, env=environment(image), capture_output=True, check=False)
        return done.returncode == 0

    assert not healthy()
    with running(image, port) as process:
        eventually(healthy, 60, what="the health check passes")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not healthy()
