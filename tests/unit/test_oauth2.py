"""Signing in at an authorization server: one token for all calls, in time, and one clear error."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import plan
from bridge.check import advice
from bridge.check import engine as look
from bridge.engine import EngineClient, EngineClock, oauth2
from bridge.engine.auth import SecretUnusable, SignInUnavailable
from bridge.engine.connection import HttpOptions
from bridge.engine.http import EngineHttp
from bridge.engine.oauth2 import REFUSED_PAUSE_SECONDS, RENEWAL, ClientCredentials, Token
from bridge.errors import EngineError, EngineUnauthorized
from bridge.settings import Settings, known_secrets, load
from bridge.simulated_engine import SimulatedEngine
from tests.support.authorization import AuthorizationServer, TokenGate
from tests.support.bridge import toml
from tests.support.tls import Authority
from tests.support.waiting import eventually

SECRET = "s3cret of the client: 100% ä+/"


# When a token is fetched: pure state, with a clock in hand


class Issuer:
    """Gives numbered tokens; fails while `problem` is set."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.now = 1000.0
        self.given = self.failed = 0
        self.problem: EngineError | None = None

    def __call__(self) -> Token:
        if self.problem is not None:
            self.failed += 1
            raise self.problem
        self.given += 1
        return Token(f"Bearer {self.given}", self.seconds)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(100)


@pytest.fixture
def auth(issuer: Issuer) -> ClientCredentials:
    return ClientCredentials(issuer, lambda: issuer.now)


def renewals_ended() -> None:
    """The clock in hand stands still while a renewal runs in its thread."""
    for thread in threading.enumerate():
        if thread.name == RENEWAL:
            thread.join(20)
            assert not thread.is_alive()


def test_one_token_serves_many_calls(issuer: Issuer, auth: ClientCredentials) -> None:
    """Signing in for every call would double the calls."""
    assert {auth() for _ in range(1000)} == {"Bearer 1"}
    assert issuer.given == 1


@pytest.mark.parametrize(("seconds", "renewed_after"), [(3600, 3540), (100, 75), (4, 3)])
def test_a_token_is_renewed_before_it_expires(
    issuer: Issuer, auth: ClientCredentials, seconds: float, renewed_after: float
) -> None:
    """A minute before, or at three quarters of a short life: a call on its way needs it still."""
    issuer.seconds = seconds
    auth()

    issuer.now += renewed_after - 0.5
    before = auth()
    renewals_ended()
    given = issuer.given
    issuer.now += 1
    auth()
    renewals_ended()

    assert (before, given, auth(), issuer.given) == ("Bearer 1", 1, "Bearer 2", 2)


def test_a_token_without_a_life_is_used_until_it_is_refused(
    issuer: Issuer, auth: ClientCredentials
) -> None:
    """`expires_in` is only recommended (RFC 6749, 5.1)."""
    issuer.seconds = None
    auth()
    issuer.now += 10**9

    assert auth() == "Bearer 1"
    assert auth.renewed("Bearer 1")
    assert auth() == "Bearer 2"


def test_a_life_of_no_time_does_not_ask_for_every_call(
    issuer: Issuer, auth: ClientCredentials
) -> None:
    """A server with a clock that is off must not be flooded by this one."""
    issuer.seconds = 0

    assert {auth() for _ in range(100)} == {"Bearer 1"}


def test_a_failed_renewal_leaves_the_token_that_still_serves(
    issuer: Issuer, auth: ClientCredentials
) -> None:
    """A restart of the authorization server within the last minute is not noticed by anybody."""
    auth()
    issuer.problem = SignInUnavailable("no connection")
    issuer.now += 80
    with capture_logs() as lines:
        for _ in range(150):
            assert auth() == "Bearer 1"
            renewals_ended()
            issuer.now += 0.1

    issuer.problem = None
    issuer.now += 2
    auth()
    renewals_ended()

    assert auth() == "Bearer 2"
    assert [line["event"] for line in lines] == ["token not renewed"]
    assert 3 <= issuer.failed <= 10


def test_an_expired_token_is_not_used(issuer: Issuer, auth: ClientCredentials) -> None:
    """What ails the sign-in is the better answer than the engine's 401."""
    auth()
    issuer.now += 101
    issuer.problem = SignInUnavailable("no connection")

    with pytest.raises(SignInUnavailable):
        auth()


