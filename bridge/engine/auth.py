"""Who asks: the `Authorization` header of every call.  Sends nothing and checks no secret.

A secret in a file is read again whenever the file changes, so that a rotated one needs no restart.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from bridge.errors import EngineMisconfigured, EngineUnavailable

# The header of the call that is about to be made; SecretUnusable where there is none to be sent.
Auth = Callable[[], str]


@runtime_checkable
class Renewable(Protocol):
    """An `Auth` whose header may be out of date although it does not know yet."""

    def renewed(self, refused: str) -> bool:
        """The engine answered 401 to this header: whether the next one is worth a try."""
        ...  # pragma: no cover


class SecretUnusable(EngineMisconfigured):
    """No header can be had with a setting: `key` is its path, `what` ails it, `cure` mends it.

    None of them quotes a secret.
    """

    def __init__(self, key: str, what: str, cure: str) -> None:
        super().__init__(f"engine.{key} {what}; {cure}")
        self.key = f"engine.{key}"
        self.what = what
        self.cure = cure


class SignInUnavailable(EngineUnavailable):
    """The authorization server gives no answer, or one that says "later"; the engine was not
    asked.
    """

    def __init__(self, what: str, *, retry_after: float = 0.0) -> None:
        super().__init__(f"authorization server: {what}", sent=False, retry_after=retry_after)


class Bearer:
    """`Authorization: Bearer` with a fixed token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self) -> str:
        return _bearer(self._token, "token")


class BearerFile:
    """`Authorization: Bearer` with the token in a file, without the white space around it."""

    def __init__(self, path: Path) -> None:
        self._file = SecretFile(path, "token_file")

    def __call__(self) -> str:
        return _bearer(self._file.read().strip(), "token_file")


class Basic:
    """HTTP Basic, UTF-8."""

    def __init__(self, username: str, password: str) -> None:
        self._header = basic(username, password)

    def __call__(self) -> str:
        return self._header


class BasicFile:
    """HTTP Basic with the password in a file, whose last line end is none of it."""

    def __init__(self, username: str, path: Path) -> None:
        self._username = username
        self._file = SecretFile(path, "password_file")

    def __call__(self) -> str:
        return basic(self._username, self._file.line())


class SecretFile:
    """The text of a file, named by the setting `key` of [engine].  While the file is being replaced
    the old text goes on.  Raises SecretUnusable.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self._read: tuple[int, str] | None = None

    def line(self) -> str:
        """The text without its last line end, which is none of a secret."""
        return self.read().removesuffix("\n").removesuffix("\r")

    def read(self) -> str:
        """The whole text."""
        try:
            changed = self._path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed:
                text = self._path.read_text(encoding="utf-8")
                if text.strip() or self._read is None:
                    self._read = (changed, text)
        except (OSError, UnicodeError) as error:
            if self._read is None:
                cure = "let the bridge read it, and write UTF-8"
                raise SecretUnusable(self._key, "cannot be read as text", cure) from error
        return self._read[1] if self._read else ""


def _bearer(token: str, key: str) -> str:
    if not (token and token.isascii() and token.isprintable()):
        # http.client would quote the token in its complaint, and end the thread.
        cure = "write the token there and nothing else"
        raise SecretUnusable(key, "is not one line of printable ASCII", cure)
    return f"Bearer {token}"


def basic(username: str, password: str) -> str:
    """The header of HTTP Basic."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
