"""The ledger: room, one hand per entry, nothing forgotten, nothing changed by what comes late."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.ledger import BUSY, Entry, Ledger, Timing
from bridge.messages import LockWindow

WINDOW, LEASE_AFTER, LEASE, DEADLINE = 60.0, 5.0, 600.0, 86_400.0
TIMING = Timing(
    capacity=3, publish_window=WINDOW, lease_after=LEASE_AFTER, lease=LEASE, deadline=DEADLINE
)
EXPIRES = 1_800_000_000.0
RENEWED = (LockWindow.exactly(EXPIRES + LEASE),)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger({"a": TIMING, "b": replace(TIMING, capacity=1)})


def admit(ledger: Ledger, task_id: str = "t1", at: float = 1000.0, topic: str = "a") -> Entry:
    return ledger.admit(task_id, topic, None, EXPIRES, at)


def renew(ledger: Ledger, entry: Entry, *, due: float, leased: bool = True) -> None:
    ledger.renewed(entry, expiries=RENEWED, lock_ends=due + 300, due=due, leased=leased)


def take_over(
    ledger: Ledger, task_id: str = "t1", *, now: float = 1000.0, due: float = 1300.0
) -> Entry:
    return ledger.take_over(
        task_id,
        "a",
        None,
        expiry=RENEWED[0],
        lock_ends=now + LEASE,
        due=due,
        deadline=now + DEADLINE,
        now=now,
    )


# Room


def test_room_is_the_capacity_less_what_is_held(ledger: Ledger) -> None:
    """Back-pressure is this number: no room, no fetch."""
    admit(ledger, "t1")
    admit(ledger, "t2")

    assert (ledger.room("a"), ledger.held("a")) == (1, 2)
    assert (ledger.room("b"), ledger.held("b")) == (1, 0)


def test_room_is_never_negative(ledger: Ledger) -> None:
    """Adoption ignores the room, and maxTasks must not be negative."""
    for number in range(5):
        take_over(ledger, f"t{number}")

    assert (ledger.room("a"), ledger.held("a")) == (0, 5)


def test_a_task_admitted_again_is_held_once(ledger: Ledger) -> None:
    """A lapsed lock is fetched again while the old entry is still here."""
    admit(ledger, "t1", at=1000)
    again = admit(ledger, "t1", at=1100)

    assert ledger.held("a") == 1
    assert ledger.current(again) == again


def test_a_task_that_changes_its_topic_frees_the_room_of_the_old_one(ledger: Ledger) -> None:
    """The counts must follow the entry, or room is lost for good."""
    admit(ledger, "t1", topic="b")
    admit(ledger, "t1", topic="a")

    assert (ledger.held("a"), ledger.held("b")) == (1, 0)


def test_settling_frees_the_room_and_tells_what_was_held(ledger: Ledger) -> None:
    """Whoever finished the task: the next one may come."""
    entry = admit(ledger)

    assert ledger.settle("t1") == entry
    assert ledger.settle("t1") is None
    assert (len(ledger), "t1" in ledger, ledger.held("a")) == (0, False, 0)


def test_the_ledger_shows_its_counts_and_no_task(ledger: Ledger) -> None:
    """What stands in a log line must be short."""
    admit(ledger)

    assert repr(ledger) == "<Ledger a 1/3, b 0/1>"


def test_a_long_poll_does_not_age_its_tasks(ledger: Ledger) -> None:
    """Its lock may have begun with it, the task's time in flight did not."""
    entry = ledger.admit("t1", "a", None, EXPIRES, 1000.0, now=1009.0)

    assert (ledger.oldest("a"), entry.lock_ends) == (1009.0, 1000.0 + TIMING.publish_window)
    assert entry.due == 1000.0 + TIMING.publish_window / 2


def test_the_oldest_entry_tells_since_when(ledger: Ledger) -> None:
    """An operator asks how long the oldest task has been in flight."""
    admit(ledger, "t1", at=1010)
    admit(ledger, "t2", at=1005)

    assert (ledger.oldest("a"), ledger.oldest("b")) == (1005, None)


