"""The certificate and the private key with which the service answers over TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

from serve.settings import PREFIX, Settings, SettingsError

CERTIFICATE = f"{PREFIX}TLS_CERTIFICATE"
KEY = f"{PREFIX}TLS_KEY"
PASSWORD = f"{PREFIX}TLS_KEY_PASSWORD"


def read_context(settings: Settings) -> ssl.SSLContext | None:
    """What answering over TLS 1.2 or newer takes; None where no certificate is set.

    Raises SettingsError naming the variable and the file that are wrong.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    _look(CERTIFICATE, certificate, "CERTIFICATE")
    _look(KEY, key, "PRIVATE KEY")
    password = settings.tls_key_password.get_secret_value() if settings.tls_key_password else ""
    asked = False

    def give() -> str:  # OpenSSL asks at the terminal where there is no such function
        nonlocal asked
        asked = True
        return password

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, give)
    except (ssl.SSLError, ValueError) as error:  # ValueError: a pass phrase that is too long
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            text = f"{KEY}: {key} is not the key of the certificate {certificate}"
        elif asked:
            fault = "is wrong" if password else "is needed"
            text = f"{PASSWORD}: {key} is encrypted, and its pass phrase {fault}"
        else:
            text = f"{CERTIFICATE}, {KEY}: {certificate} or {key} is damaged"
        raise SettingsError(text) from None
    return context


def _look(name: str, path: Path, kind: str) -> None:
    try:
        found = f"{kind}-----".encode() in path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name}: {path}: {error.strerror}") from None
    if not found:
        raise SettingsError(f"{name}: {path} is no PEM file with a {kind.lower()}")
