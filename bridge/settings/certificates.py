"""Whether the certificate files of the settings can be used.  Reads them; connects to nothing."""

from bridge import tls
from bridge.settings.model import Settings


def certificate_problems(settings: Settings) -> tuple[str, ...]:
    """One sentence for each unusable file, with its key's path; empty where TLS can be tried."""
    return tuple(
        f"{name}.{key}: {text}"
        for name, table in (("engine", settings.engine), ("broker", settings.broker))
        for key, text in tls.file_problems(
            table.ca_file, table.client_cert_file, table.client_key_file
        )
    )
