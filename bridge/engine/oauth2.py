"""OAuth 2.0 client credentials (RFC 6749, section 4.4): signs in at the authorization server for
the engine.  Keeps the token in memory alone, and logs neither it nor the secret.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

import structlog

from bridge.clock import monotonic
from bridge.engine.auth import SecretUnusable, SignInUnavailable, basic
from bridge.engine.connection import CALL_ERRORS, Connection, HttpOptions, translated
from bridge.errors import EngineError, EngineMisconfigured

# A token is renewed so long before it expires, or at three quarters of a shorter life.
SPARE_SECONDS = 60.0
SHORTEST_SECONDS = 1.0
# An engine that refuses every token must not make the authorization server issue one per call.
REFUSED_PAUSE_SECONDS = 5.0
RENEWAL = "sign-in"  # the name of the thread

# What the authorization server says to which setting (RFC 6749, 5.2; RFC 8707, 2), and the cure.
_CURES: Mapping[str, tuple[str, str]] = {
    "invalid_scope": ("oauth2_scope", "correct it, or have it granted to the client"),
    "invalid_target": ("oauth2_audience", "correct it, or have it granted to the client"),
    "unauthorized_client": ("oauth2_client_id", "allow this client the client credentials grant"),
    "unsupported_grant_type": ("oauth2_token_url", "allow the client credentials grant there"),
}
_WORD = re.compile(r"[a-z_]{1,40}")

_LATE = "no answer in time"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token as a header, and for how many seconds from the request on (None: unsaid)."""

    header: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _Held:
    header: str
    renew_at: float
    until: float
    told: bool = False  # that it could not be renewed: once is enough


class ClientCredentials:
    """`Authorization: Bearer` with a token that is fetched when it is first needed, and again
    shortly before it expires or when the engine refuses it.

    Safe to use from every thread.  A renewal before the end runs in a thread of its own, and until
    the old token expires nobody waits for it; then they do, and share the outcome.  One sign-in at
    a time.  Raises what `sign_in` raises.
    """

    def __init__(self, sign_in: Callable[[], Token], now: Callable[[], float] = monotonic) -> None:
        self._sign_in = sign_in
        self._now = now
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._failed: tuple[float, EngineError] | None = None
        self._refused_at = float("-inf")

    def __call__(self) -> str:
        held, now = self._held, self._now()
        if held is None or now >= held.until:
            return self._anew(held, now)
        return held.header if now < held.renew_at else self._early(held)

    def renewed(self, refused: str) -> bool:
        """The engine answered 401 to this header: the token was revoked, or is not for this
        engine.  At most once in five seconds another one is worth a try.
        """
        with self._lock:
            if self._held is None or self._held.header != refused:
                return True
            if self._now() - self._refused_at < REFUSED_PAUSE_SECONDS:
                return False
            self._refused_at = self._now()
            self._held = None
            return True

    def _early(self, held: _Held) -> str:
        # Whoever calls may stand between a task's read and its write, and cannot wait.
        if not self._lock.acquire(blocking=False):
            return held.header
        if self._held is held:
            renewal = threading.Thread(target=self._renew, args=(held,), name=RENEWAL, daemon=True)
            with suppress(RuntimeError):  # no thread to be had; the next call tries again
                renewal.start()
                return held.header  # the thread releases the lock
        self._lock.release()
        return held.header

    def _renew(self, held: _Held) -> None:
        try:
            self._held = self._fetched()
        except Exception as error:  # noqa: BLE001 - told, and tried again
            now = self._now()
            left = held.until - now
            problem = type(error).__name__
            if isinstance(error, EngineError):
                problem = error.brief
                self._failed = (now, error)
            if not held.told:
                log.warning("token not renewed", problem=problem, seconds_left=round(left, 1))
            self._held = replace(held, renew_at=now + max(SHORTEST_SECONDS, left / 4), told=True)
        finally:
            self._lock.release()

    def _anew(self, old: _Held | None, now: float) -> str:
        with self._lock:
            held = self._held
            # A renewal that failed leaves the old token with its old end.
            if held is not None and (old is None or held.until != old.until):
                return held.header
            if self._failed is not None and self._failed[0] >= now:
                raise self._failed[1]  # it failed while we waited for our turn
            try:
                self._held = self._fetched()
            except EngineError as error:
                self._failed = (self._now(), error)
                raise
            return self._held.header

    def _fetched(self) -> _Held:
        began = self._now()
        token = self._sign_in()
        if token.seconds is None:
            return _Held(token.header, float("inf"), float("inf"))
        seconds = max(SHORTEST_SECONDS, token.seconds)
        spare = min(SPARE_SECONDS, seconds / 4)
        return _Held(token.header, began + seconds - spare, began + seconds)


