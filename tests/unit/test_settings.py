"""Settings: every mistake is one clear sentence at start, and no secret is ever shown."""

import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from bridge.errors import SettingsError
from bridge.settings import Settings, duration_text, load, parse_duration, read_token_keys
from bridge.settings.model import ServiceKeys, TopicKeys
from bridge.settings.names import is_creatable, result_queue
from bridge.settings.source import TABLES

EXAMPLE = Path(__file__).parents[2] / "deploy" / "bridge.toml"
ONE_TOPIC = {"BRIDGE_TOPICS": "a"}
SECRET = "s3cr3t-value"

Load = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Load TOML text, with one topic from the environment."""

    def read(text: str, environ: Mapping[str, str] = ONE_TOPIC) -> Settings:
        config = tmp_path / "bridge.toml"
        config.write_text(text, encoding="utf-8")
        return load(config, environ)

    return read


@pytest.fixture
def problems(read: Load) -> Callable[..., tuple[str, ...]]:
    """The problems of TOML text."""

    def problems(text: str, environ: Mapping[str, str] = ONE_TOPIC) -> tuple[str, ...]:
        with pytest.raises(SettingsError) as refused:
            read(text, environ)
        return refused.value.problems

    return problems


Problems = Callable[..., tuple[str, ...]]


# What a good configuration becomes


@pytest.mark.parametrize("reply", ["celery", "none"])
def test_a_task_of_celery_may_answer_or_not(read: Load, reply: str) -> None:
    """One with `ignore_result` never does, and is named and called like any other."""
    settings = read(f'[topics.a]\nreply = "{reply}"\ncelery_task = "shop.log"')

    topic = settings.topics["a"]
    assert (topic.reply, topic.celery_task) == (reply, "shop.log")


def test_a_topic_alone_is_a_complete_configuration() -> None:
    """The first start needs no file: BRIDGE_TOPICS and everything local."""
    settings = load(None, {"BRIDGE_TOPICS": "demo-worker, payment"})
    topic = settings.topics["demo-worker"]

    assert list(settings.topics) == ["demo-worker", "payment"]
    assert (topic.name, topic.queue, topic.routing_key) == ("demo-worker",) * 3
    assert topic.result_queue == "demo-worker.results"
    assert settings.broker.amqp_urls() == ("amqp://guest:guest@localhost:5672/%2F",)
    assert settings.status.address == ("127.0.0.1", 9464)
    assert read_token_keys(settings) == (None, None)


def test_environment_wins_over_file_and_file_over_defaults(read: Load) -> None:
    """A container image carries the file; one deployment changes one key."""
    text = '[engine]\nurl = "http://file"\ncallers = 3\n[broker]\nprefetch = 7'
    settings = read(text, {**ONE_TOPIC, "BRIDGE_ENGINE__URL": "http://environment/"})

    assert settings.engine.url == "http://environment"
    assert settings.engine.callers == 3
    assert settings.broker.prefetch == 7
    assert settings.broker.parked_max == 10_000


def test_the_environment_gives_every_scalar_type(read: Load) -> None:
    """The environment has only text; each key says what the text means."""
    environ = {
        **ONE_TOPIC,
        "BRIDGE_WORKER_ID": "other",
        "BRIDGE_RENEW_WARN": "2.5",
        "BRIDGE_ENGINE__USE_PRIORITY": "false",
        "BRIDGE_ENGINE__READ_TIMEOUT": "1500ms",
        "BRIDGE_BROKER__URLS": "amqp://one, amqps://two",
        "BRIDGE_TOPIC_DEFAULTS__RETRIES": "5",
        "BRIDGE_TOPIC_DEFAULTS__RETRY_PAUSES": "1s,2s",
        "BRIDGE_TOPIC_DEFAULTS__VARIABLES": "x",
    }
    settings = read("", environ)

    assert settings.worker_id == "other"
    assert settings.renew_warn == 2.5
    assert settings.engine.use_priority is False
    assert settings.engine.read_timeout == timedelta(seconds=1.5)
    assert settings.broker.amqp_urls() == (
        "amqp://guest:guest@one",
        "amqps://guest:guest@two",
    )
    assert settings.topics["a"].retries == 5
    assert settings.topics["a"].retry_pauses == (timedelta(seconds=1), timedelta(seconds=2))
    assert settings.topics["a"].variables == ("x",)


def test_a_topic_overrides_topic_defaults_key_by_key(read: Load) -> None:
    """Also back to what the default was: a key that is written counts."""
    text = """
    [topic_defaults]
    retries = 9
    body = "variables"
    [topics.a]
    retries = 3
    [topics.b]
    """
    topics = read(text).topics

    assert [topics[name].retries for name in "ab"] == [3, 9]
    assert [topics[name].body for name in "ab"] == ["variables", "variables"]


def test_environment_topics_are_added_to_those_of_the_file(read: Load) -> None:
    """A topic with a table keeps its table."""
    settings = read("[topics.a]\nretries = 7\n[topics.b]", {"BRIDGE_TOPICS": "a,c"})

    assert list(settings.topics) == ["a", "b", "c"]
    assert settings.topics["a"].retries == 7


def test_no_variables_and_all_variables_differ(read: Load) -> None:
    """The engine reads an absent list as all and an empty one as none."""
    topics = read("[topics.a]\nvariables = []\nallowed_variables = []\n[topics.b]").topics

    assert (topics["a"].variables, topics["a"].allowed_variables) == ((), ())
    assert (topics["b"].variables, topics["b"].allowed_variables) == (None, None)


def test_queue_and_routing_key_are_resolved(read: Load) -> None:
    """The publisher loops over topics and needs no rule of its own."""
    text = """
    [topics.mapped]
    queue = "payments"
    [topics.exchanged]
    exchange = "tasks"
    routing_key = "{topicName}.{tenantId}"
    [topics."with space"]
    queue = "spaced"
    """
    topics = read(text, {}).topics

    mapped, exchanged, spaced = topics["mapped"], topics["exchanged"], topics["with space"]
    assert (mapped.queue, mapped.routing_key) == ("payments", "payments")
    assert mapped.result_queue == "mapped.results"
    assert exchanged.routing_key == "{topicName}.{tenantId}"
    assert spaced.result_queue == "spaced.results"


def test_credentials_are_merged_into_every_amqp_url(read: Load) -> None:
    """Secrets live in files, addresses in the settings; special characters survive."""
    text = """
    [broker]
    urls = ["amqp://one/%2F", "amqps://x:y@[::1]:5671/shop"]
    username = "b@r"
    password = "p/w:é"
    """
    assert read(text).broker.amqp_urls() == (
        "amqp://b%40r:p%2Fw%3A%C3%A9@one/%2F",
        "amqps://b%40r:p%2Fw%3A%C3%A9@[::1]:5671/shop",
    )


def test_a_password_alone_keeps_the_user_of_the_url(read: Load) -> None:
    """Each key overrides only its own part."""
    broker = read('[broker]\nurl = "amqp://u%40:old@h"\npassword = "new"').broker

    assert broker.amqp_urls() == ("amqp://u%40:new@h",)


@pytest.mark.parametrize(
    ("listen", "address"),
    [("", None), ("0.0.0.0:0", ("0.0.0.0", 0)), ("[::1]:9464", ("::1", 9464))],
)
def test_the_status_address_is_taken_apart(
    read: Load, listen: str, address: tuple[str, int] | None
) -> None:
    """Port 0 lets the system choose, an empty text listens nowhere."""
    assert read(f'[status]\nlisten = "{listen}"').status.address == address


def test_settings_are_frozen(read: Load) -> None:
    """Modules keep values; a changed setting would be believed by some of them only."""
    settings = read("")

    with pytest.raises(ValidationError):
        settings.worker_id = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.topics["a"].retries = 1  # type: ignore[misc]


@given(st.integers(1, 10**10))
def test_a_duration_survives_being_written_and_read(ms: int) -> None:
    """Messages show durations in the very form that the file takes."""
    value = timedelta(milliseconds=ms)

    assert parse_duration(duration_text(value)) == value


@pytest.mark.parametrize("text", ["5", "", "s", "-5s", "5 s", "5S", "1h30m", "٣s", "5s\n", "inf s"])
def test_a_duration_without_one_number_and_one_unit_is_refused(text: str) -> None:
    """Seconds or milliseconds is the classic way to be wrong by a factor of 1000."""
    with pytest.raises(ValueError, match="unit"):
        parse_duration(text)


# Secret files


def test_passwords_are_read_from_files_without_their_line_end(read: Load, tmp_path: Path) -> None:
    """Editors and `echo` end a file with a newline that is not part of the secret."""
    (tmp_path / "e").write_bytes(b"engine pw\n")
    (tmp_path / "b").write_bytes(b"broker pw\r\n")
    text = f"""
    [engine]
    username = "u"
    password_file = "{tmp_path}/e"
    [broker]
    username = "u"
    password_file = "{tmp_path}/b"
    """
    settings = read(text)

    assert settings.engine.password == SecretStr("engine pw")
    assert settings.broker.amqp_urls() == ("amqp://u:broker%20pw@localhost:5672/%2F",)


def test_a_token_endpoint_keeps_its_slash_and_its_query(read: Load) -> None:
    """Unlike the engine's address: it is asked as it is, and some servers have no other."""
    url = "https://sso.example/application/o/token/?p=policy"
    secret = 'oauth2_client_id = "c"\noauth2_client_secret = "s"'

    assert read(f'[engine]\noauth2_token_url = "{url}"\n{secret}').engine.oauth2_token_url == url


