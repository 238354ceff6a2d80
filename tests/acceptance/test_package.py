"""The package as a user gets it: built as anybody builds it, installed where nothing else is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
LIMIT = 110

pytestmark = pytest.mark.timeout(400)  # many commands, one after the other


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """What the command prints; where it fails, what it complained of is the test's answer."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "COLUMNS": "80", **environ},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


class Built(NamedTuple):
    """The two files that are published."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """`python -m build`, with the tools that are here instead of new ones from an index."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Built(sdist, wheel)


class Place:
    """A virtual environment that has the libraries, but neither the project nor its folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        run(sys.executable, "-m", "venv", "--without-pip", directory, cwd=directory.parent)
        self.python = directory / "bin" / "python"
        site = run(
            self.python, "-c", "import site; print(site.getsitepackages()[0])", cwd=directory
        )
        libraries = Path(site.strip()) / "libraries.pth"
        libraries.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    def install(self, file: Path) -> None:
        """As pip does it, but for the libraries, which are there."""
        offline = ("--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed")
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet")
        run(*pip, *offline, file, cwd=self.directory)

    def command(self, *arguments: str, **environ: str) -> str:
        program = self.directory / "bin" / "external-task-bridge"
        return run(program, *arguments, cwd=self.directory, **environ)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("wheel"))
    place.install(built.wheel)
    return place


@pytest.fixture(scope="module")
def metadata(built: Built) -> Message:
    with zipfile.ZipFile(built.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(wheel.read(name).decode())


def files_of_the_package() -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "bridge").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_and_sdist_have_every_file_of_the_package(built: Built) -> None:
    """The page of the status server is no Python, and would be missed only in production."""
    wanted = files_of_the_package()
    with zipfile.ZipFile(built.wheel) as wheel:
        in_wheel = set(wheel.namelist())
    with tarfile.open(built.sdist) as sdist:
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"bridge/py.typed", "bridge/__main__.py"} <= wanted
    assert wanted <= in_wheel
    assert {name for name in in_wheel if ".dist-info/" not in name} == wanted
    assert wanted | {"LICENSE", "README.md", "CHANGELOG.md", "deploy/bridge.toml"} <= in_sdist
    assert not {name for name in in_sdist if name.endswith(".md")} - {
        *("README.md", "CHANGELOG.md"),
        *wanted,
    }


def test_the_metadata_say_what_it_is(metadata: Message) -> None:
    """What an index shows, and what an installer goes by."""
    assert metadata["Name"] == "external-task-bridge"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "# External Task Bridge" in str(metadata.get_payload())
    assert {"worker", "dev"} <= set(metadata.get_all("Provides-Extra", []))
    classifiers = metadata.get_all("Classifier", [])
    supported = SpecifierSet(metadata["Requires-Python"])
    named = [c.rpartition(" ")[2] for c in classifiers if re.search(r":: 3\.\d+$", c)]
    assert named
    assert all(version in supported for version in named)
    assert "3.10" not in supported


def imported() -> set[str]:
    """The distributions that the package imports from."""
    names: set[str] = set()
    for path in (ROOT / "bridge").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    distributions = packages_distributions()
    foreign = names - sys.stdlib_module_names - {"bridge", "__future__"}
    return {distributions[name][0].lower().replace("_", "-") for name in foreign}


def test_every_library_that_is_imported_is_named_or_comes_with_one_that_is(
    metadata: Message,
) -> None:
    """In this environment everything is there; in a user's only what is named."""
    own = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    named = {one.name.lower() for one in own if one.marker is None}
    brought = {
        Requirement(text).name.lower().replace("_", "-")
        for name in named
        for text in requires(name) or []
    }

    assert {"pika", "oauthlib", "typer"} <= named & imported()
    assert imported() <= named | brought


def test_the_help_reads_well(installed: Place) -> None:
    """The first thing that anyone sees: one whole line for each command, in the order of use."""
    text = installed.command("--help")

    listed = text.partition("Commands:\n")[2].splitlines()
    names = [line.split()[0] for line in listed]
    assert names[:3] == ["init", "check", "run"]
    assert {"config", "top", "tasks", "why", "parked"} <= set(names)
    assert all(re.fullmatch(r"  [a-z]+ +[A-Z].*\.", line) for line in listed), text
    assert not [line for line in listed if "..." in line]


def test_every_command_has_a_help(installed: Place) -> None:
    """Also those below another; each names its exit codes."""
    listed = installed.command("--help").partition("Commands:\n")[2].splitlines()
    below = {"config": ["show"], "parked": ["list", "show", "replay", "drop"]}
    names = [line.split()[0] for line in listed]
    commands: list[tuple[str, ...]] = [(name,) for name in names if name not in below]
    commands += [(name, one) for name in names for one in below.get(name, [])]

    assert len(commands) >= 18
    for command in commands:
        assert "Exit code" in installed.command(*command, "--help"), command


def test_bash_completes_commands_and_options(installed: Place) -> None:
    """As `--install-completion` sets it up."""
    program = """
        PATH="$HERE:$PATH"
        eval "$(external-task-bridge --show-completion)"
        complete -p external-task-bridge
        try() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _external_task_bridge_completion external-task-bridge
            echo "${COMPREPLY[*]}"
        }
        try external-task-bridge ch
        try external-task-bridge config sh
        try external-task-bridge run --log-f
    """
    bin_folder = str(installed.directory / "bin")

    lines = run("bash", "-c", program, cwd=installed.directory, HERE=bin_folder).split("\n")

    assert "_external_task_bridge_completion" in lines[0]
    assert [line.split() for line in lines[1:4]] == [["check"], ["show"], ["--log-format"]]


def test_the_sdist_can_be_installed(built: Built, tmp_path: Path) -> None:
    """For whoever builds from source, as distributions do."""
    place = Place(tmp_path / "sdist")
    place.install(built.sdist)

    version = place.command("--version")
    where = run(place.python, "-c", "import bridge; print(bridge.__file__)", cwd=tmp_path)

    assert version.startswith("external-task-bridge ")
    assert where.startswith(str(tmp_path))