def test_a_revoked_token_is_replaced_once_in_a_while(
    issuer: Issuer, auth: ClientCredentials
) -> None:
    """An engine that takes no token at all must not cost one token per call."""
    issuer.seconds = 3600
    auth()

    first = auth.renewed("Bearer 1")
    assert auth() == "Bearer 2"
    again = auth.renewed("Bearer 2")
    issuer.now += REFUSED_PAUSE_SECONDS
    later = auth.renewed("Bearer 2")

    assert (first, again, later) == (True, False, True)


def test_who_was_refused_with_an_older_token_takes_the_new_one(
    issuer: Issuer, auth: ClientCredentials
) -> None:
    """Ten calls with one revoked token need one sign-in."""
    auth()
    auth.renewed("Bearer 1")
    auth()

    assert all(auth.renewed("Bearer 1") for _ in range(10))
    assert (auth(), issuer.given) == ("Bearer 2", 2)


def test_callers_share_one_sign_in_and_its_outcome() -> None:
    """At start, and after an outage, hundreds of results want to be reported at once."""
    begun, go = threading.Event(), threading.Event()
    problems: list[EngineError] = [SignInUnavailable("no connection")]
    asked = 0

    def sign_in() -> Token:
        nonlocal asked
        asked += 1
        begun.set()
        assert go.wait(20)
        if problems:
            raise problems[0]
        return Token("Bearer 1", 100)

    auth = ClientCredentials(sign_in, lambda: 1.0)

    def outcome() -> str:
        try:
            return auth()
        except SignInUnavailable:
            return "away"

    def all_at_once() -> set[str]:
        begun.clear()
        go.clear()
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(outcome) for _ in range(8)]
            assert begun.wait(20)
            go.set()
            return {one.result(20) for one in running}

    failed = all_at_once()
    asked_while_away = asked
    problems.clear()
    auth = ClientCredentials(sign_in, lambda: 1.0)

    assert (failed, all_at_once()) == ({"away"}, {"Bearer 1"})
    assert (asked_while_away, asked) == (1, 2)


class Renewing:
    """A holder of `Bearer 1`, good until 100, whose renewal hangs until `go` is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.begun, self.go = threading.Event(), threading.Event()
        self.asked = 0
        self.problem: Exception | None = None
        self.auth = ClientCredentials(self.sign_in, lambda: self.now)

    def sign_in(self) -> Token:
        self.asked += 1
        asked = self.asked
        if asked == 2:
            self.begun.set()
            assert self.go.wait(20)
            if self.problem is not None:
                raise self.problem
        return Token(f"Bearer {asked}", 100)


@pytest.fixture
def renewing() -> Iterator[Renewing]:
    """In the midst of its renewal."""
    renewing = Renewing()
    renewing.auth()
    renewing.now = 80.0
    renewing.auth()
    assert renewing.begun.wait(20)
    yield renewing
    renewing.go.set()
    renewals_ended()


def test_nobody_waits_for_a_renewal_while_the_old_token_serves(renewing: Renewing) -> None:
    """Whoever calls may stand between a task's read and its write, which has one second."""
    meanwhile = {renewing.auth() for _ in range(100)}
    renewing.go.set()
    renewals_ended()

    assert (meanwhile, renewing.auth(), renewing.asked) == ({"Bearer 1"}, "Bearer 2", 2)
    assert RENEWAL not in {thread.name for thread in threading.enumerate()}


def ask_after_the_end(renewing: Renewing) -> str:
    """Ask in another thread once the old token has expired; then let the renewal go on."""
    asking = threading.Event()
    first = threading.get_ident()

    def now() -> float:
        if threading.get_ident() != first:
            asking.set()
        return renewing.now

    renewing.now = 101.0
    renewing.auth._now = now
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(renewing.auth)
        assert asking.wait(20)
        renewing.go.set()
        return asked.result(20)


def test_who_asks_after_the_end_shares_the_renewal(renewing: Renewing) -> None:
    """A second sign-in beside the first would be one for every thread."""
    assert (ask_after_the_end(renewing), renewing.asked) == ("Bearer 2", 2)


def test_who_asks_after_the_end_never_gets_the_old_token(renewing: Renewing) -> None:
    """The renewal failed: its problem is the answer, and not an expired token."""
    renewing.problem = SignInUnavailable("no connection")

    with pytest.raises(SignInUnavailable):
        ask_after_the_end(renewing)

    assert renewing.asked == 2


def test_a_renewal_that_dies_of_anything_is_tried_again(renewing: Renewing) -> None:
    """Its lock left behind would mean that nobody ever signs in again."""
    renewing.problem = ZeroDivisionError("nobody expected that")
    with capture_logs() as lines:
        renewing.go.set()
        renewals_ended()

    renewing.now = 101.0

    assert [line["problem"] for line in lines] == ["ZeroDivisionError"]
    assert renewing.auth() == "Bearer 3"