def test_an_environment_secret_replaces_the_other_kind_in_the_file(read: Load) -> None:
    """Whoever sets one of two alternatives in the environment means it instead of the other."""
    text = '[engine]\nusername = "u"\npassword_file = "/absent"\n[broker]\nurls = ["amqp://x"]'
    environ = {
        **ONE_TOPIC,
        "BRIDGE_ENGINE__PASSWORD": "p",
        "BRIDGE_BROKER__URL": "amqp://u:p@y",
    }
    settings = read(text, environ)

    assert settings.engine.password == SecretStr("p")
    assert settings.broker.amqp_urls() == ("amqp://u:p@y",)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), (b"\n", "is empty"), (b"a\nb", "one line"), (b"\xff", "one line")],
)
def test_an_unusable_password_file_is_named(
    problems: Problems, tmp_path: Path, content: bytes | None, says: str
) -> None:
    """A forgotten mount is the most common mistake in a cluster."""
    if content is not None:
        (tmp_path / "pw").write_bytes(content)
    text = f'[engine]\nusername = "u"\npassword_file = "{tmp_path}/pw"'

    (problem,) = problems(text)

    assert problem.startswith(f"engine.password_file: {tmp_path}/pw ")
    assert says in problem


@pytest.mark.parametrize("table", ["engine", "broker"])
@pytest.mark.parametrize("key", ["ca_file", "client_cert_file"])
def test_a_missing_certificate_file_is_named(problems: Problems, table: str, key: str) -> None:
    """Otherwise it shows only at the first connection, as an obscure TLS error."""
    assert problems(f'[{table}]\n{key} = "/absent.pem"') == (
        f"{table}.{key}: /absent.pem cannot be read (No such file or directory); "
        "name a readable file",
    )


