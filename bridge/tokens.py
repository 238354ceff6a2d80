"""Correlation tokens: make and verify.  Says whose attempt a result answers; no I/O, no clock.

A token reads `<version>.<task id>.<retries or ->.<seal>`.  Version 1 is sealed by an HMAC that
nobody without the key can make.  Version 0, without a key, has a checksum: it catches damage and
a wrong topic and proves nothing.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from bridge.errors import ResultRefused

_SEAL_BYTES = 18
_UNSIGNED, _SIGNED = "0", "1"
_MAX_RETRIES = 2**31 - 1
_TASK_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_TOKEN = re.compile(
    r"(?P<version>[01])\.(?P<task_id>[0-9A-Za-z_-]{1,64})"
    r"\.(?P<retries>-|0|[1-9][0-9]{0,9})\.(?P<seal>[0-9A-Za-z_-]{24})"
)


@dataclass(frozen=True)
class Token:
    """The attempt that a result answers: `retries` as fetched, None where it never failed."""

    task_id: str
    retries: int | None


class TokenSigner:
    """Makes tokens of one kind and accepts no other: with a key, every result must prove itself.

    `old_key` is accepted, never used to sign: it keeps messages in flight valid while the key is
    rotated.  Keys are secrets; this object does not show them."""

    def __init__(self, key: bytes | None, old_key: bytes | None = None) -> None:
        if (key is not None and not key) or (old_key is not None and not (key and old_key)):
            raise ValueError("a key is not empty, and an old key goes with a key")
        self._version = _SIGNED if key else _UNSIGNED
        self._keys = (key or b"", old_key) if old_key else (key or b"",)

    def make(self, task_id: str, retries: int | None, topic: str) -> str:
        """A token of at most 102 URL-safe ASCII characters, always the same for the same attempt.

        Raises ValueError for a task id or retries that no engine gives."""
        if _TASK_ID.fullmatch(task_id) is None:
            raise ValueError("a task id has 1 to 64 letters, digits, hyphens or underscores")
        if retries is not None and not 0 <= retries <= _MAX_RETRIES:
            raise ValueError("retries are a non-negative 32-bit integer")
        content = f"{self._version}.{task_id}.{'-' if retries is None else retries}"
        return f"{content}.{_seal(self._keys[0], content, topic)}"

    def verify(self, token: str | None, topic: str) -> Token:
        """The attempt that the token names, if it was made for a task of this topic.

        Raises ResultRefused, reason `no-token` where there is none, else `bad-token`."""
        if not token:
            raise ResultRefused(
                "no-token", "no correlation id; the worker has to send back the task message's own"
            )
        match = _TOKEN.fullmatch(token)
        if match is None or match["version"] != self._version:
            wanted = "a signed" if self._version == _SIGNED else "an unsigned"
            raise ResultRefused("bad-token", f"the correlation id is not {wanted} token")
        content = token.rpartition(".")[0]
        seals = [_seal(key, content, topic) for key in self._keys]
        if not any(hmac.compare_digest(seal, match["seal"]) for seal in seals):
            raise ResultRefused(
                "bad-token", "the correlation id is damaged, forged, or of another topic's task"
            )
        retries = None if match["retries"] == "-" else int(match["retries"])
        if retries is not None and retries > _MAX_RETRIES:
            raise ResultRefused("bad-token", "the correlation id names impossible retries")
        return Token(match["task_id"], retries)


def _seal(key: bytes, content: str, topic: str) -> str:
    # The content has a closed alphabet without line ends, so the topic cannot flow into it.
    sealed = f"{content}\n{topic}".encode(errors="surrogatepass")
    digest = hmac.digest(key, sealed, "sha256") if key else hashlib.sha256(sealed).digest()
    return urlsafe_b64encode(digest[:_SEAL_BYTES]).decode("ascii")


def claimed_task(token: str | None) -> str | None:
    """The task that a token says it is about, unproven: good for keeping order only."""
    match = _TOKEN.fullmatch(token or "")
    return match["task_id"] if match else None
