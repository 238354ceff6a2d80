"""Correlation tokens: a worker can finish only its own task."""

import hashlib
import hmac
import itertools
import re
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import ResultRefused
from bridge.ledger import Entry
from bridge.tokens import Token, TokenSigner
from tests.support.rooms import PARKED, Rooms, make_topic
from tests.support.waiting import eventually
from tests.unit.conftest import Open

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
TASK = "0a1b2c3d-1111-2222-3333-444455556666"

task_ids = st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True)
retries = st.none() | st.integers(0, 2**31 - 1)
topics = st.text(max_size=255)
signers = st.sampled_from([TokenSigner(KEY), TokenSigner(None)])


def refusal(signer: TokenSigner, token: str | None, topic: str) -> str:
    with pytest.raises(ResultRefused) as refused:
        signer.verify(token, topic)
    return refused.value.reason


@given(signers, task_ids, retries, topics)
def test_a_token_gives_back_its_attempt_in_short_url_safe_text(
    signer: TokenSigner, task_id: str, attempt: int | None, topic: str
) -> None:
    """AMQP cuts a correlation id at 255 bytes, and some stacks carry it in URLs."""
    token = signer.make(task_id, attempt, topic)

    assert signer.verify(token, topic) == Token(task_id, attempt)
    assert re.fullmatch(r"[0-9A-Za-z._-]{1,102}", token)


@given(signers, task_ids, retries, topics, topics)
def test_a_token_of_another_topic_is_refused(
    signer: TokenSigner, task_id: str, attempt: int | None, topic: str, other: str
) -> None:
    """Permissions fence workers per topic; a token must not cross the fence."""
    token = signer.make(task_id, attempt, topic)

    if topic != other:
        assert refusal(signer, token, other) == "bad-token"


