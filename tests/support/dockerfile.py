"""deploy/Dockerfile and what it is given, read without Docker."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "Dockerfile"
IGNORED = ROOT / "deploy" / "Dockerfile.dockerignore"

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """The instructions as (name, arguments), continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for line in lines if line for name, _, rest in [line.partition(" ")]]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, each beginning with its FROM."""
    found: list[list[Instruction]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def copied() -> Iterator[str]:
    """The paths that it copies out of the checkout."""
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            yield from rest.split()[:-1]


def let_in() -> list[str]:
    """The paths of the checkout that the ignore file lets in: nothing but these."""
    rules = IGNORED.read_text().split()
    assert rules[0] == "*"
    return [rule.removeprefix("!") for rule in rules if rule.startswith("!")]


def context(folder: Path) -> None:
    """Make of `folder` what a build sees of the checkout."""
    for path in let_in():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, target)


def is_let_in(path: str) -> bool:
    """Whether a build can see this path."""
    return any(fnmatch(path, rule) for rule in let_in())