def test_token_keys_are_read_and_short_ones_refused(
    read: Load, problems: Problems, tmp_path: Path
) -> None:
    """A short key can be guessed; the cure is the command that makes a good one."""
    key = tmp_path / "key"
    text = f'token_key_file = "{key}"'
    key.write_bytes(b"x" * 32 + b"\n")
    settings = read(text)

    assert read_token_keys(settings) == (b"x" * 32, None)
    key.write_bytes(b"x" * 31 + b"\n")
    assert problems(text) == (
        f"token_key_file: {key} holds 31 bytes, a key has at least 32; "
        "make one by: openssl rand -base64 32 > key",
    )
    with pytest.raises(SettingsError, match="31 bytes"):
        read_token_keys(settings)


# Mistakes

SIGN_IN = '[engine]\noauth2_token_url = "http://h/token"\noauth2_client_id = "c"'

# Each row: the text, and the start of the one sentence that it must give.
MISTAKES = [
    ('worker_idd = "x"', 'worker_idd: unknown key; did you mean "worker_id"?'),
    ("[topics.pay]\nlese = 1", 'topics.pay.lese: unknown key; did you mean "lease"?'),
    ('[topics."a b"]\nqueue = "q"\nlese = 1', 'topics."a b".lese: unknown key; did you mean'),
    ("[topic_defaults]\nlese = 1", 'topic_defaults.lese: unknown key; did you mean "lease"?'),
    ('[topics.a]\nname = "x"', "topics.a.name: unknown key; remove it"),
    ('[topics.a]\nresult_queue = "x"', "topics.a.result_queue: unknown key"),
    ("[engine]\nprefetch = 1", "engine.prefetch: unknown key; it is a key of broker"),
    ("[status]\nworker_id = 1", "status.worker_id: unknown key; it belongs at the top"),
    ("[engin]", 'engin: unknown key; did you mean "engine"?'),
    ("engine = 1", "engine: a table is wanted, found a whole number; write it as [engine]"),
    ("[topics]\na = 1", "topics.a: a table is wanted, found a whole number"),
    ("[broker]\nprefetch = '5'", "broker.prefetch: a whole number is wanted, found a string"),
    ("[broker]\nprefetch = true", "broker.prefetch: a whole number is wanted, found true or"),
    ("[broker]\nprefetch = 0", "broker.prefetch: at least 1 is wanted, found 0; such as"),
    ("[broker]\nprefetch = -1", "broker.prefetch: at least 1 is wanted, found -1; such as"),
    ("[broker]\nprefetch = 2001", "broker.prefetch: at most 2000 is wanted, found a whole number"),
    ("[engine]\ncallers = 65", "engine.callers: at most 64 is wanted"),
    ("[engine]\nuse_priority = 1", "engine.use_priority: true or false is wanted, found a whole"),
    ("[engine]\nread_timeout = 5", "engine.read_timeout: a duration with its unit is wanted"),
    ('[engine]\nread_timeout = "0s"', "engine.read_timeout: a duration from 1ms"),
    ('[engine]\npoll_timeout = "31m"', "engine.poll_timeout: a duration from 1ms to 30m"),
    ('[engine]\norder = "priority"', 'engine.order: one of "createTime:asc", "createTime:desc"'),
    ("[engine]\nurl = 1979-05-27", "engine.url: a string is wanted, found a date or time"),
    ('[engine]\nurl = "engine:8080"', "engine.url: a URL that begins with http:// or https://"),
    ('[engine]\nurl = "http://u:p@h"', "engine.url: credentials do not belong in this URL"),
    ('[engine]\nurl = "http://h?x=1"', "engine.url: a URL without ? and #"),
    ('[engine]\nusername = ""', "engine.username: a string that is not empty is wanted"),
    ('[engine]\nusername = "u"', "engine.username: a password is wanted too"),
    ('[engine]\npassword = "p"', "engine.password: a user is wanted too"),
    ('[engine]\nclient_key_file = "/etc/hosts"', "engine.client_key_file: only goes with"),
    ('[engine]\nca_file = ""', "engine.ca_file: the path of a file is wanted, found an empty"),
    ('[engine]\nheaders = {"a b" = "x"}', "engine.headers: 'a b' is not the name of an HTTP"),
    ('[engine]\nheaders = {X = "a\\nb"}', "engine.headers: the value of header X must be"),
    ('[engine]\ntoken = "a\\nb"', "engine.token: a token of printable ASCII on one line is wanted"),
    ('[engine]\ntoken = "ä"', "engine.token: a token of printable ASCII on one line is wanted"),
    ("[engine]\nheaders = {X = 1}", "engine.headers.X: a string is wanted, found a whole"),
    (
        '[engine]\nusername = "u"\npassword = "p"\ntoken = "t"',
        "engine.username: the engine takes one kind of credentials, found username and token",
    ),
    (
        '[engine]\ntoken = "t"\nheaders = {authorization = "x"}',
        "engine.token: the engine takes one kind of credentials, found token and headers",
    ),
    ('[engine]\ntoken = "t"\ntoken_file = "/etc/hosts"', "engine.token: cannot stand beside"),
    (
        f'{SIGN_IN}\noauth2_client_secret = "s"\ntoken = "t"',
        "engine.token: the engine takes one kind of credentials, found token and oauth2_token_url",
    ),
    (SIGN_IN, "engine.oauth2_token_url: the client's secret is wanted too"),
    (
        '[engine]\noauth2_token_url = "http://h"\noauth2_client_secret = "s"',
        "engine.oauth2_token_url: a client is wanted too; set oauth2_client_id",
    ),
    (
        f'{SIGN_IN}\noauth2_client_secret = "s"\noauth2_client_secret_file = "/etc/hostname"',
        "engine.oauth2_client_secret: cannot stand beside oauth2_client_secret_file",
    ),
    ('[engine]\noauth2_scope = "s"', "engine.oauth2_scope: only goes with oauth2_token_url"),
    ('[engine]\noauth2_token_url = "h/token"', "engine.oauth2_token_url: a URL that begins"),
    ('[engine]\noauth2_token_url = "http://u:p@h"', "engine.oauth2_token_url: credentials do not"),
    ('[engine]\noauth2_token_url = "http://h/ä"', "engine.oauth2_token_url: a URL of printable"),
    ('[engine]\noauth2_token_url = "http://h?a#b"', "engine.oauth2_token_url: a URL of printable"),
    ('[engine]\noauth2_client_auth = "jwt"', 'engine.oauth2_client_auth: one of "basic" or "post"'),
    ('[broker]\nurl = "http://h"', "broker.url: a URL that begins with amqp:// or amqps://"),
    ('[broker]\nurl = "amqp://h:99999"', "broker.url: a URL that begins with amqp://"),
    ('[broker]\nurl = "amqp://h/a/b"', "broker.url: one virtual host is wanted after the host"),
    ('[broker]\nurl = "amqp://h?heartbeat=5"', "broker.url: a URL without ? and #"),
    ('[broker]\nurls = ["amqp://h", "x"]', "broker.urls[1]: a URL that begins with amqp://"),
    ("[broker]\nurls = []", "broker.urls: at least one address is wanted"),
    ('[broker]\nurl = "amqp://x"\nurls = ["amqp://y"]', "broker.url: cannot stand beside urls"),
    ('[broker]\nusername = "u"', "broker.username: a password is wanted too"),
    ('[broker]\nurl = "amqp://h"\npassword = "p"', "broker.password: a user is wanted too"),
    ('[broker]\nurl = "amqp://u@h"', "broker.url: this URL names a user without a password"),
    ('[broker]\nprefix = "a/b"', "broker.prefix: 1 to 100 letters"),
    ('[broker]\nprefix = "amq"', "broker.prefix: 1 to 100 letters"),
    ('[broker]\ndeclare = "always"', 'broker.declare: one of "missing", "passive" or "never"'),
    ('[broker]\nheartbeat = "61s"', "broker.heartbeat: a duration from 1s to 60s is wanted"),
    ('[broker]\nwait = "500ms"', "broker.wait: a duration from 1s to 49d is wanted"),
    ('[broker]\nmanagement_url = "amqp://h"', "broker.management_url: a URL that begins with"),
    ('[status]\nlisten = "9464"', "status.listen: host:port is wanted"),
    ('[status]\nlisten = "h:70000"', "status.listen: a port from 0 to 65535"),
    ("renew_warn = nan", "renew_warn: a finite number is wanted"),
    ("renew_warn = 0", "renew_warn: more than 0"),
    ('worker_id = ""', "worker_id: a worker id of 1 to 255 bytes"),
    ('worker_id = "a\\nb"', "worker_id: a worker id of 1 to 255 bytes"),
    ('token_key_file_old = "/etc/hosts"', "token_key_file_old: only goes with token_key_file"),
    ("[topics.a]\nretries = 0", "topics.a.retries: at least 1 is wanted"),
    ("[topics.a]\nmax_in_flight = 100001", "topics.a.max_in_flight: at most 100000"),
    ("[topics.a]\nretry_pauses = []", "topics.a.retry_pauses: one that is not empty is wanted"),
    ('[topics.a]\nretry_pauses = ["5s", "1ms"]', "topics.a.retry_pauses[1]: a duration from 1s"),
    ("[topics.a]\nvariables = 'x'", "topics.a.variables: a list is wanted, found a string"),
    ("[topics.a]\ntenant_id_in = []", "topics.a.tenant_id_in: one that is not empty is wanted"),
    ('[topics.a]\nbody = "variable:"', 'topics.a.body: "task", "variables" or "variable:<name>"'),
    ('[topics.a]\nreply = "xml"', 'topics.a.reply: one of "json", "celery", "spring" or "none"'),
    ('[topics.a]\nreply = "celery"', "topics.a.celery_task: the name of the task is wanted"),
    ('[topics.a]\ncelery_task = "t"', 'topics.a.celery_task: only goes with reply = "celery"'),
    ('[topics.a]\nrouting_key = "k"', "topics.a.routing_key: only goes with exchange"),
    (
        '[topics.a]\nexchange = "e"\nrouting_key = "{businessKey}"',
        "topics.a.routing_key: only {tenantId}, {processDefinitionKey}, {topicName} may stand",
    ),
    ('[topics.a]\nexchange = "bridge.gone"', "topics.a.exchange: this exchange is the bridge's"),
    (
        '[topics.a]\nwithout_tenant_id = true\ntenant_id_in = ["x"]',
        "topics.a.without_tenant_id: cannot stand beside tenant_id_in",
    ),
    (
        "[topics.a.process_variables]\nx = [1]",
        "topics.a.process_variables.x: a string, a number of at most 64 bits, true or false",
    ),
    ("[topics.a.process_variables]\nx = inf", "topics.a.process_variables.x: a string, a number"),
    ('[topics.a]\nqueue = "a b"', "topics.a.queue: the name of a queue is wanted"),
    ('[topics."a b"]', "topics.\"a b\": topic 'a b' cannot name its queue"),
    ("[topics.'amq.x']", "topics.\"amq.x\": topic 'amq.x' cannot name its queue"),
    ('[topics."a\\nb"]\nqueue = "q"', 'topics."a\\nb": a topic\'s name has 1 to 255'),
    (
        '[topics.a]\npublish_window = "30s"',
        "topics.a.publish_window: more than 2 x (broker.heartbeat + 5s) = 30s is wanted, found 30s",
    ),
    (
        '[topics.a]\nlease = "9m"',
        "topics.a.lease: at least 10 x publish_window = 10m is wanted, found 9m",
    ),
    ('[topics.a]\nlease_after = "30s"', "topics.a.lease_after: less than half of publish_window"),
    ('[topics.a]\ndeadline = "19m"', "topics.a.deadline: at least 2 x lease = 20m is wanted"),
    ('[topics.a]\ndeadline = "50d"', "topics.a.deadline: a duration from 1s to 49d is wanted"),
    ('[topics.a]\n[topics.b]\nqueue = "a"', "topics.b.queue: queue 'a' would serve tasks of"),
    ('[topics.b]\nqueue = "a.results"', "topics.b.queue: queue 'a.results' would serve"),
    ('[topics.b]\nqueue = "bridge.wait"', "topics.b.queue: queue 'bridge.wait' would serve"),
    ("[topics.'bridge.parked']", "topics.\"bridge.parked\".queue: queue 'bridge.parked' would"),
]


