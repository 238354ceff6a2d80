"""What the moves of a replica have in common: whose turn it is, and how a state is changed."""

from __future__ import annotations

from tests.model.decisions import Decisions
from tests.model.properties import LAST_ADOPTION
from tests.model.variants import Rules
from tests.model.world import (
    HALF_WINDOW,
    HALVES,
    LEASE,
    RENEW_AT,
    Engine,
    Entry,
    Fault,
    Move,
    Phase,
    Replica,
    State,
    Status,
    World,
)


class Actor:
    """One world, the rules that are on, and when replicas must act."""

    def __init__(self, world: World, rules: Rules) -> None:
        self.world = world
        self.on = rules
        self.decisions = Decisions(world, rules)

    def alone(
        self, label: str, state: State, index: int, replica: Replica, *, fault: bool = False
    ) -> Move:
        """A move that changes nothing but this replica."""
        return Move(label, with_replica(state, index, replica), index, fault)

    def is_due(self, entry: Entry) -> bool:
        """Whether a healthy replica must do something about its entry before time goes on."""
        if not entry.phase:
            return False
        if entry.phase is Phase.FETCHED:
            return entry.since >= HALF_WINDOW
        if len(entry.expiries) > 1 or self.is_late(entry):
            return True
        if entry.phase is Phase.CONFIRMED:
            return entry.expiries[0] <= HALVES * RENEW_AT
        return self.on.holds_unconfirmed and entry.expiries[0] <= HALVES * HALF_WINDOW

    def is_late(self, entry: Entry) -> bool:
        """Whether nobody has answered by the deadline and a lease."""
        if not (self.world.deadlines and self.on.has_a_deadline):
            return False
        return entry.phase is Phase.CONFIRMED and entry.deadline <= -LEASE

    def must_adopt(self, state: State, replica: Replica) -> bool:
        """Whether the replica's sweep cannot come later: it comes twice while a lock is due."""
        return (
            state.engine.left == LAST_ADOPTION
            and replica.status is Status.UP
            and not replica.entry.phase
            and self.decisions.adoptable(state.engine)
        )


def with_replica(state: State, index: int, replica: Replica, engine: Engine | None = None) -> State:
    """The state with this replica, and this record if one is given."""
    first, second = state.replicas
    pair = (replica, second) if index == 0 else (first, replica)
    return state._replace(replicas=pair, engine=state.engine if engine is None else engine)


def spent(state: State, fault: Fault) -> State:
    """The state in which the fault may happen once less."""
    faults = state.faults
    left = (*faults[:fault], faults[fault] - 1, *faults[fault + 1 :])
    return state._replace(faults=left)
