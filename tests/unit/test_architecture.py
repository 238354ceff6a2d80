"""The judge of the house rules: who may import whom, and how large a module may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "bridge"
MAX_LINES = 400

# From data to the command line: a room imports from its own rank's package or from lower ranks.
RANKS: list[set[str]] = [
    {"errors", "clock", "tls"},
    {
        "callers",
        "messages",
        "circuit",
        "metrics",
        "logs",
        "tokens",
        "patience",
        "variables",
        "settings",
    },
    {"management"},
    {"ledger", "results", "task_message"},
    {"protocol"},
    {"retry_model", "topics"},
    {"dead_letters", "renewal_rate"},
    {"engine", "broker"},
    {"attempts", "circuits", "sidings", "adoption", "gone_notices"},
    {"handover", "outcomes"},
    {"dispatcher", "reporter", "lock_keeper", "unanswered"},
    {"plan"},
    {"reload"},
    {"changeover"},
    {"queue_counts"},
    {"surroundings"},
    {"status"},
    {"desk"},
    {"display"},
    {"service", "check", "schema"},
    {"permissions", "conform"},
    {"definitions"},
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
# The simulated engine judges the bridge: sharing code with it, it would share its mistakes.  The
# helper for workers runs where the service does not.
STAND_ALONE = {"simulated_engine", "worker"}


@dataclass(frozen=True)
class Module:
    """One file of the package and what it imports, at any depth of the file."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[1] if "." in self.name else ""

    def imports(self) -> Iterator[str]:
        """The dotted names: `from a import b` may mean the module `a` or the module `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}: a relative import"
                for alias in node.names:
                    yield f"{node.module}.{alias.name}"

    def internal(self, modules: set[str]) -> set[str]:
        """The modules of this package that it imports."""
        found = set()
        for name in self.imports():
            candidates = (name, name.rpartition(".")[0])
            found |= {next((c for c in candidates if c in modules), "")}
        return found - {"", self.name}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [
    Module(path, name_of(path), ast.parse(path.read_text(encoding="utf-8")))
    for path in sorted(ROOT.rglob("*.py"))
]
NAMES = {module.name for module in MODULES}
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_there_is_something_to_judge() -> None:
    """A judge who finds no files would let everything pass."""
    assert {"bridge.ledger", "bridge.broker.publisher", "bridge.cli"} <= NAMES
    service = next(m for m in MODULES if m.name == "bridge.service")
    assert {"bridge.ledger", "bridge.plan"} <= service.internal(NAMES)


def test_every_room_has_its_rank() -> None:
    """A new room is placed on purpose."""
    assert {m.room for m in MODULES} - {"", *STAND_ALONE} == set(RANK)


@each_module
def test_imports_point_to_data(module: Module) -> None:
    """Whoever reads a room needs only those below it."""
    if module.room in {"", *STAND_ALONE}:
        return
    for name in module.internal(NAMES):
        room = room_of(name)
        if room not in ("", module.room):
            assert RANK.get(room, 99) < RANK.get(module.room, 0), f"{module.name} imports {name}"


def test_no_module_imports_itself_through_others() -> None:
    """Also inside a room: a cycle means that two modules are one."""
    edges = {module.name: module.internal(NAMES) for module in MODULES}

    def lead(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in finished:
            for other in edges[name]:
                lead(other, (*path, name))
            finished.add(name)

    finished: set[str] = set()
    for name, others in edges.items():
        # A package's own file gathers its modules for others; only modules are judged.
        others -= {other for other in others if name.startswith(f"{other}.")}
    for name in edges:
        lead(name, ())


def users_of(library: str) -> set[str]:
    return {
        module.name
        for module in MODULES
        if any(name.split(".")[0] == library for name in module.imports())
    }


def test_only_the_broker_room_imports_pika() -> None:
    """Another client, or another adapter, changes one room."""
    users = users_of("pika")

    assert users
    assert {room_of(name) for name in users} - STAND_ALONE == {"broker"}


def test_only_one_module_imports_requests() -> None:
    """Every call to the engine has the same time-outs, credentials and classifier."""
    assert users_of("requests") == users_of("urllib3") == {"bridge.engine.connection"}


def test_some_rooms_stand_alone() -> None:
    """They import no other room, and no other room imports them."""
    for module in MODULES:
        for room in {room_of(name) for name in module.internal(NAMES)} - {""}:
            if {room, module.room} & STAND_ALONE:
                assert room == module.room, module.name


@pytest.mark.parametrize(
    "room", ["errors", "clock", "callers", "messages", "ledger", "protocol", "patience"]
)
def test_the_inner_rooms_do_no_input_or_output(room: str) -> None:
    """State knows no sockets, files or threads of its own."""
    module = next(m for m in MODULES if m.name == f"bridge.{room}")
    outer = {"socket", "http", "urllib", "subprocess", "pathlib", "os", "sys", "logging"}

    assert not outer & {name.split(".")[0] for name in module.imports()}


def test_the_errors_know_nobody() -> None:
    """Everybody imports them."""
    errors = next(m for m in MODULES if m.name == "bridge.errors")

    assert list(errors.imports()) == []


@each_module
def test_a_module_says_what_it_does(module: Module) -> None:
    """The first line of a room is its sign."""
    assert ast.get_docstring(module.tree)


@each_module
def test_a_module_can_be_read_at_one_sitting(module: Module) -> None:
    """Split by verb before it grows."""
    assert len(module.path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


WALL_CLOCK = {"time.time", "datetime.now", "datetime.utcnow", "datetime.today"}
# A message's timestamp, and a look at how far the engine's clock is off.
MAY_READ_THE_WALL_CLOCK = {
    "bridge.handover",
    "bridge.gone_notices",
    "bridge.check.engine",
    "bridge.conform.tasks",
    "bridge.desk.parked",
    "bridge.sidings",
    "bridge.status.snapshot",
}


def test_the_wall_clock_decides_nothing() -> None:
    """It steps: after a correction by minutes every lease would be judged wrongly."""
    readers = {
        module.name
        for module in MODULES
        if module.room not in STAND_ALONE
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCK
    }

    assert readers == MAY_READ_THE_WALL_CLOCK