@pytest.mark.parametrize(("text", "sentence"), MISTAKES, ids=[m[1][:40] for m in MISTAKES])
def test_each_mistake_is_one_sentence_with_its_key(
    problems: Problems, text: str, sentence: str
) -> None:
    """Whoever reads it corrects the file without opening the manual."""
    (problem,) = problems(text)

    assert problem.startswith(sentence)


def test_all_mistakes_are_told_at_once(problems: Problems) -> None:
    """One run, one list: also rules between keys beside wrong types elsewhere in a table."""
    text = """
    worker_id = 5
    [topic_defaults]
    lease = "1m"
    [topics.a]
    retries = "3"
    celery_task = "x"
    """
    keys = [p.split(": ")[0] for p in problems(text, {**ONE_TOPIC, "BRIDGE_X": ""})]

    assert keys == [
        "BRIDGE_X",
        "worker_id",
        "topics.a.retries",
        "topic_defaults.lease",
        "topics.a.celery_task",
    ]


def test_a_mistake_in_the_defaults_is_told_once_and_where_it_stands(problems: Problems) -> None:
    """Twenty topics that inherit one wrong lease are one mistake."""
    text = '[topic_defaults]\nlease = "1m"\n[topics.a]\n[topics.b]\n[topics.c]'

    (problem,) = problems(text)

    assert problem.startswith("topic_defaults.lease: at least 10 x publish_window")