@given(signers, retries, st.data())
def test_a_token_with_one_bit_flipped_is_refused(
    signer: TokenSigner, attempt: int | None, data: st.DataObject
) -> None:
    """Each token has exactly one text; damage anywhere is seen."""
    token = signer.make(TASK, attempt, "t")
    at = data.draw(st.integers(0, len(token) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = token[:at] + chr(ord(token[at]) ^ (1 << bit)) + token[at + 1 :]

    assert refusal(signer, damaged, "t") == "bad-token"


@given(signers, st.integers(1, 80))
def test_a_truncated_or_extended_token_is_refused(signer: TokenSigner, cut: int) -> None:
    """A client library that cuts or pads the correlation id must not pass unnoticed."""
    token = signer.make(TASK, 3, "t")

    assert refusal(signer, token[:-cut], "t") in {"bad-token", "no-token"}
    assert refusal(signer, token + "A" * cut, "t") == "bad-token"
    assert refusal(signer, token + "\n", "t") == "bad-token"


@given(signers, st.text(), topics)
def test_any_text_is_answered_by_a_refusal_and_nothing_else(
    signer: TokenSigner, text: str, topic: str
) -> None:
    """A stranger's message must not stop the reporter."""
    assert refusal(signer, text, topic) == ("bad-token" if text else "no-token")


@pytest.mark.parametrize("token", [None, ""])
def test_a_missing_token_has_its_own_reason(token: str | None) -> None:
    """A worker that forgot to echo the correlation id is told so, not accused of forgery."""
    assert refusal(TokenSigner(KEY), token, "t") == "no-token"


def test_with_a_key_an_unsigned_token_is_refused() -> None:
    """Anyone can compute a checksum; with a key only the key's owner may answer."""
    unsigned = TokenSigner(None).make(TASK, None, "t")

    assert unsigned.startswith("0.")
    assert refusal(TokenSigner(KEY), unsigned, "t") == "bad-token"
    assert refusal(TokenSigner(KEY), "1" + unsigned[1:], "t") == "bad-token"


def test_without_a_key_a_signed_token_is_refused() -> None:
    """A replica that lost its key must not accept what it cannot check."""
    signed = TokenSigner(KEY).make(TASK, None, "t")

    assert signed.startswith(f"1.{TASK}.-.")
    assert refusal(TokenSigner(None), signed, "t") == "bad-token"


def test_a_token_of_another_key_is_refused() -> None:
    """Two deployments on one broker must not finish each other's tasks."""
    token = TokenSigner(OTHER_KEY).make(TASK, 3, "t")

    assert refusal(TokenSigner(KEY), token, "t") == "bad-token"


def test_while_keys_rotate_the_old_one_is_accepted_and_the_new_one_signs() -> None:
    """Messages in flight carry tokens of the old key for up to a deadline."""
    rotating = TokenSigner(KEY, OTHER_KEY)
    old = TokenSigner(OTHER_KEY).make(TASK, 3, "t")

    assert rotating.verify(old, "t") == Token(TASK, 3)
    assert rotating.make(TASK, 3, "t") == TokenSigner(KEY).make(TASK, 3, "t")


def test_replicas_may_change_the_key_one_after_the_other() -> None:
    """In each of the three rounds every replica accepts what any other signs meanwhile."""
    rounds = [(OTHER_KEY, None), (OTHER_KEY, KEY), (KEY, OTHER_KEY), (KEY, None)]

    for one, other in itertools.pairwise(rounds):
        for signs, reads in ((one, other), (other, one)):
            token = TokenSigner(*signs).make(TASK, 3, "t")
            assert TokenSigner(*reads).verify(token, "t") == Token(TASK, 3)


def test_the_keys_do_not_change_the_readable_part_but_the_seal() -> None:
    """An operator reads task and attempt from a token; only the seal depends on the key."""
    tokens = {s.make(TASK, 2, "t") for s in (TokenSigner(KEY), TokenSigner(OTHER_KEY))}

    assert len(tokens) == 2
    assert {token.rpartition(".")[0] for token in tokens} == {f"1.{TASK}.2"}


@pytest.mark.parametrize("attempt", ["01", "+1", "-1", "1 ", "٣", "", "2147483648", "1e1"])
@pytest.mark.parametrize("key", [KEY, None])
def test_retries_have_one_spelling(attempt: str, key: bytes | None) -> None:
    """Even properly sealed, a number that no engine gives is refused."""

    def sealed(content: str) -> str:
        text = f"{content}\nt".encode()
        digest = hmac.digest(key, text, "sha256") if key else hashlib.sha256(text).digest()
        return f"{content}.{urlsafe_b64encode(digest[:18]).decode()}"

    signer, version = TokenSigner(key), "1" if key else "0"

    assert signer.verify(sealed(f"{version}.{TASK}.1"), "t") == Token(TASK, 1)
    assert refusal(signer, sealed(f"{version}.{TASK}.{attempt}"), "t") == "bad-token"


@pytest.mark.parametrize("task_id", ["", "a.b", "x" * 65, "ä", "a\n"])
def test_no_token_is_made_for_what_is_no_task_id(task_id: str) -> None:
    """What could not be verified again must not be published."""
    with pytest.raises(ValueError, match="task id"):
        TokenSigner(None).make(task_id, None, "t")


@pytest.mark.parametrize("attempt", [-1, 2**31])
def test_no_token_is_made_for_impossible_retries(attempt: int) -> None:
    """The engine's retries are a non-negative 32-bit integer."""
    with pytest.raises(ValueError, match="retries"):
        TokenSigner(None).make(TASK, attempt, "t")


@pytest.mark.parametrize("keys", [(b"", None), (KEY, b""), (None, KEY)])
def test_an_empty_key_or_an_old_key_alone_is_refused(
    keys: tuple[bytes | None, bytes | None],
) -> None:
    """An empty key would sign as if it protected something."""
    with pytest.raises(ValueError, match="key"):
        TokenSigner(*keys)


def test_the_signer_does_not_show_its_key() -> None:
    """Objects end up in tracebacks and logs."""
    assert "k" * 8 not in repr(TokenSigner(KEY))


# -- what becomes of a result whose token is not good: the rooms on a simulated engine -------------

OUTCOMES: dict[str, Any] = {
    "complete": {"variables": {"approved": True}},
    "failure": {"errorMessage": "no", "retries": 0},
    "bpmnError": {"errorCode": "E1"},
    "extendLock": {"newDuration": 1000, "variables": {"approved": True}},
    "unlock": {},
}


@pytest.fixture
def entry(rooms: Rooms) -> Entry:
    """A task in flight."""
    return rooms.in_flight()


@st.composite
def forgeries(draw: st.DrawFn, task_id: str, genuine: str) -> str | None:
    """What somebody without the key can make of a token that they have seen."""
    version, _, attempt, seal = genuine.split(".")
    other = draw(task_ids.filter(lambda name: name != task_id))
    at, bit = draw(st.integers(0, len(genuine) - 1)), draw(st.integers(0, 6))
    flipped = genuine[:at] + chr(ord(genuine[at]) ^ (1 << bit)) + genuine[at + 1 :]
    return draw(
        st.sampled_from(
            [
                flipped,
                genuine[:at],
                f"{version}.{other}.{attempt}.{seal}",
                f"{version}.{task_id}.{draw(st.integers(0, 9))}.{seal}",
                TokenSigner(None).make(task_id, None, "a"),
                TokenSigner(OTHER_KEY).make(task_id, None, "a"),
                TokenSigner(KEY).make(task_id, None, "b"),
                None,
                task_id,
                f"../{task_id}",
                f"{genuine}%2F..%2Funlock",
                f"http://127.0.0.1:1/{task_id}",
                f"{genuine}\r\nX: y",
            ]
        )
        | st.text(max_size=120)
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), outcome=st.sampled_from(sorted(OUTCOMES)))
def test_a_forged_token_never_reaches_the_engine(
    rooms: Rooms, entry: Entry, data: st.DataObject, outcome: str
) -> None:
    """Not even to ask: the result is parked, and the engine has heard nothing of it."""
    genuine = rooms.signer.make(entry.task_id, None, "a")
    forged = data.draw(forgeries(entry.task_id, genuine).filter(lambda it: it != genuine))
    delivery = rooms.result(entry, OUTCOMES[outcome], outcome, correlation_id=forged)
    rooms.engine.calls.clear()

    rooms.reporter.deliver(delivery)

    eventually(lambda: delivery in rooms.acked, what="acknowledged")
    assert rooms.publisher.to(PARKED)[-1].headers["reason"] in {"bad-token", "no-token"}
    assert rooms.publisher.to(PARKED)[-1].correlation_id == forged
    assert rooms.engine.calls.of() == ()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_token_on_another_topics_queue_touches_neither_task(
    open_rooms: Open, outcome: str
) -> None:
    """A worker of one topic that has seen another's token, on either of the two queues."""
    rooms = open_rooms(make_topic("a"), make_topic("b")).start()
    a, b = rooms.in_flight("a"), rooms.in_flight("b")
    rooms.engine.calls.clear()

    crossed = [
        rooms.result(one, OUTCOMES[outcome], outcome, queue=f"{other.topic}.results")
        for one, other in ((a, b), (b, a))
    ]
    for delivery in crossed:
        rooms.reporter.deliver(delivery)

    eventually(lambda: len(rooms.acked) == 2, what="both acknowledged")
    assert [copy.headers["reason"] for copy in rooms.publisher.to(PARKED)] == ["bad-token"] * 2
    assert rooms.engine.calls.of() == ()
    for entry in (a, b):
        rooms.answer(entry)
    eventually(lambda: rooms.engine.tasks() == [], what="both can still be finished")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_replayed_token_changes_nothing(rooms: Rooms, outcome: str) -> None:
    """Once its task is done a token is worth nothing: acknowledged, counted, no second effect."""
    entry = rooms.in_flight()
    rooms.answer(entry)
    eventually(lambda: rooms.count("completed") == 1)
    rooms.engine.calls.clear()

    rooms.answer(entry, OUTCOMES[outcome], outcome)

    eventually(lambda: rooms.count("gone") == 1)
    assert all(call.method == "GET" or call.status == 404 for call in rooms.engine.calls.of())
    assert rooms.publisher.to(PARKED) == []


@pytest.mark.parametrize("outcome", ["failure", "extendLock", "unlock"])
def test_a_token_of_an_earlier_attempt_changes_nothing(rooms: Rooms, outcome: str) -> None:
    """It names one attempt, and that one is over."""
    entry = rooms.in_flight()
    rooms.answer(entry, {"errorMessage": "first", "retries": 2}, "failure")
    eventually(lambda: rooms.count("failed") == 1)
    before = rooms.task(entry.task_id)
    rooms.engine.calls.clear()

    rooms.answer(entry, OUTCOMES[outcome], outcome)

    eventually(lambda: rooms.count("stale") == 1)
    assert rooms.task(entry.task_id) == before
    assert {call.method for call in rooms.engine.calls.of()} == {"GET"}
