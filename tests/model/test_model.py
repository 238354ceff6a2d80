"""The recovery protocol, searched exhaustively: every order of every step in a small world."""

from __future__ import annotations

from collections import Counter

import pytest

from bridge.protocol import ADOPT_BELOW_LEASES, PROOF_WINDOWS
from tests.model.__main__ import main
from tests.model.decisions import TIMING
from tests.model.holding import RACE
from tests.model.properties import ALLOWED, Breach, Cause
from tests.model.search import Found, Search
from tests.model.variants import ALL_RULES, VARIANTS, Variant
from tests.model.world import DEADLINE, HALF_WINDOW, LEASE, RENEW_AT, WINDOW, Fault, World
from tests.model.worlds import OLD, WORLDS

# Some seconds of work each, but several of them share a busy machine's cores with other tests.
pytestmark = pytest.mark.timeout(600)

_found: dict[str, Found] = {}


def search(world: World) -> Found:
    """What is to be found in a world; each is searched once."""
    if world.name not in _found:
        _found[world.name] = Search(world).run()
    return _found[world.name]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_nothing_gets_stuck_and_nothing_forbidden_happens(world: World) -> None:
    """Promises 1 and 3 for every interleaving, not only for those that a test hits."""
    found = search(world)

    assert not found.breach, f"\n{found}"


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_no_lock_outlives_a_lease(world: World) -> None:
    """When the last replica is gone the engine offers the task again within one lease."""
    assert search(world).longest_lock == LEASE


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v.without}-{v.breach.name}")
def test_each_rule_switched_off_breaks_a_property(variant: Variant) -> None:
    """The model can fail, and no rule is there for nothing."""
    found = Search(variant.world, variant.rules, beyond=variant.beyond).run()

    assert found.breach == variant.breach, f"\n{found}"
    assert found.trace


@pytest.mark.parametrize(
    "variant",
    list({variant.world.name: variant for variant in VARIANTS}.values()),
    ids=lambda variant: variant.world.name,
)
def test_with_every_rule_the_same_world_is_sound(variant: Variant) -> None:
    """What breaks there is due to the missing rule and to nothing else."""
    found = Search(variant.world).run()

    assert not found.breach, f"\n{found}"


CAUSES = {
    Cause.UNLEASED: World("a crash", {Fault.CRASH: 1}),
    Cause.FAILED_BEFORE: World("a failure and a crash", {Fault.CRASH: 1, Fault.WORKER_FAILS: 1}),
    Cause.OLD: World("an old task", {Fault.CRASH: 1}, deadlines=True, ages=(OLD,)),
    Cause.CONNECTION: World("a lost connection", {Fault.CONNECTION: 1}),
    Cause.NOBODY_ADOPTS: World("two crashes", {Fault.CRASH: 2}),
    Cause.SUSPENDED: World("suspended", {Fault.SUSPEND: 1, Fault.CRASH: 1}),
    Cause.OPERATOR: World("unlocked", {Fault.UNLOCK: 1}),
    Cause.ANSWERED_TWICE: World("two answers", {Fault.ANSWERED_TWICE: 1, Fault.CRASH: 1}),
    Cause.RELEASED_TWICE: World("a release", {Fault.GIVEN_BACK: 1, Fault.LOST_ANSWER: 1}),
    Cause.OVERTAKEN: World("a freeze", {Fault.FREEZE: 1, Fault.WORKER_FAILS: 1}),
}


@pytest.mark.parametrize("cause", Cause, ids=lambda cause: cause.name)
def test_each_allowed_cause_does_cause_a_duplicate(
    cause: Cause, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of what may publish twice has nothing on it that cannot happen."""
    monkeypatch.setitem(ALLOWED, cause, 0)

    assert Search(CAUSES[cause]).run().breach == Breach.DUPLICATE


def test_every_rule_has_a_variant() -> None:
    """A rule that can be switched off and is not, is a rule that nobody has shown to matter."""
    assert {variant.without for variant in VARIANTS} == set(ALL_RULES)


def test_every_property_can_break() -> None:
    """A property that no variant breaks proves nothing."""
    assert {variant.breach for variant in VARIANTS} == set(Breach)


def test_every_fault_happens_in_some_world() -> None:
    """Nothing that the model can do to the protocol is left out of the search."""
    assert {fault for world in WORLDS for fault in world.faults} == set(Fault)


def test_the_only_known_race_is_met() -> None:
    """It is in DESIGN's list of what is accepted; when it is gone it must go from here too."""
    met = sum((search(world).accepted for world in WORLDS), Counter[str]())

    assert set(met) == {RACE}
    assert not search(WORLDS[0]).accepted


def test_the_small_world_keeps_the_proportions_of_the_settings() -> None:
    """Times that the settings refuse would prove something about another protocol."""
    assert LEASE >= 10 * WINDOW
    assert DEADLINE >= 2 * LEASE
    assert 2 * HALF_WINDOW == WINDOW
    assert 2 * TIMING.lease_after < TIMING.publish_window
    assert PROOF_WINDOWS * WINDOW + 1 < ADOPT_BELOW_LEASES * LEASE < RENEW_AT


def test_a_counterexample_is_a_list_of_moves(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever breaks a rule reads on the screen how it goes wrong."""
    assert main(["adopts"]) == 0

    told = capsys.readouterr().out
    assert "1. A fetches\n" in told
    assert "A crashes\n" in told
    assert told.rstrip().endswith(Breach.DUPLICATE.value)


def test_an_unknown_name_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """The names need not be looked up in the source."""
    assert main(["no such rule"]) == 2

    told = capsys.readouterr().out
    assert "adopts_below_renewal" in told
    assert "crash and failures" in told