@pytest.mark.parametrize("table", ["topic_defaults", "topics.a"])
def test_a_broken_value_breaks_no_second_rule(problems: Problems, table: str) -> None:
    """A follow-up complaint about a value that stands nowhere sends people astray."""
    (problem,) = problems(f'[{table}]\nlease = "20h"\npublish_window = "1h"\ndeadline = 5')

    assert problem.startswith(f"{table}.deadline: a duration")


def test_a_mistake_in_the_environment_is_named_by_its_variable(problems: Problems) -> None:
    """The path in the file would send people to the wrong place."""
    environ = {
        **ONE_TOPIC,
        "BRIDGE_BROKER__PREFETCH": "many",
        "BRIDGE_TOPIC_DEFAULTS__LEASE": "1m",
        "BRIDGE_BROKER__URLS": "amqp://h,x",
    }
    starts = [problem.split(" is wanted")[0] for problem in problems("", environ)]

    assert starts == [
        "BRIDGE_BROKER__URLS: a URL that begins with amqp:// or amqps:// and names a host",
        "BRIDGE_BROKER__PREFETCH: a whole number",
        "BRIDGE_TOPIC_DEFAULTS__LEASE: at least 10 x publish_window = 10m",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("BRIDGE_ENGINE__URI", "did you mean BRIDGE_ENGINE__URL?"),
        ("BRIDGE_ENGINE_URL", "did you mean BRIDGE_ENGINE__URL?"),
        ("BRIDGE_WORKERID", "did you mean BRIDGE_WORKER_ID?"),
        ("BRIDGE_engine__url", "did you mean BRIDGE_ENGINE__URL?"),
        ("BRIDGE_TOPICS__PAY__LEASE", "tables of topics cannot come from the environment"),
        ("BRIDGE_ENGINE__HEADERS", "a table cannot come from the environment"),
        ("BRIDGE_SERVICE__HOST", "unknown variable of the environment"),
        ("BRIDGE_ZZZ", "remove it"),
        ("BRIDGE_BROKER_PORT", "unknown variable"),
    ],
)
def test_an_unknown_variable_is_a_mistake_with_the_nearest_name(
    problems: Problems, name: str, says: str
) -> None:
    """A mistyped variable that is silently ignored costs an evening."""
    (problem,) = problems("", {**ONE_TOPIC, name: "5672"})

    assert problem.startswith(f"{name}: ")
    assert says in problem


