"""Breadth-first search through every reachable state, then backwards from the good ends.

Good ends: the task is completed, or its retries are used up (an incident shows it).  A state from
which none of them can be reached by the moves of a healthy world is stuck.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import groupby

from tests.model.moves import Moves
from tests.model.properties import Breach
from tests.model.variants import PROTOCOL, Rules
from tests.model.world import Fault, Move, State, World, ordered

NAMES = ("A", "B")
LIMIT = 3_000_000


@dataclass
class Found:
    """What a search came to: `trace` is the shortest way to the breach, `accepted` the known races
    that were met (and not followed any further), `longest_lock` is in ticks.
    """

    states: int
    breach: str = ""
    trace: list[str] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    longest_lock: int = 0

    def __str__(self) -> str:
        """The trace as a numbered list, one move a line, then the verdict."""
        runs = [(line, len(list(same))) for line, same in groupby(self.trace)]
        lines = [line if times == 1 else f"{line}, {times} times" for line, times in runs]
        numbered = [f"{number:4}. {line}" for number, line in enumerate(lines, 1)]
        races = [f"      met {times} times: {race}" for race, times in self.accepted.items()]
        verdict = self.breach or "nothing wrong"
        return "\n".join([*numbered, *races, f"      {self.states:,} states: {verdict}"])


class TooLargeError(Exception):
    """The world has more states than a search may hold in memory."""


class Search:
    """One world with these rules; `beyond`: breaches that do not end the search."""

    def __init__(
        self,
        world: World,
        rules: Rules = PROTOCOL,
        *,
        beyond: frozenset[Breach] = frozenset(),
        limit: int = LIMIT,
    ) -> None:
        self._moves = Moves(world, rules)
        self._world = world
        self._beyond = {breach.value for breach in beyond}
        self._limit = limit
        self._index: dict[State, int] = {}
        self._states: list[State] = []
        self._parents: list[tuple[int, int]] = []
        self._fair: list[list[int]] = []  # state -> the states from which a fair move leads here
        self._good: list[int] = []
        self._accepted: Counter[str] = Counter()

    def run(self) -> Found:
        """Search until something breaks or every state is seen.  Raises TooLargeError."""
        for state in self._world.starts():
            self._add(ordered(state), (-1, -1))
        at = 0
        while at < len(self._states):
            broken = self._expand(at)
            if broken is not None:
                number, move = broken
                return self._found(move.breach, self._trace(at, number))
            at += 1
        stuck = self._first_stuck()
        if stuck is not None:
            return self._found(Breach.STUCK.value, self._trace(stuck))
        return self._found("", [])

    def _found(self, breach: str, trace: list[str]) -> Found:
        longest = max(state.engine.left for state in self._states)
        return Found(len(self._states), breach, trace, self._accepted, longest)

    def _add(self, state: State, parent: tuple[int, int]) -> int:
        index = self._index.get(state)
        if index is None:
            index = self._index[state] = len(self._states)
            if index == self._limit:
                raise TooLargeError(f"world {self._world.name!r} has over {self._limit:,} states")
            self._states.append(state)
            self._parents.append(parent)
            self._fair.append([])
            if state.engine.retries == 0:
                self._good.append(index)
        return index

    def _expand(self, at: int) -> tuple[int, Move] | None:
        """Add what follows from a state; the move that breaks a property, if one does."""
        state, ends = self._states[at], False
        if state.engine.retries == 0 and not state.faults[Fault.SET_RETRIES]:
            return None  # an incident, and no operator who would mend it
        for number, move in enumerate(self._moves.successors(state)):
            if move.breach and move.breach not in self._beyond:
                return number, move
            if move.accepted:
                self._accepted[move.accepted] += 1
            if move.accepted or move.state is None:
                ends = True
                continue
            to = self._add(ordered(move.state), (at, number))
            if not move.fault and to != at:
                self._fair[to].append(at)
        if ends:
            self._good.append(at)
        return None

    def _first_stuck(self) -> int | None:
        healthy = bytearray(len(self._states))
        todo = deque(self._good)
        while todo:
            index = todo.popleft()
            if not healthy[index]:
                healthy[index] = 1
                todo.extend(self._fair[index])
        stuck = healthy.find(0)
        return None if stuck < 0 else stuck

    def _trace(self, index: int, last: int | None = None) -> list[str]:
        """The moves to a state, the replicas named alike from the first to the last."""
        numbers = [] if last is None else [last]
        while self._parents[index][0] >= 0:
            index, number = self._parents[index]
            numbers.append(number)
        state, names, lines = self._states[index], NAMES, []
        for number in reversed(numbers):
            move = list(self._moves.successors(state))[number]
            who = f"{names[move.replica]} " if move.replica >= 0 else ""
            lines.append(who + move.label)
            if move.state is not None:
                state = ordered(move.state)
                if state.replicas != move.state.replicas:
                    names = (names[1], names[0])
        return lines
