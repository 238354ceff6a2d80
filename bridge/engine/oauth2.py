"""OAuth 2.0 client credentials (RFC 6749, section 4.4): signs in at the authorization server for
the engine.  Keeps the token in memory alone, and logs neither it nor the secret.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
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

# What the authorization server says to which setting (RFC 6749, 5.2; RFC 8707, 2), and the cure.
_CURES: Mapping[str, tuple[str, str]] = {
    "invalid_scope": ("oauth2_scope", "correct it, or have it granted to the client"),
    "invalid_target": ("oauth2_audience", "correct it, or have it granted to the client"),
    "unauthorized_client": ("oauth2_client_id", "allow this client the client credentials grant"),
    "unsupported_grant_type": ("oauth2_token_url", "allow the client credentials grant there"),
}
_WORD = re.compile(r"[a-z_]{1,40}")

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

    Safe to use from every thread: one of them fetches; until the old token expires the others go
    on with it, then they wait, and share the outcome.  Raises what `sign_in` raises.
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
        if not self._lock.acquire(blocking=False):
            return held.header
        try:
            if self._held is held:
                self._held = self._fetched()
                return self._held.header
        except EngineError as error:
            now = self._now()
            left = held.until - now
            if not held.told:
                log.warning("token not renewed", problem=error.brief, seconds_left=round(left, 1))
            self._held = replace(held, renew_at=now + max(SHORTEST_SECONDS, left / 4), told=True)
        finally:
            self._lock.release()
        return held.header

    def _anew(self, old: _Held | None, now: float) -> str:
        with self._lock:
            if self._held is not None and self._held is not old:
                return self._held.header
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
    """Who signs in where: `endpoint` without headers and credentials of the engine's, `path` from
    its root; `secret` is read for every sign-in; `secret_key` is its setting in [engine].
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
        granted: dict[str, Any] = library.parse_request_body_response(answer)
    except OAuth2Error as error:
        # A description may quote what was sent.
        raise _refusal(client, str(error.error)) from None
    except ValueError as error:
        raise _no_token(str(error)) from None
    if str(granted.get("token_type", "Bearer")).lower() != "bearer":
        raise _no_token("its token is not of type Bearer")
    token = granted["access_token"]
    if not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
        raise _no_token("no header can carry its token")
    return Token(f"Bearer {token}", granted.get("expires_in"))


def _request(client: Client, body: Callable[..., str]) -> tuple[str, dict[str, str]]:
    secret = client.secret()
    more = {"audience": client.audience} if client.audience else {}
    if client.in_body:
        form = body(scope=client.scope, include_client_id=True, client_secret=secret, **more)
        return form, {}
    # Both are encoded before they are joined (RFC 6749, 2.3.1).
    header = basic(quote(client.client_id, safe=""), quote(secret, safe=""))
    return body(scope=client.scope, **more), {"Authorization": header}


def _answer(client: Client, form: str, headers: Mapping[str, str]) -> str:
    """The JSON object that came back, be it a token or an error."""
    try:
        connection = Connection(client.endpoint)
        try:
            response = connection.post_form(client.path, form, headers)
        finally:
            connection.close()
    except CALL_ERRORS as error:
        meaning = translated(error)
        if isinstance(meaning, EngineMisconfigured):
            raise meaning from error
        raise SignInUnavailable(str(meaning)) from error
    status, text = response.status, response.data.decode(errors="replace")
    if status >= 500 or status in {408, 429}:
        later = response.headers.get("Retry-After", "")
        seconds = float(later) if later.isdecimal() else 0.0
        raise SignInUnavailable(f"{status}, it is busy or away", retry_after=seconds)
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    wanted = {"error", "access_token"} if status == 200 else {"error"}
    if not isinstance(answer, dict) or wanted.isdisjoint(answer):
        raise _no_token(f"it answers {status} with neither a token nor an error")
    return text


def _refusal(client: Client, error: str) -> SecretUnusable:
    word = error if _WORD.fullmatch(error) else "a refusal"
    cure = f"correct oauth2_client_id and {client.secret_key}"
    key, cure = _CURES.get(word, (client.secret_key, cure))
    return SecretUnusable(key, f"does not suit the authorization server ({word})", cure)


def _no_token(why: str) -> SecretUnusable:
    what = f"is not the address of a token endpoint: {why}"
    return SecretUnusable("oauth2_token_url", what, "correct the address")