# Admit, confirm


def test_an_unconfirmed_entry_is_due_at_half_the_publish_window(ledger: Ledger) -> None:
    """There it is held: a renewal by P before the lock of the fetch runs out."""
    entry = admit(ledger, at=1000)

    assert entry.due == 1000 + WINDOW / 2
    assert entry.lock_ends == 1000 + WINDOW
    assert ledger.due(1029.9, 10) == []
    assert [e.task_id for e in ledger.due(1030, 10)] == ["t1"]


def test_a_confirmed_entry_is_due_after_lease_after(ledger: Ledger) -> None:
    """Answered sooner it costs no call for the lease."""
    entry = admit(ledger, at=1000)

    assert ledger.confirmed(entry, 1002) is True

    assert ledger.due(1006.9, 10) == []
    [due] = ledger.due(1007, 10)
    assert due.confirmed
    assert not due.leased


def test_the_deadline_counts_from_the_confirm(ledger: Ledger) -> None:
    """`expiration` on the message counts from there too: the two must agree."""
    entry = admit(ledger, at=1000)
    assert entry.deadline == 1000 + DEADLINE

    ledger.confirmed(entry, 1020)

    current = ledger.current(entry)
    assert current is not None
    assert current.deadline == 1020 + DEADLINE


def test_a_second_confirm_changes_nothing(ledger: Ledger) -> None:
    """It must not give the task a fresh deadline."""
    entry = admit(ledger, at=1000)
    ledger.confirmed(entry, 1001)
    before = ledger.current(entry)

    assert ledger.confirmed(entry, 1020) is False
    assert ledger.current(entry) == before


def test_the_confirm_of_a_settled_task_is_no_news(ledger: Ledger) -> None:
    """A result may beat the confirm of its own message."""
    entry = admit(ledger)
    ledger.settle("t1")

    assert ledger.confirmed(entry, 1001) is False
    assert "t1" not in ledger


def test_a_confirm_while_the_hold_is_under_way_leaves_the_entry_in_its_hands(
    ledger: Ledger,
) -> None:
    """Two threads with the same entry would race at the engine."""
    entry = admit(ledger, at=1000)
    [busy] = ledger.due(1030, 10)

    assert ledger.confirmed(entry, 1031) is True

    assert ledger.due(5000, 10) == []
    assert ledger.current(busy) == replace(
        busy, confirmed=True, due=BUSY, deadline=1031 + DEADLINE, confirmed_at=1031
    )


def test_a_confirm_during_the_hold_is_leased_after_lease_after_not_at_half_the_window(
    ledger: Ledger,
) -> None:
    """Otherwise a confirmed message would stay without its proof for half a window."""
    entry = admit(ledger, at=1000)
    [busy] = ledger.due(1030, 10)
    ledger.confirmed(entry, 1031)

    ledger.renewed(busy, expiries=RENEWED, lock_ends=1031 + WINDOW, due=1061, leased=False)

    current = ledger.current(entry)
    assert current is not None
    assert current.due == 1031 + LEASE_AFTER


# Due


def test_entries_are_handed_out_earliest_first_and_up_to_the_limit(ledger: Ledger) -> None:
    """Under load the lock that ends first must be first in the bulk query."""
    for task_id, at in (("late", 1020.0), ("first", 1000.0), ("second", 1010.0)):
        admit(ledger, task_id, at=at)

    assert [e.task_id for e in ledger.due(2000, 2)] == ["first", "second"]
    assert [e.task_id for e in ledger.due(2000, 2)] == ["late"]


def test_an_entry_in_hand_is_not_handed_out_again(ledger: Ledger) -> None:
    """Two checks of one task would overlap."""
    admit(ledger, at=1000)
    [busy] = ledger.due(2000, 10)

    assert busy.due == BUSY
    assert ledger.due(9e9, 10) == []
    assert ledger.idle("a") == []


def test_an_entry_put_off_comes_again_at_that_time(ledger: Ledger) -> None:
    """The engine was away: it is asked again, not forgotten."""
    admit(ledger, at=1000)
    [busy] = ledger.due(2000, 10)

    ledger.put_off(busy, 2001)

    assert ledger.due(2000.9, 10) == []
    assert [e.task_id for e in ledger.due(2001, 10)] == ["t1"]