@dataclass(frozen=True)
class Client:
    """Who signs in where: `endpoint` without headers and credentials of the engine's, its
    `read_timeout` the limit of a whole sign-in; `path` from its root; `secret` is read for every
    sign-in; `secret_key` is its setting in [engine].
    """

    endpoint: HttpOptions
    path: str
    client_id: str
    secret: Callable[[], str]
    secret_key: str
    in_body: bool = False
    scope: str | None = None
    audience: str | None = None


def endpoint_of(url: str) -> tuple[str, str]:
    """The root of a URL, and the path, query included, below it."""
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}"
    return root, url.removeprefix(root) or "/"


def sign_in(client: Client) -> Token:
    """One token from the authorization server, asked for once.

    Raises SignInUnavailable where it is away, SecretUnusable with the setting to correct where it
    refuses, EngineMisconfigured where a certificate file cannot be used.
    """
    # Only a bridge that signs in so pays for the library.
    from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error  # noqa: PLC0415

    library = BackendApplicationClient(client.client_id)
    form, headers = _request(client, library.prepare_request_body)
    answer = _answer(client, form, headers)
    try:
        granted: dict[str, Any] = library.parse_request_body_response(json.dumps(answer))
        seconds = float(granted["expires_in"]) if "expires_in" in granted else None
    except OAuth2Error as error:
        # A description may quote what was sent.
        raise _refusal(client, str(error.error)) from None
    except Exception:  # noqa: BLE001 - the library trusts the kinds of the values
        raise _no_token("it answers what is no token (RFC 6749, section 5.1)") from None
    kind, token = granted.get("token_type", "Bearer"), granted.get("access_token")
    if not (isinstance(kind, str) and kind.lower() == "bearer"):
        raise _no_token("its token is not of type Bearer")
    if not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
        raise _no_token("no header can carry its token")
    return Token(f"Bearer {token}", seconds)


def _request(client: Client, body: Callable[..., str]) -> tuple[str, dict[str, str]]:
    secret = client.secret()
    more = {"audience": client.audience} if client.audience else {}
    if client.in_body:
        form = body(scope=client.scope, include_client_id=True, client_secret=secret, **more)
        return form, {}
    # Both are encoded before they are joined (RFC 6749, 2.3.1).
    header = basic(quote(client.client_id, safe=""), quote(secret, safe=""))
    return body(scope=client.scope, **more), {"Authorization": header}


class _Call(Connection):
    """A connection that ends at a set time, whatever trickles in: `late` says that it did."""

    def __init__(self, options: HttpOptions) -> None:
        super().__init__(options)
        self.late = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(options.read_timeout, self._end)
        self._timer.daemon = True
        made: Any = self._pool.ConnectionCls

        def connected(connection: Any) -> socket.socket:
            one: socket.socket = made._new_conn(connection)
            # Of its own: TLS takes the descriptor of the first away.
            self._sockets.append(one.dup())
            if self.late:
                self._end()
            return one

        self._pool.ConnectionCls = type("Ending", (made,), {"_new_conn": connected})
        self._timer.start()

    def close(self) -> None:
        self._timer.cancel()
        self._timer.join()
        super().close()
        for one in self._sockets:
            one.close()

    def _end(self) -> None:
        self.late = True
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _answer(client: Client, form: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The members of the JSON object that came back, be it a token or an error, without nulls: a
    serializer that writes them writes one for the error that there is not.
    """
    late = False
    try:
        call = _Call(client.endpoint)
        try:
            response = call.post_form(client.path, form, headers)
        finally:
            call.close()
            late = call.late
    except CALL_ERRORS as error:
        meaning = translated(error)
        if isinstance(meaning, EngineMisconfigured):
            raise meaning from error
        raise SignInUnavailable(_LATE if late else str(meaning)) from error
    if late:
        raise SignInUnavailable(_LATE)
    status, text = response.status, response.data.decode(errors="replace")
    if status >= 500 or status in {408, 429}:
        later = response.headers.get("Retry-After", "")
        seconds = float(later) if later.isdecimal() else 0.0
        raise SignInUnavailable(f"{status}, it is busy or away", retry_after=seconds)
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    told = answer if isinstance(answer, dict) else {}
    told = {name: value for name, value in told.items() if value is not None}
    wanted = {"error", "access_token"} if status == 200 else {"error"}
    if wanted.isdisjoint(told):
        raise _no_token(f"it answers {status} with neither a token nor an error")
    return told


def _refusal(client: Client, error: str) -> SecretUnusable:
    word = error if _WORD.fullmatch(error) else "a refusal"
    cure = f"correct oauth2_client_id and {client.secret_key}"
    key, cure = _CURES.get(word, (client.secret_key, cure))
    return SecretUnusable(key, f"does not suit the authorization server ({word})", cure)


def _no_token(why: str) -> SecretUnusable:
    what = f"is not the address of a token endpoint: {why}"
    return SecretUnusable("oauth2_token_url", what, "correct the address")
