"""Cases that hurt the worker: a bad body, a flood, a kill, a stop, a lost connection.  Each says
whether a task was lost; what the worker does inside is its own affair.
"""

from __future__ import annotations

from typing import NoReturn

from bridge.clock import monotonic
from bridge.conform.answers import usual
from bridge.conform.bench import LONGER, Bench, LastStand
from bridge.conform.verdict import Failed, NotTried

# Spring takes 250 at once with each consumer, the most of the common stacks.
MOST_IN_HAND = 300
TOO_MANY = 20
REQUEUES = 3
QUIET_SECONDS = 0.3
LINGER_SECONDS = 2.0
# Client libraries reconnect after five seconds.
PATIENCE = 2
ACKNOWLEDGE_LAST = (
    "Consume with manual acknowledgement, wait for the confirm of the answer, and acknowledge then."
)
CELERY_LATE = "Set task_acks_late and task_reject_on_worker_lost where the work may be repeated."
LET_GO = "Acknowledge a bad message once its failure is answered, or reject it without requeue."


def poison(bench: Bench) -> None:
    """After a body that is no JSON the worker still lives, works, and has let go of it."""
    if bench.has_program:
        bench.relay.forget()
    poison_id, publication = bench.queues.tasks.make_unreadable()
    bench.queues.publish(publication)
    task_id = bench.queues.send(usual(bench).variables)
    try:
        bench.answers([task_id])
    except Failed as failed:
        raise Failed(f"after a body that is no JSON: {failed}") from None
    if _requeues(bench):
        raise Failed("a body that is no JSON was requeued again and again")
    if bench.has_program and _keeps(bench, poison_id, task_id):
        raise Failed("a body that is no JSON was neither acknowledged nor rejected", LET_GO)


def _requeues(bench: Bench) -> bool:
    """Whether the message goes round between the broker and the worker."""
    if bench.has_program:
        return bench.until(lambda: bench.relay.requeued >= REQUEUES, QUIET_SECONDS)
    gave_up = any(answer.dead == "delivery_limit" for answer in bench.heard)
    return gave_up or bench.queues.requeued(QUIET_SECONDS) > 0


def _keeps(bench: Bench, poison_id: str, task_id: str) -> bool:
    """Whether the poison is still in its hands; one that keeps all it gets is another case's."""
    bench.until(lambda: bench.relay.settled > 1, LINGER_SECONDS)
    back = _killed(bench)
    return poison_id in back and task_id not in back


def prefetch(bench: Bench) -> None:
    """Of many messages some stay on the broker, for other workers."""
    stand = _last_stand(bench)
    if stand.taken > MOST_IN_HAND * stand.consumers:
        crowd = f", with {stand.consumers} consumers" if stand.consumers > 1 else ""
        raise Failed(f"the worker took {stand.taken} of {stand.sent} messages at once{crowd}")


def acknowledgement(bench: Bench) -> None:
    """An answered message does not come back when the worker goes."""
    if not _last_stand(bench).acknowledged:
        raise Failed("a message that was answered came back when the worker was gone")


def unroutable_answer(bench: Bench) -> None:
    """An answer that no queue takes is no reason to acknowledge its task."""
    if bench.setup.topic.replies.profile != "json":
        raise NotTried("this stack publishes its answers itself, and does not hear of it")
    relay = bench.relay
    relay.forget()
    relay.hold_answers()
    with bench.queues.unbound():
        task_id = bench.queues.send_unanswerable(usual(bench).variables)
        bench.until(lambda: relay.held.is_set() or not bench.program.alive)
        relay.release()
        bench.until(lambda: relay.settled > 0 or not bench.program.alive, LINGER_SECONDS)
        back = _killed(bench)
    bench.hear()
    if relay.requeued >= REQUEUES:
        raise Failed("a task whose answer no queue takes was requeued again and again")
    if task_id in back or task_id in bench.answered:  # rejected: the bridge makes a failure of it
        return
    if relay.held.is_set() and bench.queues.reached_by(relay.last_exchange):
        raise NotTried("another queue takes its answers; use a virtual host without a bridge")
    raise Failed("the task is lost: it was acknowledged, and no queue took its answer")


def kill(bench: Bench) -> None:
    """Killed as it is about to answer, the worker gets the message again."""
    task_id = _caught_answering(bench)
    bench.kill()
    _not_lost(bench)
    bench.start()
    bench.answers([task_id])