def test_a_due_time_that_moved_forward_is_not_met_at_the_old_one(ledger: Ledger) -> None:
    """The heap keeps old times; an entry that was confirmed since must not be taken for them."""
    entry = admit(ledger, at=1000)
    ledger.put_off(entry, 1500)

    assert ledger.due(1400, 10) == []
    assert len(ledger.due(1500, 10)) == 1


def test_an_entry_put_off_to_the_same_time_twice_is_handed_out_once(ledger: Ledger) -> None:
    """Its time stands in the heap once or twice; the entry exists once."""
    entry = admit(ledger, at=1000)
    for due in (1500, 1400, 1500):
        ledger.put_off(entry, due)

    assert len(ledger.due(1500, 10)) == 1


def test_the_next_due_time_is_known(ledger: Ledger) -> None:
    """Nobody must look before it."""
    assert ledger.next_due() == math.inf

    admit(ledger, "t1", at=1020)
    admit(ledger, "t2", at=1000)

    assert ledger.next_due() == 1030


# Renew


def test_a_renewal_replaces_the_expiries_and_the_due_time(ledger: Ledger) -> None:
    """The next check compares the engine's record with what was set last."""
    entry = admit(ledger)
    ledger.confirmed(entry, 1001)
    [busy] = ledger.due(1006, 10)

    renew(ledger, busy, due=1300)

    current = ledger.current(entry)
    assert current is not None
    assert (current.expiries, current.lock_ends, current.due) == (RENEWED, 1600, 1300)
    assert current.leased
    assert [e.task_id for e in ledger.due(1300, 10)] == ["t1"]


def test_a_leased_entry_stays_leased_while_an_answer_is_lost(ledger: Ledger) -> None:
    """Its old lease still runs: a stopping bridge need not lease it again."""
    entry = take_over(ledger)

    renew(ledger, entry, due=1001, leased=False)

    assert ledger.unleased() == []


def test_a_renewal_is_due_again_at_the_deadline_plus_one_lease_at_the_latest(
    ledger: Ledger,
) -> None:
    """Then the missed deadline is reported, however long the lease."""
    entry = admit(ledger)
    ledger.confirmed(entry, 1001)

    renew(ledger, entry, due=10 * DEADLINE)

    current = ledger.current(entry)
    assert current is not None
    assert current.due == 1001 + DEADLINE + LEASE


def test_an_adopted_entry_is_due_at_its_deadline_plus_one_lease_at_the_latest(
    ledger: Ledger,
) -> None:
    """A worker that asked for a longer lock than D must not outlive the deadline unseen."""
    entry = take_over(ledger, now=1000, due=9e9)

    assert entry.due == 1000 + DEADLINE + LEASE


def test_what_is_taken_over_counts_as_published_and_leased(ledger: Ledger) -> None:
    """Its lock was the proof: it is neither published nor leased again."""
    entry = take_over(ledger, now=1000, due=1300)

    assert (entry.confirmed, entry.leased, entry.since) == (True, True, 1000)
    assert ledger.unleased() == []
    assert ledger.due(1299, 10) == []
    assert len(ledger.due(1300, 10)) == 1


# A stopping replica


def test_progress_without_end_leaves_nothing_behind(ledger: Ledger) -> None:
    """Each report has a due time of its own, a day ahead; a busy worker reports every second."""
    for second in range(5000):
        take_over(ledger, now=1000.0 + second, due=90_000.0)

    assert len(ledger._due) < 2000
    assert [entry.task_id for entry in ledger.due(math.inf, 10)] == ["t1"]


def test_unleased_entries_are_the_confirmed_ones_without_a_lease(ledger: Ledger) -> None:
    """A stopping bridge leases exactly these, so that peers can adopt them."""
    confirmed = admit(ledger, "confirmed")
    ledger.confirmed(confirmed, 1001)
    admit(ledger, "unconfirmed")
    take_over(ledger, "leased")

    assert [e.task_id for e in ledger.unleased()] == ["confirmed"]
    assert ledger.due(1006, 10) == []
    assert {e.task_id for e in ledger.idle("a")} == {"unconfirmed", "leased"}


