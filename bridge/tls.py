"""TLS: what a refusal means and what mends it; and whether certificate files can be used at all.

Knows OpenSSL's words and neither engine nor broker; opens no connection.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Key = Literal["url", "ca_file", "client_cert_file", "client_key_file"]

_WORDS = re.compile(r"(?:\[[^\]]*\] |(?=EOF occurred))([^\[\]]*?)\.? \(_ssl\.c:\d+\)")
_CLIENT = "name a client certificate that the server trusts (client_cert_file, client_key_file)"
# The first that occurs in OpenSSL's message counts: the key to look at, and the cure.
_CURES: tuple[tuple[str, Key, str], ...] = (
    ("certificate is not valid for", "url", "use a host name that stands in its certificate"),
    ("certificate has expired", "url", "have the server's certificate renewed"),
    ("certificate is not yet valid", "url", "correct the clocks, or have the certificate renewed"),
    ("CERTIFICATE_VERIFY_FAILED", "ca_file", "name the authority that signed its certificate"),
    ("CERTIFICATE_REQUIRED", "client_cert_file", "set client_cert_file and client_key_file"),
    ("ALERT_CERTIFICATE_EXPIRED", "client_cert_file", "have the client certificate renewed"),
    ("PROTOCOL", "url", "let the server speak TLS 1.2 or later"),
    ("ALERT", "client_cert_file", _CLIENT),
    ("EOF occurred", "client_cert_file", f"the server broke off: {_CLIENT}"),
    ("KEY_VALUES_MISMATCH", "client_key_file", "name the key that belongs to client_cert_file"),
)
_NO_TLS = (
    "no TLS is spoken there: correct the address or its port, or leave out the s of its scheme"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why TLS failed, in OpenSSL's own words, which setting to look at, and what mends it."""

    text: str
    key: Key
    cure: str

    @property
    def sentence(self) -> str:
        return f"TLS: {self.text}; {self.cure}"


def explain(message: str) -> Refusal | None:
    """What an error's text tells of TLS, however deep it is wrapped; None: it is not about TLS."""
    words = _WORDS.search(message)
    if words is None:
        return None
    for sign, key, cure in _CURES:
        if sign in message:
            return Refusal(words[1], key, cure)
    return Refusal(words[1], "url", _NO_TLS)


def file_problems(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None
) -> Iterator[tuple[Key, str]]:
    """The files that no TLS connection could be made with, each with a sentence on its cure."""
    if ca_file is not None:
        try:
            ssl.create_default_context(cafile=ca_file)
        except OSError:
            yield "ca_file", f"{ca_file} holds no certificate; name a file in PEM form"
    if cert_file is None:
        return
    try:
        context = ssl.create_default_context()
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except _Encrypted:
        where: Key = "client_key_file" if key_file is not None else "client_cert_file"
        yield where, f"{key_file or cert_file} is encrypted; write the key without a password"
    except OSError as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            yield "client_key_file", f"{key_file} is not the key of {cert_file}; name the right one"
        else:
            files = f"{cert_file} and {key_file}" if key_file is not None else f"{cert_file}"
            cure = "name both in PEM form, in client_key_file where the key has its own file"
            yield "client_cert_file", f"{files} hold no certificate with its key; {cure}"


class _Encrypted(Exception):
    """The key asks for a password, which a service has nobody to ask for."""


def _no_password() -> str:
    raise _Encrypted
