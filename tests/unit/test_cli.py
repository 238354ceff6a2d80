"""The command line, as a process: exit codes, texts, and a --help that starts nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bridge import __version__


def bridge(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=cwd,
        env={"PYTHONPATH": str(root), "PATH": "", "COLUMNS": "100", **environ},
    )


def test_the_version(tmp_path: Path) -> None:
    """Whoever reports a fault is asked for it first."""
    done = bridge("--version", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, f"external-task-bridge {__version__}\n")


def test_help_names_the_commands(tmp_path: Path) -> None:
    """The first thing that anyone types."""
    done = bridge("--help", cwd=tmp_path)

    assert done.returncode == 0
    assert "run" in done.stdout
    assert bridge("run", "--help", cwd=tmp_path).stdout.count("--config") == 1


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    """It never starts by accident."""
    done = bridge(cwd=tmp_path)

    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_imports_none_of_the_heavy_libraries(arguments: list[str], tmp_path: Path) -> None:
    """Help must come at once; typer itself may load pydantic, our own rooms must not."""
    program = (
        "import sys\n"
        "from bridge.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "heavy = {'pika', 'requests', 'structlog', 'tenacity'} & set(sys.modules)\n"
        "rooms = {m for m in sys.modules if m.startswith('bridge.')}\n"
        "assert not heavy, heavy\n"
        "assert all(m.startswith('bridge.cli') or m == 'bridge.errors' for m in rooms), rooms\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr


def test_no_topic_is_exit_code_2_and_one_clear_text(tmp_path: Path) -> None:
    """Nothing was started, and a supervisor should not try again."""
    done = bridge("run", cwd=tmp_path)

    assert done.returncode == 2
    assert "topic" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_document_of_init_does_not_replace_its_file(tmp_path: Path) -> None:
    """Everywhere else --json only prints."""
    assert "Also print" in bridge("init", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("command", ["run", "check", "topics", "top"])
def test_a_wrong_directory_is_said(command: str, tmp_path: Path) -> None:
    """Its user has a settings file, elsewhere; where one was read, it is not said."""
    elsewhere = bridge(command, cwd=tmp_path)
    (tmp_path / "bridge.toml").write_text("[engine]\n", encoding="utf-8")
    there = bridge(command, cwd=tmp_path)

    assert (elsewhere.returncode, there.returncode) == (2, 2)
    said, told = elsewhere.stdout + elsewhere.stderr, there.stdout + there.stderr
    for words in ("no bridge.toml here", "--config", "external-task-bridge init"):
        assert words in said
        assert words not in told
    assert "[topics.<name>]" in told


def test_every_mistake_of_the_file_is_told_at_once(tmp_path: Path) -> None:
    """With the key's path and the nearest right name."""
    (tmp_path / "bridge.toml").write_text(
        "[topics.pay]\nretrys = 3\nlease = 5\n[engin]\nurl = 1\n", encoding="utf-8"
    )

    done = bridge("run", cwd=tmp_path)

    assert done.returncode == 2
    for key in ("topics.pay.retrys", "topics.pay.lease", "engin"):
        assert key in done.stderr
    assert "retries" in done.stderr


def test_a_file_that_is_not_there_is_exit_code_2(tmp_path: Path) -> None:
    """Running on with defaults would serve other topics than the operator meant."""
    done = bridge("run", "--config", "missing.toml", cwd=tmp_path)

    assert done.returncode == 2
    assert "missing.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_status_port_is_exit_code_2(tmp_path: Path) -> None:
    """Two replicas on one host with the same address: the second says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = bridge(
            "run", cwd=tmp_path, BRIDGE_TOPICS="a", BRIDGE_STATUS__LISTEN=f"127.0.0.1:{port}"
        )

    assert done.returncode == 2
    assert "status.listen" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", [["run"], ["check"], ["permissions"], ["schema"], ["conform", "--topic", "pay"]]
)
def test_every_command_reads_the_bridge_toml_that_is_there(
    command: list[str], tmp_path: Path
) -> None:
    """And where a file is named, that one only."""
    (tmp_path / "bridge.toml").write_text("[topics.pay]\nretrys = 3\n", encoding="utf-8")
    (tmp_path / "other.toml").write_text("[topics.pay]\nbodi = 3\n", encoding="utf-8")

    there = bridge(*command, cwd=tmp_path)
    named = bridge(*command, "--config", "other.toml", cwd=tmp_path)

    assert (there.returncode, named.returncode) == (2, 2)
    assert "topics.pay.retrys" in there.stdout + there.stderr
    assert "topics.pay.bodi" in named.stdout + named.stderr
    assert "retrys" not in named.stdout + named.stderr