def test_what_kubernetes_injects_is_not_a_mistake(read: Load) -> None:
    """A Service named bridge, or bridge-metrics, in the namespace must not stop the pod."""
    environ = {
        "BRIDGE_SERVICE_HOST": "10.0.0.1",
        "BRIDGE_SERVICE_PORT": "80",
        "BRIDGE_SERVICE_PORT_HTTP": "80",
        "BRIDGE_PORT": "tcp://10.0.0.1:80",
        "BRIDGE_PORT_80_TCP_ADDR": "10.0.0.1",
        "BRIDGE_METRICS_SERVICE_HOST": "10.0.0.2",
        "BRIDGE_METRICS_PORT": "tcp://10.0.0.2:80",
        "BRIDGE_METRICS_PORT_80_TCP": "tcp://10.0.0.2:80",
        "BRIDGE_CACHE": "x",
        "PATH": "x",
    }
    assert list(read("", {**ONE_TOPIC, **environ}).topics) == ["a"]


def test_without_a_topic_nothing_starts(problems: Problems) -> None:
    """A bridge without topics would look healthy and do nothing."""
    (problem,) = problems("", {})

    assert problem.startswith("topics: at least one topic is wanted")


def test_a_file_that_is_missing_or_no_toml_is_one_sentence(
    problems: Problems, tmp_path: Path
) -> None:
    """The line of the error is what the person needs."""
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read \(No such file"):
        load(tmp_path / "absent.toml", ONE_TOPIC)
    (problem,) = problems("worker_id = 'x'\nstop_grace = =\n")

    assert "is not valid TOML" in problem
    assert "line 2" in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[topics.""]', 'topics."": a topic\'s name has 1 to 255 bytes'),
        ('[topics."\\u0000"]', "a topic's name has 1 to 255 bytes and no control characters"),
        (f"[topics.{'a' * 256}]", "a topic's name has 1 to 255 bytes"),
        (f"[topics.{'a' * 250}]", "the name cannot be that of a queue; set queue"),
        ('token_key_file = "\\u0000"\n[topics.a]', "token_key_file: a path without control"),
        (f"renew_warn = {'9' * 5000}\n[topics.a]", "a number of thousands of digits"),
        (f"a = {'[' * 20_000}{']' * 20_000}\n[topics.a]", "or a nesting as deep"),
    ],
)
def test_what_no_reader_expects_is_one_sentence(problems: Problems, text: str, said: str) -> None:
    """A reload reads whatever lies there while tasks flow."""
    (problem,) = problems(text, {})

    assert said in problem


