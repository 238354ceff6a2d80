"""Correlation tokens: a worker can finish only its own task."""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ResultRefused
from bridge.tokens import Token, TokenSigner

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
