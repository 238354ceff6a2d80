"""The bridge as deploy/systemd lets it run: with the unit's settings, under its confinement.

Without a running systemd: the directives are read from the unit, and the kernel does the rest.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.cli.options import EXIT_SETTINGS
from bridge.settings import load
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.support import deploy_readme, systemd
from tests.support.engine import EngineRest
from tests.support.stage import Stage

PROGRAM = "/opt/external-task-bridge/bin/external-task-bridge"
CREDENTIALS = {"token-key", "broker-password"}
# From 0 to 10; with sockets of its own a service can hardly be below 1.
MOST_EXPOSED = 1.5


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    try:
        systemd.analyze("--version")
    except PartError as error:
        missing(error)


def unit(folder: Path, old: str = "", new: str = "") -> Path:
    """The unit, with a program that exists on this machine."""
    program = folder / "external-task-bridge"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = systemd.UNIT.read_text().replace(PROGRAM, str(program))
    assert old in text
    copy = folder / systemd.UNIT.name
    copy.write_text(text.replace(old, new) if old else text)
    return copy


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    """A directive that systemd does not know is skipped at run time, with its protection."""
    done = systemd.analyze("verify", "--man=no", unit(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_notice(tmp_path: Path) -> None:
    """Its exit code says nothing of a misspelt directive in every version; its words do."""
    done = systemd.analyze("verify", "--man=no", unit(tmp_path, "ProtectSystem", "ProtectSystme"))

    assert "ProtectSystme" in done.stderr


def test_it_is_little_exposed(tmp_path: Path) -> None:
    """As `systemd-analyze security` counts, from 0 (nothing) to 10 (everything)."""
    arguments = ["security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}"]

    assert systemd.analyze(*arguments, unit(tmp_path)).returncode == 0
    lax = unit(tmp_path, "SystemCallFilter=@system-service", "")
    assert systemd.analyze(*arguments, lax).returncode != 0


def test_its_settings_are_where_its_credentials_are(tmp_path: Path) -> None:
    """A credential that nobody reads, or a file that nobody makes, is found at the first start."""
    credentials = [value.partition(":") for value in systemd.directives()["LoadCredential"]]
    assert {name for name, _, _ in credentials} == CREDENTIALS
    for name in CREDENTIALS:
        (tmp_path / name).write_text("as long as a key has to be, and longer")
    config = tmp_path / "bridge.toml"
    config.write_text("[topics.a]\n")
    environment = dict(
        value.replace("%d", str(tmp_path)).split("=", 1)
        for value in systemd.directives()["Environment"]
    )

    settings = load(config, environment)

    assert settings.token_key_file == tmp_path / "token-key"
    assert settings.broker.password_file == tmp_path / "broker-password"
    config_there = "/etc/external-task-bridge/bridge.toml"
    assert systemd.only("ExecStart") == f"{PROGRAM} run --config {config_there}"
    timeout = int(systemd.only("TimeoutStopSec").removesuffix("s"))
    assert timeout > settings.stop_grace.total_seconds()


def test_the_readme_s_commands_put_everything_in_its_place(tmp_path: Path) -> None:
    """Secrets that only root reads, settings that everybody may, and the unit where it belongs."""
    lines = deploy_readme.commands("systemd")
    files = [line for line in lines if not line.startswith(("python3 -m venv", "systemctl"))]
    script = "\n".join(line for line in files if "/bin/pip " not in line)
    for folder in ("/etc/", "/opt/"):
        script = script.replace(folder, f"{tmp_path}{folder}")
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "deploy").symlink_to(systemd.UNIT.parents[1])
    (tmp_path / "bridge.toml").write_text('[broker]\nusername = "bridge"\n[topics.a]\n')
    (tmp_path / "bridge.password").write_text("made by permissions")

    subprocess.run(["sh", "-eu"], input=script.encode(), cwd=tmp_path, check=True, timeout=60)

    assert len(files) == len(lines) - 3
    assert (tmp_path / "etc/systemd/system" / systemd.UNIT.name).exists()
    own = tmp_path / "etc/external-task-bridge"
    environment = {"BRIDGE_BROKER__PASSWORD_FILE": str(own / "secrets/broker-password")}
    assert load(own / "bridge.toml", environment).broker.username == "bridge"
    assert (own / "bridge.toml").stat().st_mode & 0o777 == 0o644
    for value in systemd.directives()["LoadCredential"]:
        secret = Path(f"{tmp_path}{value.partition(':')[2]}")
        assert secret.stat().st_mode & 0o777 == 0o600, secret
        assert secret.read_text().strip()


def test_bad_settings_are_not_tried_again_and_again() -> None:
    """They do not mend by themselves; everything else is worth another start."""
    assert systemd.only("Restart") == "on-failure"
    assert systemd.only("RestartPreventExitStatus") == str(EXIT_SETTINGS)


CONFINED = "from tests.support import systemd\nsystemd.confine()\n"


def confined_python(program: str) -> int:
    """The exit code of a program that is confined."""
    return subprocess.run(
        [sys.executable, "-c", CONFINED + program], capture_output=True, check=False, timeout=60
    ).returncode


@pytest.fixture(scope="module")
def kernel() -> None:
    """One that can do what the unit asks for; an older one is no fault of ours."""
    if confined_python("") != 0:
        pytest.skip("this kernel cannot confine a process so: Linux 6.3 with seccomp can")


@pytest.fixture(scope="module")
def confined(kernel: None, engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    """The whole service as the unit confines it."""
    module = "tests.support.confined_bridge"
    with Stage(engine, shared_amqp_url, {"pay": {}}, module=module) as stage:
        yield stage


def test_a_confined_bridge_does_its_work(confined: Stage) -> None:
    """A filter that is too narrow shows itself in the first rare call, months later."""
    case = confined.begin("pay")
    confined.answer(case.message(), {"paid": True})
    failed = confined.begin("pay")
    confined.answer(failed.message(), {"errorMessage": "no", "retries": 0}, "failure")

    assert case.end() == "end"
    assert failed.incident() == "no"
    assert confined.bridge.stop() == 0


@pytest.mark.parametrize(
    "act",
    [
        "os.sched_setaffinity(0, {0})",  # ~@resources
        "os.setgroups([])",  # ~@privileged
        "os.chroot('/')",
        "__import__('mmap').mmap(-1, 4096, prot=7)",  # MemoryDenyWriteExecute=
    ],
)
def test_the_confinement_confines(kernel: None, act: str) -> None:
    """Otherwise the test above would show only that the bridge works."""
    refused = f"import os\ntry:\n    {act}\nexcept PermissionError:\n    os._exit(7)\n"

    assert confined_python(refused) == 7