class Trickle:
    """Answers a sign-in with `head`, and then byte by byte without an end."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listening.close()
        self._thread.join(20)

    def _serve(self) -> None:
        link, _ = self._listening.accept()
        with link:
            try:
                link.sendall(self._head)
                while not self._ended.wait(0.05):
                    link.sendall(b"x")
            except OSError:
                return


@pytest.mark.parametrize(
    ("scheme", "head"),
    [
        ("http", b"HTTP/1.1 200 OK\r\nX-Slow: "),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("https", b"\x16\x03\x03\x40\x00"),
    ],
    ids=["in the head", "in the body", "in the handshake"],
)
def test_a_sign_in_ends_however_slowly_the_answer_trickles_in(scheme: str, head: bytes) -> None:
    """Each byte comes in time, the answer never does; callers without a token wait for it."""
    before = set(threading.enumerate())
    with Trickle(head) as host, ThreadPoolExecutor(1) as pool:
        options = HttpOptions(f"{scheme}://{host}", read_timeout=0.5)
        client = oauth2.Client(options, "/token", "bridge", lambda: SECRET, "oauth2_client_secret")
        signing_in = pool.submit(oauth2.sign_in, client)

        with pytest.raises(SignInUnavailable, match="no answer in time"):
            signing_in.result(20)

        new = set(threading.enumerate()) - before
        assert not [one for one in new if isinstance(one, threading.Timer)]


# With an authorization server of another make, and an engine behind it that asks for its tokens


@pytest.fixture
def server() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as server:
        server.add_client("bridge", SECRET)
        yield server


@pytest.fixture
def gate(server: AuthorizationServer) -> Iterator[TokenGate]:
    with SimulatedEngine() as engine, TokenGate(engine.url, server) as gate:
        yield gate


Given = Callable[..., Settings]


@pytest.fixture
def given(server: AuthorizationServer, gate: TokenGate, tmp_path: Path) -> Given:
    """Settings that sign in as `bridge`; a key of None is left out."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET + "\n", encoding="utf-8")

    def given(**keys: Any) -> Settings:
        engine = {
            "url": gate.url,
            "oauth2_token_url": server.url,
            "oauth2_client_id": "bridge",
            "oauth2_client_secret_file": str(secret_file),
            **keys,
        }
        written = {key: value for key, value in engine.items() if value is not None}
        file = tmp_path / "bridge.toml"
        file.write_text(toml({"engine": written, "topics": {"pay": {}}}), encoding="utf-8")
        return load(file, {})

    return given


def client(settings: Settings) -> EngineClient:
    """One that tries each call once."""
    stopping = threading.Event()
    stopping.set()
    return EngineClient(plan.http_options(settings.engine), "bridge", stopping=stopping)


@pytest.mark.parametrize("how", ["basic", "post"])
def test_the_engine_takes_the_token(
    given: Given, server: AuthorizationServer, gate: TokenGate, how: str
) -> None:
    """However the server wants the secret, which has every awkward character."""
    server.add_client("bridge", SECRET, methods=how)
    engine = client(given(oauth2_client_auth=how))

    versions = {engine.version() for _ in range(20)}

    assert len(versions) == 1
    assert (server.sign_ins, gate.passed, gate.refused) == (1, 20, 0)


def test_scope_and_audience_are_asked_for(given: Given, server: AuthorizationServer) -> None:
    """Some servers give tokens for many services; the engine's is named there."""
    settings = given(oauth2_scope="engine tasks", oauth2_audience="https://engine")
    client(settings).version()

    form = server.forms[0]
    assert (form["scope"], form["audience"]) == ("engine tasks", "https://engine")
    assert "client_secret" not in form


def test_headers_for_the_engine_do_not_go_to_the_authorization_server(
    given: Given, server: AuthorizationServer
) -> None:
    """A gateway's key is nobody else's business."""
    client(given(headers={"X-Gateway-Key": "s3cret"})).version()

    assert "X-Gateway-Key" not in server.headers[0]


def test_a_revoked_token_is_replaced_within_the_call(
    given: Given, server: AuthorizationServer, gate: TokenGate
) -> None:
    """Nobody but the authorization server's log knows of it."""
    engine = client(given())
    engine.version()

    server.revoke_all()
    engine.version()

    assert (server.sign_ins, gate.refused) == (2, 1)