def stop(bench: Bench) -> None:
    """SIGTERM in the middle of a task: the worker ends, each task is answered or given back."""
    sent = [_caught_answering(bench)]
    sent += [bench.queues.send(usual(bench).variables) for _ in range(2)]
    before = len(bench.heard)
    bench.program.terminate()
    bench.relay.release()
    if not bench.until(lambda: not bench.program.alive):
        raise Failed(f"still running {bench.setup.timeout:g} s after SIGTERM ({LONGER})")
    bench.gone()
    owed = set(sent)

    def lost() -> int:
        back = bench.queues.take_back()
        owed.difference_update(bench.queues.tasks.task_of(delivery) for delivery in back)
        bench.hear()
        unnamed = sum(a.final and a.task_id is None for a in bench.heard[before:])
        return max(0, len(owed - bench.answered) - unnamed)

    if not bench.until(lambda: not lost(), LINGER_SECONDS):
        raise Failed(f"of {len(sent)} tasks {lost()} were neither answered nor given back")


def connection_cut(bench: Bench) -> None:
    """Cut off as it is about to answer, the worker comes back and gets the message again."""
    task_id = _caught_answering(bench)
    bench.relay.cut()
    bench.relay.release()
    limit = PATIENCE * bench.setup.timeout
    try:
        bench.answers([task_id], limit)
    except Failed:
        if bench.program.alive:
            _stays_silent(bench, task_id, limit)
        if bench.program.code == 0:
            raise Failed("it ended with code 0, after which no supervisor restarts it") from None
        _not_lost(bench)
        bench.start()
        bench.answers([task_id])


def _stays_silent(bench: Bench, task_id: str, limit: float) -> NoReturn:
    """Tell why a worker that lives on has not answered."""
    within = f"within {limit:g} s ({LONGER})"
    if not bench.queues.consumers:
        raise Failed(f"it neither reconnected nor ended {within}")
    if task_id in _killed(bench):
        raise Failed(f"it reconnected, and did not answer the task it got again {within}")
    raise _lost(bench)


def _not_lost(bench: Bench) -> None:
    """The message that the worker had in hand is back on the queue."""
    if not bench.until(lambda: bench.queues.ready > 0, LINGER_SECONDS):
        raise _lost(bench)


def _lost(bench: Bench) -> Failed:
    celery = bench.setup.topic.replies.profile == "celery"
    seen = "the task is lost: it was acknowledged before its answer was out"
    return Failed(seen, CELERY_LATE if celery else ACKNOWLEDGE_LAST)


def _killed(bench: Bench) -> set[str]:
    """The tasks that a worker had in hand when it was killed."""
    bench.wait(QUIET_SECONDS)  # the relay sees an acknowledgement a moment before the broker
    bench.kill()
    return bench.take_back()


def _caught_answering(bench: Bench) -> str:
    """A task whose answer the worker has just begun to send: it waits at the relay."""
    bench.relay.hold_answers()
    task_id = bench.queues.send(usual(bench).variables)
    bench.until(lambda: bench.relay.held.is_set() or not bench.program.alive)
    if not bench.program.alive:
        raise Failed(f"no answer: {bench.epitaph()}")
    if not bench.relay.held.is_set():
        raise Failed(f"no answer within {bench.setup.timeout:g} s ({LONGER})")
    return task_id


def _last_stand(bench: Bench) -> LastStand:
    """Answer one, take what it wants of many, be killed; done once for both of its cases."""
    if bench.last_stand is not None:
        return bench.last_stand
    relay = bench.relay
    relay.forget()
    answered = bench.queues.send(usual(bench).variables)
    bench.answers([answered])
    bench.until(lambda: relay.settled > 0, LINGER_SECONDS)
    bench.wait(QUIET_SECONDS)
    relay.hold_deliveries()
    consumers = max(1, bench.queues.consumers)
    sent = MOST_IN_HAND * consumers + TOO_MANY
    for _ in range(sent):
        bench.queues.send(usual(bench).variables)
    taken = sent - _steady(bench)
    back = _killed(bench)
    bench.last_stand = LastStand(sent, taken, consumers, acknowledged=answered not in back)
    return bench.last_stand


def _steady(bench: Bench) -> int:
    """How many messages wait, once that has not changed for a while."""
    last, since = bench.queues.ready, monotonic()

    def steady() -> bool:
        nonlocal last, since
        if (now := bench.queues.ready) != last:
            last, since = now, monotonic()
        return monotonic() - since > QUIET_SECONDS

    bench.until(steady)
    return last
