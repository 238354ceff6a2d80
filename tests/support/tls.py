"""Certificates of an authority of our own, good and bad ones, as files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import trustme

from bridge.check.findings import Finding

Kind = Literal["good", "expired", "early", "other host", "foreign"]
HOST = "localhost"
NOISE = ("Traceback", "_ssl.c", "HTTPSConnectionPool", "guest")


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and of its key."""

    cert: Path
    key: Path


class Authority:
    """Ours, and a foreign one that nobody here trusts; all files lie below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ours, self._foreign = trustme.CA(), trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.foreign_ca_file = directory / "foreign-ca.pem"
        self._ours.cert_pem.write_to_path(self.ca_file)
        self._foreign.cert_pem.write_to_path(self.foreign_ca_file)

    def server(self, kind: Kind) -> Pair:
        """A server's certificate for `localhost`, but for one that is for another host."""
        return self._issue("server", kind, "other.example.org" if kind == "other host" else HOST)

    def client(self, kind: Kind) -> Pair:
        """A client's certificate.  Its SAN beside the CN is what RabbitMQ asks for."""
        return self._issue("client", kind, "bridge@example.org")

    def _issue(self, role: str, kind: Kind, name: str) -> Pair:
        authority = self._foreign if kind == "foreign" else self._ours
        begins, ends = _validity(kind)
        issued = authority.issue_cert(name, common_name=role, not_before=begins, not_after=ends)
        stem = f"{role}-{kind.replace(' ', '-')}"
        pair = Pair(self._directory / f"{stem}.crt", self._directory / f"{stem}.key")
        issued.cert_chain_pems[0].write_to_path(pair.cert)
        issued.private_key_pem.write_to_path(pair.key)
        pair.key.chmod(0o600)
        return pair


def assert_refused(said: str, findings: Iterable[Finding], key: str, words: str, cure: str) -> None:
    """What `run` said and what `check` finds: these words and this cure, about one key, and
    neither the library's noise nor credentials.
    """
    [found] = [finding for finding in findings if finding.mark == "problem"]

    assert found.key == key
    for text in (said, found.line):
        assert words in text
        assert cure in text
        assert not any(noise in text for noise in NOISE)


def _validity(kind: Kind) -> tuple[datetime | None, datetime | None]:
    now, day = datetime.now(UTC), timedelta(days=1)
    if kind == "expired":
        return now - 2 * day, now - day
    if kind == "early":
        return now + day, now + 2 * day
    return None, None
