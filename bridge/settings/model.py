"""The settings as frozen values: every key, its type, default and limits.

Reads no file and no environment, and compares no two keys: `loader` and `checks` do.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from bridge.settings.names import ServiceNames
from bridge.settings.values import (
    AmqpUrl,
    AmqpUrls,
    Body,
    BrokerDuration,
    Count,
    Duration,
    FilePath,
    HttpHeaders,
    HttpUrl,
    ListenAddress,
    LongDurations,
    Name,
    NamePrefix,
    Names,
    ProcessValue,
    QueueName,
    RoutingKey,
    Secret,
    SomeNames,
    Token,
    TokenUrl,
    WorkerId,
    between,
)

_MIB = 1024 * 1024


class Table(BaseModel):
    """A table of the settings file.  Frozen; unknown keys are refused; types are not guessed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class EngineSettings(Table):
    """How to reach the engine's REST API.  Files with secrets are read again."""

    url: HttpUrl = "http://localhost:8080/engine-rest"
    username: Name | None = None
    password: Secret | None = None
    password_file: FilePath | None = None
    token: Token | None = None
    token_file: FilePath | None = None
    oauth2_token_url: TokenUrl | None = None
    oauth2_client_id: Name | None = None
    oauth2_client_secret: Secret | None = None
    oauth2_client_secret_file: FilePath | None = None
    oauth2_client_auth: Literal["basic", "post"] = "basic"
    oauth2_scope: Name | None = None
    oauth2_audience: Name | None = None
    headers: HttpHeaders = Field(default_factory=dict)
    ca_file: FilePath | None = None
    client_cert_file: FilePath | None = None
    client_key_file: FilePath | None = None
    connect_timeout: Duration = timedelta(seconds=3)
    read_timeout: Duration = timedelta(seconds=20)
    # The engine refuses an asyncResponseTimeout beyond 1,800,000 ms.
    poll_timeout: Annotated[Duration, between("1ms", "30m")] = timedelta(seconds=10)
    use_priority: bool = True
    order: Literal["createTime:asc", "createTime:desc", ""] = "createTime:asc"
    callers: Annotated[int, Field(ge=1, le=64)] = 8


class BrokerSettings(Table):
    """How to reach RabbitMQ and what is called what there."""

    url: AmqpUrl = SecretStr("amqp://guest:guest@localhost:5672/%2F")
    urls: AmqpUrls = ()
    username: Name | None = None
    password: Secret | None = None
    password_file: FilePath | None = None
    management_url: HttpUrl | None = None
    prefix: NamePrefix = "bridge"
    declare: Literal["missing", "passive", "never"] = "missing"
    ca_file: FilePath | None = None
    client_cert_file: FilePath | None = None
    client_key_file: FilePath | None = None
    prefetch: Annotated[int, Field(ge=1, le=2000)] = 200
    heartbeat: Annotated[Duration, between("1s", "60s")] = timedelta(seconds=10)
    parked_max: Count = 10_000
    wait: BrokerDuration = timedelta(seconds=60)
    delivery_limit: Count = 20
    max_result_bytes: Count = 16 * _MIB

    @property
    def names(self) -> ServiceNames:
        return ServiceNames(self.prefix)

    def amqp_urls(self) -> tuple[str, ...]:
        """Every address to try, in order, with `username` and `password` in it: never log these."""
        return tuple(self._with_credentials(u.get_secret_value()) for u in self.urls or (self.url,))

    def _with_credentials(self, url: str) -> str:
        parts = urlsplit(url)
        own, _, address = parts.netloc.rpartition("@")
        user, _, password = (own or "guest:guest").partition(":")
        user = self.username or unquote(user)
        password = self.password.get_secret_value() if self.password else unquote(password)
        userinfo = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return parts._replace(netloc=f"{userinfo}@{address}").geturl()


class Address(NamedTuple):
    """Where to listen; port 0 lets the system choose."""

    host: str
    port: int


class StatusSettings(Table):
    """Where health and metrics are served."""

    listen: ListenAddress = "127.0.0.1:9464"

    @property
    def address(self) -> Address | None:
        """None where nothing shall listen."""
        host, _, port = self.listen.rpartition(":")
        return Address(host.strip("[]"), int(port)) if self.listen else None


class TopicKeys(Table):
    """What a table of a topic, or `topic_defaults`, may hold."""

    queue: QueueName = ""
    variables: Names | None = None
    local_variables: bool = False
    business_key: Name | None = None
    process_definition_id: Name | None = None
    process_definition_id_in: SomeNames | None = None
    process_definition_key: Name | None = None
    process_definition_key_in: SomeNames | None = None
    process_definition_version_tag: Name | None = None
    process_variables: Mapping[str, ProcessValue] = Field(default_factory=dict)
    tenant_id_in: SomeNames | None = None
    without_tenant_id: bool = False
    include_extension_properties: bool = False
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 1000
    publish_window: Duration = timedelta(seconds=60)
    lease_after: Duration = timedelta(seconds=5)
    lease: Duration = timedelta(minutes=10)
    deadline: BrokerDuration = timedelta(hours=24)
    retries: Count = 3
    retry_pauses: LongDurations = (
        timedelta(seconds=5),
        timedelta(seconds=30),
        timedelta(minutes=5),
    )
    allowed_variables: Names | None = None
    body: Body = "task"
    reply: Literal["json", "celery", "spring", "none"] = "json"
    celery_task: Name | None = None
    exchange: Annotated[str, Field(max_length=127)] = ""
    routing_key: RoutingKey = ""
    result_variable: Name | None = None
    result_scope: Literal["process", "local"] = "process"
    priority: bool = False
    file_inline_max: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    wait_for_consumer: bool = False
    max_task_bytes: Count = 16 * _MIB


class TopicSettings(TopicKeys):
    """A topic with everything resolved: `queue` and `routing_key` are never empty."""

    name: str
    result_queue: str


class ServiceKeys(Table):
    """The keys at the top of the settings file, above any table."""

    worker_id: WorkerId = "bridge"
    token_key_file: FilePath | None = None
    token_key_file_old: FilePath | None = None
    stop_grace: Duration = timedelta(seconds=20)
    renew_warn: Annotated[float, Field(gt=0)] = 20


class Settings(ServiceKeys):
    """All settings of one bridge, checked.  `topics` has at least one; its keys are topic names."""

    engine: EngineSettings
    broker: BrokerSettings
    status: StatusSettings
    topics: Mapping[str, TopicSettings]