def test_idle_entries_are_those_of_the_topic(ledger: Ledger) -> None:
    """A full topic's check must not touch another topic."""
    admit(ledger, "t1", topic="a")
    admit(ledger, "t2", topic="b")

    assert [e.task_id for e in ledger.idle("b")] == ["t2"]


# What comes late


def test_an_earlier_admission_changes_nothing(ledger: Ledger) -> None:
    """Its task was fetched again: what was seen of the old attempt is not about this one."""
    old = admit(ledger, at=1000)
    new = admit(ledger, at=1100)

    assert ledger.confirmed(old, 1101) is False
    assert ledger.forget(old) is False
    assert ledger.drop(old) is False
    renew(ledger, old, due=9000)
    ledger.put_off(old, 9000)

    assert ledger.current(new) == new
    assert ledger.current(old) is None


def test_what_was_seen_before_a_renewal_does_not_drop_the_entry(ledger: Ledger) -> None:
    """The lock looked foreign only because our own extension had just moved it."""
    entry = admit(ledger)
    renew(ledger, entry, due=1300)

    assert ledger.drop(entry) is False
    current = ledger.current(entry)
    assert current is not None
    assert ledger.drop(current) is True
    assert "t1" not in ledger


def test_a_confirm_does_not_save_an_entry_from_being_dropped(ledger: Ledger) -> None:
    """The engine's record decides whose the task is, not the broker."""
    entry = admit(ledger)
    ledger.confirmed(entry, 1001)

    assert ledger.drop(entry) is True


def test_forgetting_takes_the_entry_whatever_became_of_its_lock(ledger: Ledger) -> None:
    """The message is lost: no lock of it must be renewed."""
    entry = admit(ledger)
    renew(ledger, entry, due=1300)

    assert ledger.forget(entry) is True
    assert ledger.forget(entry) is False
    assert len(ledger) == 0


# Any order of moves

TASKS = st.sampled_from(["t1", "t2", "t3", "t4", "t5"])
TOPICS = st.sampled_from(["a", "b"])
STEPS = st.floats(0, 700)