def test_a_revoked_token_is_replaced_within_a_download(
    given: Given, server: AuthorizationServer
) -> None:
    """Contents of files come over the same connection, unread until their size is known."""
    options = plan.http_options(given().engine)
    http = EngineHttp(options, EngineClock(), threading.Event())
    before = http.download("/version", 1000)

    server.revoke_all()

    assert http.download("/version", 1000) == before
    assert http.once("GET", "/version").body == before


def test_a_rotated_secret_is_read_from_its_file(
    given: Given, server: AuthorizationServer, tmp_path: Path
) -> None:
    """No restart: the next sign-in uses it."""
    settings = given()
    engine = client(settings)
    engine.version()

    server.clients["bridge"].secrets = {"another"}
    server.revoke_all()
    with pytest.raises(SecretUnusable, match="invalid_client"):
        engine.version()
    (tmp_path / "secret").write_text("another", encoding="utf-8")

    assert engine.version()


def test_an_engine_that_takes_no_token_is_told_as_401(
    given: Given, server: AuthorizationServer, gate: TokenGate
) -> None:
    """The token is not for this engine; asking for more of them would not help."""
    settings = given()
    with AuthorizationServer() as other:
        gate._tokens = other
        engine = client(settings)
        for _ in range(5):
            with pytest.raises(EngineUnauthorized):
                engine.version()

    assert server.sign_ins == 2


def refused(settings: Settings, error: type[EngineError], key: str, *words: str) -> None:
    """A call ends in `error`, `check` names `key`, both say the words and neither the secret."""
    with pytest.raises(error) as raised:
        client(settings).version()
    found = [finding for finding in look.look(settings) if finding.mark == "problem"]

    assert [finding.key for finding in found] == [f"engine.{key}"]
    assert found[0].cure
    for text in (str(raised.value), raised.value.brief, f"{found[0].text}; {found[0].cure}"):
        assert not [secret for secret in known_secrets(settings) if secret in text]
        assert not [word for word in words if word not in text]


def test_an_authorization_server_that_is_away_is_named(
    given: Given, server: AuthorizationServer, gate: TokenGate
) -> None:
    """Not the engine, which was not even asked: `sent` says that no task was fetched."""
    server.stop()

    with pytest.raises(SignInUnavailable) as error:
        client(given()).version()

    assert not error.value.sent
    words = ("authorization server", "Connection refused")
    refused(given(), SignInUnavailable, "oauth2_token_url", *words)
    assert gate.passed + gate.refused == 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_authorization_server_that_is_busy_is_tried_later(
    given: Given, server: AuthorizationServer, status: int
) -> None:
    """And after as long as it asks for."""
    server.instead = status, {"Retry-After": "7"}, b"later"

    with pytest.raises(SignInUnavailable) as error:
        client(given()).version()

    assert error.value.retry_after == 7
    refused(given(), SignInUnavailable, "oauth2_token_url", "authorization server", str(status))


@pytest.mark.parametrize(
    ("keys", "key", "word"),
    [
        ({"oauth2_client_id": "stranger"}, "oauth2_client_secret_file", "invalid_client"),
        (
            {"oauth2_client_secret_file": None, "oauth2_client_secret": "wrong one"},
            "oauth2_client_secret",
            "invalid_client",
        ),
        ({"oauth2_scope": "everything"}, "oauth2_scope", "invalid_scope"),
    ],
)
def test_what_the_authorization_server_refuses_is_named_with_its_setting(
    given: Given, keys: dict[str, Any], key: str, word: str
) -> None:
    """Its own word for it, and no value."""
    refused(given(**keys), SecretUnusable, key, word)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<h1>no such page</h1>"),
        (200, b"<h1>please log in</h1>"),
        (302, b""),
        (200, b'["a"]'),
        (200, b"{}"),
        (200, b'{"access_token": "x", "token_type": "mac"}'),
        (200, b'{"access_token": "", "token_type": "Bearer"}'),
        (200, '{"access_token": "ä", "token_type": "Bearer"}'.encode()),
        (200, b'{"access_token": {"a": 1}, "token_type": "Bearer"}'),
        (200, b'{"access_token": "x", "token_type": "Bearer", "expires_in": "soon"}'),
        (200, b'{"access_token": "x", "token_type": "Bearer", "expires_in": [1]}'),
        (200, b'{"access_token": "x", "expires_in": Infinity}'),
        (200, b'{"access_token": "x", "expires_in": 1e400}'),
        (200, b'{"access_token": "x", "expires_in": NaN}'),
        (200, b'{"access_token": "x", "expires_in": ' + b"9" * 400 + b"}"),
        (200, b'{"access_token": "x", "expires_in": ' + b"9" * 5000 + b"}"),
        (200, b'{"access_token": "x", "scope": 5}'),
        (200, b'{"access_token": "x", "scope": {}}'),
        (200, b'{"access_token": "x", "token_type": 5}'),
        (200, b'{"access_token": null, "error": null}'),
        (400, b'{"error": null}'),
        (400, b'{"access_token": "x", "error": null}'),
        (200, b"[" * 100_000),
        (200, b'{"access_token": "x", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        (200, b"\xff\xfe"),
    ],
)
def test_what_is_no_token_endpoint_is_one_clear_error(
    given: Given, server: AuthorizationServer, status: int, body: bytes
) -> None:
    """Whatever answers there, no thread dies of it."""
    server.instead = status, JSON, body

    refused(given(), SecretUnusable, "oauth2_token_url")


