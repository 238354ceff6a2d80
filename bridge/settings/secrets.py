"""Every secret of the settings, so that it can be kept out of what is shown.  Shows none itself."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from bridge.settings.loader import read_token_keys
from bridge.settings.model import Settings


def known_secrets(settings: Settings) -> frozenset[str]:
    """Passwords, tokens, header values and keys, plain, percent-encoded and as Python and JSON
    write them between quotes.

    Of a URL it is the password alone: host and user may be told.  A secret that is replaced in its
    file later is not among them.  Raises SettingsError where a key file has become unusable.
    """
    found = set(_in(settings))
    for file in (settings.engine.token_file, settings.engine.oauth2_client_secret_file):
        found.add(_text(file) if file is not None else "")
    found.update(key.decode(errors="replace") for key in read_token_keys(settings) if key)
    return frozenset(form for secret in found if secret for form in _forms(secret))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="", errors="replace")
    # Whether an apostrophe is escaped depends on what stands around the secret.
    for quotes in ("", "'\""):
        yield repr(secret + quotes)[1 : -1 - len(quotes) - bool(quotes)]
        yield repr((secret + quotes).encode(errors="replace"))[2 : -1 - len(quotes) - bool(quotes)]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]


def _in(value: object) -> Iterator[str]:
    match value:
        case SecretStr():
            yield from _of_text(value.get_secret_value())
        case BaseModel():
            for _, item in value:
                yield from _in(item)
        case Mapping():
            for item in value.values():
                yield from _in(item)
        case tuple():
            for item in value:
                yield from _in(item)


def _of_text(secret: str) -> Iterator[str]:
    if secret.startswith(("amqp://", "amqps://")):
        yield unquote(urlsplit(secret).password or "")
    else:
        yield secret


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        return ""  # whoever needs it says so