def test_a_file_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    """TOML is UTF-8 by definition; an editor's old code page is a common surprise."""
    (tmp_path / "b.toml").write_bytes(b'worker_id = "\xe4"')

    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load(tmp_path / "b.toml", ONE_TOPIC)


# Secrets


def test_settings_never_show_a_secret(read: Load) -> None:
    """They end up in logs, tracebacks and `config show`."""
    text = f"""
    [engine]
    username = "u"
    password = "{SECRET}"
    headers = {{ X-Key = "{SECRET}" }}
    [broker]
    urls = ["amqp://u:{SECRET}@h"]
    password = "{SECRET}"
    """
    settings = read(text)

    for shown in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown
    assert SECRET in settings.broker.amqp_urls()[0]


def _keys() -> list[tuple[str, str]]:
    tables: dict[str, type[BaseModel]] = {"": ServiceKeys, **TABLES, "topics.a": TopicKeys}
    return [(table, key) for table, model in tables.items() for key in model.model_fields]


@pytest.mark.parametrize(
    "value", [f'"\\n{SECRET}"', f'["\\n{SECRET}", 5]', f'{{"a b" = "{SECRET}"}}']
)
@pytest.mark.parametrize(("table", "key"), _keys())
def test_no_problem_repeats_a_value(read: Load, table: str, key: str, value: str) -> None:
    """Passwords are put into the wrong key sooner or later; the message goes to a log."""
    header = f"[{table}]\n" if table else ""

    try:
        read(f"{header}{key} = {value}")
    except SettingsError as error:
        # Paths and queue names are shown on purpose: without them nobody finds the mistake.
        shown = [p for p in error.problems if "cannot be read" not in p]
        assert SECRET not in "\n".join(shown)