@pytest.mark.parametrize("name", ["error", "expires_in", "scope", "token_type", "refresh_token"])
def test_a_null_is_as_good_as_nothing(
    given: Given, server: AuthorizationServer, gate: TokenGate, name: str
) -> None:
    """A serializer that writes nulls writes one for the error that there is not."""
    granted = {"access_token": "t", "token_type": "Bearer", "expires_in": 300, name: None}
    server.instead = 200, JSON, json.dumps(granted).encode()
    server.issued({"access_token": "t"})

    assert client(given()).version()
    assert gate.passed == 1


def test_nesting_that_only_the_library_finds_too_deep_ends_no_thread(
    given: Given, server: AuthorizationServer
) -> None:
    """Depth counts from where it is read, and the library reads further down than we do."""
    server.issued({"access_token": "t"})
    outcomes = set()
    for depth in range(500, 1000, 5):
        nested = b"[" * depth + b"]" * depth
        granted = b'{"access_token": "t", "more": ' + nested + b"}"
        server.instead = 200, JSON, granted
        try:
            client(given()).version()
            outcomes.add("served")
        except SecretUnusable as error:
            outcomes.add(error.key)

    assert outcomes == {"served", "engine.oauth2_token_url"}


def test_a_refusal_that_quotes_the_secret_is_not_repeated(
    given: Given, server: AuthorizationServer
) -> None:
    """Descriptions are free text, and so may be the word itself."""
    server.instead = 400, JSON, b'{"error": "' + SECRET.encode() + b'"}'

    refused(given(), SecretUnusable, "oauth2_client_secret_file")


def test_check_says_that_the_token_serves(given: Given) -> None:
    """Both halves: the server gives one, and the engine takes it."""
    findings = list(look.look(given()))

    assert not [finding for finding in findings if finding.mark == "problem"]
    assert [f.text for f in findings if "gives a token that it takes" in f.text]


def test_check_warns_where_the_secret_goes_in_the_clear(given: Given) -> None:
    """On this machine it may; over a network anybody could read it."""

    def warned(url: str) -> bool:
        findings = advice.look(given(oauth2_token_url=url))
        return "engine.oauth2_token_url" in {f.key for f in findings if f.mark == "warning"}

    urls = ("http://sso.example/token", "https://sso.example/token", "http://localhost/token")
    assert [warned(url) for url in urls] == [True, False, False]


def test_the_library_is_loaded_only_where_somebody_signs_in(tmp_path: Path) -> None:
    """Most engines ask for a password or nothing, and a start should be quick."""
    program = "import sys, bridge.service; assert 'oauthlib' not in sys.modules"

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_certificates_of_the_engine_serve_for_signing_in(
    given: Given, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One authority and one client certificate for both, as the settings say."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    with AuthorizationServer(authority.server("good"), str(authority.ca_file)) as server:
        server.add_client("bridge", SECRET)
        pair = authority.client("good")
        ours: dict[str, Any] = {
            "oauth2_token_url": server.url,
            "ca_file": str(authority.ca_file),
            "client_cert_file": str(pair.cert),
            "client_key_file": str(pair.key),
        }
        foreign = {**ours, "ca_file": str(authority.foreign_ca_file)}

        refused(given(**foreign), SignInUnavailable, "ca_file", "certificate verify failed")
        with pytest.raises(EngineUnauthorized):  # signed in, but the engine trusts another server
            client(given(**ours)).version()

        assert eventually(lambda: server.sign_ins) == 2


def test_the_secret_and_its_file_are_kept_out_of_logs(given: Given) -> None:
    """As every other secret of the settings."""
    in_file = known_secrets(given())
    plain = known_secrets(given(oauth2_client_secret_file=None, oauth2_client_secret="in there"))

    assert SECRET in in_file
    assert "in there" in plain