class LedgerMachine(RuleBasedStateMachine):
    """The ledger against a dictionary of what is due when."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.ledger = Ledger({"a": TIMING, "b": replace(TIMING, capacity=1)})
        self.model: dict[str, Entry] = {}
        self.seen: list[Entry] = []
        self.busy: set[int] = set()  # serials in somebody's hands

    @initialize(at=st.floats(0, 1e6))
    def begin(self, at: float) -> None:
        self.now = at

    def learn(self, task_id: str) -> None:
        """Take the entry as the ledger has it, after a move that the rule has judged."""
        entry = self.ledger.current(self.model[task_id])
        assert entry is not None
        self.model[task_id] = entry
        self.seen.append(entry)

    def is_current(self, entry: Entry) -> bool:
        known = self.model.get(entry.task_id)
        return known is not None and known.serial == entry.serial

    @rule(seconds=STEPS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(task_id=TASKS, topic=TOPICS)
    def admit(self, task_id: str, topic: str) -> None:
        entry = self.ledger.admit(task_id, topic, None, EXPIRES, self.now)
        assert entry.serial not in {e.serial for e in self.seen}
        self.model[task_id] = entry
        self.learn(task_id)

    @rule(task_id=TASKS, topic=TOPICS, after=STEPS)
    def take_over(self, task_id: str, topic: str, after: float) -> None:
        self.model[task_id] = self.ledger.take_over(
            task_id,
            topic,
            3,
            expiry=RENEWED[0],
            lock_ends=self.now + LEASE,
            due=self.now + after,
            deadline=self.now + DEADLINE,
            now=self.now,
        )
        self.learn(task_id)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.seen))
        known = self.model.get(entry.task_id)
        news = self.is_current(entry) and known is not None and not known.confirmed

        assert self.ledger.confirmed(entry, self.now) is news

        if news:
            self.learn(entry.task_id)
            in_hand = entry.serial in self.busy
            due = BUSY if in_hand else self.now + LEASE_AFTER
            assert self.model[entry.task_id].due == due

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), after=STEPS, leased=st.booleans())
    def renew(self, data: st.DataObject, after: float, leased: bool) -> None:
        entry = data.draw(st.sampled_from(self.seen))
        expiries = (LockWindow.exactly(EXPIRES + self.now),)
        self.ledger.renewed(
            entry,
            expiries=expiries,
            lock_ends=self.now + LEASE,
            due=self.now + after,
            leased=leased,
        )
        if self.is_current(entry):
            was = self.model[entry.task_id]
            self.busy.discard(entry.serial)
            self.learn(entry.task_id)
            now = self.model[entry.task_id]
            assert now.expiries == expiries
            assert now.leased == (was.leased or leased)
            assert now.due <= self.now + after

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), after=STEPS)
    def put_off(self, data: st.DataObject, after: float) -> None:
        entry = data.draw(st.sampled_from(self.seen))
        self.ledger.put_off(entry, self.now + after)
        if self.is_current(entry):
            self.busy.discard(entry.serial)
            self.learn(entry.task_id)
            assert self.model[entry.task_id].due == self.now + after

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.seen))
        known = self.model.get(entry.task_id)
        gone = self.is_current(entry) and known is not None and known.expiries is entry.expiries

        assert self.ledger.drop(entry) is gone

        if gone:
            del self.model[entry.task_id]

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.seen))

        assert self.ledger.forget(entry) is self.is_current(entry)

        if self.is_current(entry):
            del self.model[entry.task_id]

    @rule(task_id=TASKS)
    def settle(self, task_id: str) -> None:
        assert self.ledger.settle(task_id) == self.model.pop(task_id, None)

    @rule(limit=st.integers(1, 4))
    def hand_out(self, limit: int) -> None:
        expected = sorted(e.due for e in self.model.values() if e.due <= self.now)[:limit]

        taken = self.ledger.due(self.now, limit)

        assert [self.model[e.task_id].due for e in taken] == expected
        for entry in taken:
            assert entry.serial not in self.busy, "handed out twice"
            assert replace(entry, due=0) == replace(self.model[entry.task_id], due=0)
            self.busy.add(entry.serial)
            self.learn(entry.task_id)

    @rule()
    def stop(self) -> None:
        expected = {e.task_id for e in self.model.values() if e.confirmed and not e.leased}

        assert {e.task_id for e in self.ledger.unleased()} == expected

        for task_id in expected:
            self.learn(task_id)
            self.busy.add(self.model[task_id].serial)

    @invariant()
    def counts_and_room_agree_with_the_model(self) -> None:
        for topic, capacity in (("a", 3), ("b", 1)):
            held = [e for e in self.model.values() if e.topic == topic]
            assert self.ledger.held(topic) == len(held)
            assert self.ledger.room(topic) == max(0, capacity - len(held))
            assert self.ledger.oldest(topic) == min((e.since for e in held), default=None)
            idle = {e.task_id for e in held if e.due != BUSY}
            assert {e.task_id for e in self.ledger.idle(topic)} == idle

    @invariant()
    def every_entry_is_as_the_model_has_it(self) -> None:
        assert len(self.ledger) == len(self.model)
        for task_id, entry in self.model.items():
            assert task_id in self.ledger
            assert self.ledger.current(entry) == entry
            assert (entry.due == BUSY) == (entry.serial in self.busy)

    @invariant()
    def nothing_is_due_before_the_next_due_time(self) -> None:
        finite = [e.due for e in self.model.values() if e.due != BUSY]
        assert self.ledger.next_due() <= min(finite, default=math.inf)

    def teardown(self) -> None:
        """Nothing with a due time is forgotten: in the end all of it is handed out."""
        waiting = {e.task_id for e in self.model.values() if e.due != BUSY}
        assert {e.task_id for e in self.ledger.due(9e15, 1000)} == waiting


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
