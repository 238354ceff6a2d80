"""The TOML file, the environment and secret files become checked, frozen values.

Starts nothing, connects to nothing, and never repeats the value of a secret.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from bridge.errors import SettingsError
from bridge.settings.checks import Key, find_problems
from bridge.settings.model import (
    BrokerSettings,
    EngineSettings,
    ServiceKeys,
    Settings,
    StatusSettings,
    TopicKeys,
    TopicSettings,
)
from bridge.settings.names import result_queue
from bridge.settings.problems import dotted, explain, type_problem, unknown_key
from bridge.settings.source import TOP_KEYS, Source, read_source

_MAX_FILE_BYTES = 64 * 1024
_MIN_KEY_BYTES = 32
_MAX_NAME_BYTES = 255  # of a routing key, by which workers answer
_NO_FILE = "no bridge.toml here; name one with --config, external-task-bridge init writes one"
_ONE_LINE = {"password_file": "the password", "oauth2_client_secret_file": "the secret"}
_ModelT = TypeVar("_ModelT", bound=BaseModel)


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Complete settings, the environment over the file over the defaults, secret files read.

    Raises SettingsError with every problem at once; paths in the file are relative to the
    working directory."""
    return _Loader(read_source(config, environ), from_file=config is not None).load()


def read_token_keys(settings: Settings) -> tuple[bytes | None, bytes | None]:
    """The signing key and the old one, read now; None where no file is set.

    Raises SettingsError where a file has become unusable since `load`."""
    keys: list[bytes | None] = []
    problems: list[str] = []
    for name in ("token_key_file", "token_key_file_old"):
        path: Path | None = getattr(settings, name)
        content, problem = _read_secret(name, path) if path else (None, None)
        keys.append(content)
        problems += [f"{name}: {problem}"] if problem else []
    if problems:
        raise SettingsError(tuple(problems))
    return keys[0], keys[1]