# The example


def _uncommented() -> list[str]:
    return re.findall(r"^# ([a-z0-9_]+ = .*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)


def _tables_of_example(text: str) -> dict[str, set[str]]:
    """Which keys, commented or not, stand in which table of the example."""
    tables: dict[str, set[str]] = {"": set()}
    table = ""
    for line in text.splitlines():
        if header := re.match(r"\[([^\]]+)\]", line):
            table = header[1]
            tables[table] = set()
        elif key := re.match(r"(?:# )?([a-z0-9_]+) = ", line):
            tables[table].add(key[1])
    return tables


def test_the_example_shows_every_key_in_its_table_and_no_other() -> None:
    """It is the reference that people copy from."""
    shown = _tables_of_example(EXAMPLE.read_text(encoding="utf-8"))

    assert shown[""] == set(ServiceKeys.model_fields)
    for table, model in TABLES.items():
        assert shown[table] == set(model.model_fields), table


def test_the_example_shows_the_defaults() -> None:
    """Copying a line unchanged must change nothing."""
    text = EXAMPLE.read_text(encoding="utf-8")
    tree = tomllib.loads(text)
    example, bare = load(EXAMPLE, {}), load(None, {"BRIDGE_TOPICS": "demo-worker"})

    assert example.topics["demo-worker"] == bare.topics["demo-worker"]
    assert example.broker == bare.broker
    for part in ("engine", "status"):
        assert getattr(example, part) == getattr(bare, part)
    assert {k: getattr(example, k) for k in ServiceKeys.model_fields} == {
        k: getattr(bare, k) for k in ServiceKeys.model_fields
    }
    assert set(tree["topic_defaults"]) < set(TopicKeys.model_fields)


def test_every_commented_line_of_the_example_can_be_used(problems: Problems) -> None:
    """With all of them at once, only true alternatives and absent files may be complained of."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for line in _uncommented():
        text = text.replace(f"# {line}", line)

    complaints = {problem.partition(": ")[0] for problem in problems(text, {})}
    reasons = [p for p in problems(text, {}) if "unknown" in p or "is wanted" in p]

    assert reasons == []
    assert {key.rpartition(".")[2] for key in complaints} <= {
        "celery_task",
        "client_cert_file",
        "client_key_file",
        "ca_file",
        "oauth2_client_secret",
        "oauth2_client_secret_file",
        "password",
        "password_file",
        "queue",
        "routing_key",
        "token",
        "token_file",
        "token_key_file",
        "token_key_file_old",
        "url",
        "username",
    }


# Names


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 201, "amq.x", "a\n", "a*"])
def test_a_name_that_does_not_suit_a_queue_is_not_created(name: str) -> None:
    """RabbitMQ would take some of them, permission patterns and URLs would not."""
    assert not is_creatable(name)
    assert result_queue(name, "q") == "q.results"


@pytest.mark.parametrize("name", ["a", "payment-processing", "Shop.Pay:v1_x", "x" * 200])
def test_an_ordinary_name_is_created_as_it_is(name: str) -> None:
    """Case is kept: RabbitMQ tells Payment from payment."""
    assert is_creatable(name)
    assert result_queue(name, "q") == f"{name}.results"


def test_a_foreign_queue_may_have_any_name_where_nothing_is_declared(read: Load) -> None:
    """An existing queue cannot be renamed for the bridge's sake."""
    text = '[broker]\ndeclare = "passive"\n[topics.x]\nqueue = "Zahlungen/Büro 1"'

    assert read(text).topics["x"].queue == "Zahlungen/Büro 1"


@pytest.mark.parametrize("name", ["#", "pay.*", "*.pay", "a.#.b"])
def test_a_topic_that_would_bind_others_results_is_refused(problems: Problems, name: str) -> None:
    """Its key at the results exchange would be a pattern."""
    (problem,) = problems(f'[topics."{name}"]\nqueue = "pay"')

    assert problem.startswith(f'topics."{name}": ')
    assert "would receive the results of others" in problem