def _read_secret(key: str, path: Path) -> tuple[bytes, str | None]:
    """What a file holds without its last line end, and what is wrong with it."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES).removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        return b"", f"{path} cannot be read ({error.strerror}); name a readable file"
    if not content.strip():
        return b"", f"{path} is empty; write the secret into it"
    if key.startswith("token_key") and len(content) < _MIN_KEY_BYTES:
        cure = "make one by: openssl rand -base64 32 > key"
        return b"", f"{path} holds {len(content)} bytes, a key has at least 32; {cure}"
    if key in _ONE_LINE and not _is_text(content):
        return b"", f"{path} is not one line of UTF-8 text; write {_ONE_LINE[key]} alone into it"
    return content, None


def _is_text(content: bytes) -> bool:
    try:
        return content.decode().isprintable()
    except UnicodeDecodeError:
        return False


class _Loader:
    """One pass over one source; collects problems instead of stopping at the first."""

    def __init__(self, source: Source, *, from_file: bool) -> None:
        self._source = source
        self._from_file = from_file
        self._problems = list(source.problems)
        self._broken: set[tuple[str | int, ...]] = set()

    def load(self) -> Settings:
        tree = self._source.tree
        for key in tree:
            if key not in TOP_KEYS:
                self._problems.append(unknown_key((key,), TOP_KEYS))
        top = {key: tree[key] for key in ServiceKeys.model_fields if key in tree}
        service = self._model(ServiceKeys, top, ())
        settings = Settings(
            **dict(service),
            engine=self._model(EngineSettings, tree.get("engine", {}), ("engine",)),
            broker=self._model(BrokerSettings, tree.get("broker", {}), ("broker",)),
            status=self._model(StatusSettings, tree.get("status", {}), ("status",)),
            topics=self._topics(),
        )
        for problem in find_problems(settings):
            if self._broken.isdisjoint(map(self._where_set, problem.keys)):
                self._problems.append(f"{self._label(problem.keys[0])}: {problem.text}")
        settings = self._with_files(settings)
        if self._problems:
            raise SettingsError(tuple(dict.fromkeys(self._problems)))
        return settings

    def _topics(self) -> dict[str, TopicSettings]:
        defaults = self._model(
            TopicKeys, self._source.tree.get("topic_defaults", {}), ("topic_defaults",)
        )
        given = {key: getattr(defaults, key) for key in defaults.model_fields_set}
        tables = self._source.tree.get("topics", {})
        if not isinstance(tables, dict):
            self._problems.append(type_problem(("topics",), tables, "a table"))
        elif not tables:
            cure = "write a table [topics.<name>], or name topics in BRIDGE_TOPICS"
            if not self._from_file:
                cure = f"{_NO_FILE}, or name topics in BRIDGE_TOPICS"
            self._problems.append(f"topics: at least one topic is wanted; {cure}")
        else:
            found = (self._topic(name, table, given) for name, table in tables.items())
            return {topic.name: topic for topic in found if topic is not None}
        return {}

    def _topic(
        self, name: str, table: object, defaults: Mapping[str, object]
    ) -> TopicSettings | None:
        if not name.isprintable() or not 1 <= len(name.encode()) <= _MAX_NAME_BYTES:
            self._problems.append(
                f"{dotted(('topics', name))}: a topic's name has 1 to {_MAX_NAME_BYTES} bytes and "
                "no control characters; write it as in the process model"
            )
            return None
        keys = self._model(TopicKeys, table, ("topics", name))
        own = {key: getattr(keys, key) for key in keys.model_fields_set}
        merged = TopicKeys().model_copy(update={**defaults, **own})
        queue = merged.queue or name
        resolved = {"queue": queue, "routing_key": merged.routing_key or queue}
        given = {**dict(merged), **resolved, "result_queue": result_queue(name, queue)}
        try:
            return TopicSettings.model_validate({**given, "name": name})
        except ValidationError:  # every key was right by itself
            self._problems.append(
                f"{dotted(('topics', name))}: the name cannot be that of a queue; set queue"
            )
            return None

    def _model(self, kind: type[_ModelT], table: object, path: Key) -> _ModelT:
        """The table as a model; what is wrong in it is noted and left at its default."""
        if not isinstance(table, dict):
            self._problems.append(type_problem(path, table, "a table"))
            return kind()
        try:
            return kind.model_validate(table)
        except ValidationError as error:
            bad = error.errors(include_url=False)
        for details in bad:
            where = (*path, *details["loc"])
            self._broken.add((*path, str(details["loc"][0])))
            self._problems.append(explain(self._label(where), where, details, kind))
        wrong = {details["loc"][0] for details in bad}
        return kind.model_validate({k: v for k, v in table.items() if k not in wrong})

    def _label(self, path: tuple[str | int, ...]) -> str:
        """The key as its user wrote it: a variable of the environment, or a path in the file."""
        path = self._where_set(path)
        names = tuple(str(part) for part in path)
        for known in (names, names[:2]):
            if known in self._source.origin and (known == names or names[0] != "topics"):
                return self._source.origin[known]
        return dotted(path)

    def _where_set(self, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """The path of `topic_defaults` for a key that a topic has from there."""
        if path[0] != "topics" or len(path) < 3:
            return path
        own = _at(self._source.tree, "topics", str(path[1]))
        inherited = path[2] in _at(self._source.tree, "topic_defaults") and path[2] not in own
        return ("topic_defaults", *path[2:]) if inherited else path

    def _with_files(self, settings: Settings) -> Settings:
        secrets: dict[Key, bytes] = {}
        for path, key, file in _file_keys(settings):
            content, problem = _read_secret(key, file)
            secrets[(*path, key)] = content
            if problem:
                self._problems.append(f"{self._label((*path, key))}: {problem}")
        for table in ("engine", "broker"):
            password = secrets.get((table, "password_file"))
            if password:
                change = {"password": SecretStr(password.decode())}
                changed = getattr(settings, table).model_copy(update=change)
                settings = settings.model_copy(update={table: changed})
        return settings


def _at(tree: object, *path: str) -> Mapping[str, object]:
    for part in path:
        tree = tree.get(part, {}) if isinstance(tree, dict) else {}
    return tree if isinstance(tree, dict) else {}


def _file_keys(settings: Settings) -> Iterable[tuple[Key, str, Path]]:
    for path, table in (
        ((), settings),
        (("engine",), settings.engine),
        (("broker",), settings.broker),
    ):
        for key, value in table:
            if isinstance(value, Path):
                yield path, key, value
