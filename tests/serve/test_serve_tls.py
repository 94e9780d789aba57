"""Answers over TLS, and what is said of certificates and keys that do not fit."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr
from server_process import ROOT, Server

from serve.settings import Settings, SettingsError
from serve.tls import read_context


@dataclass(frozen=True)
class Files:
    """What an authority has made for localhost."""

    authority: trustme.CA
    certificate: Path
    key: Path
    encrypted: Path  # with the pass phrase "right"
    other: Path  # another certificate's key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    mine, other = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("other")
    names = ("certificate.pem", "key.pem", "encrypted.pem", "other.pem")
    certificate, key, encrypted, others = (folder / name for name in names)
    for blob in mine.cert_chain_pems:
        blob.write_to_path(certificate, append=True)
    mine.private_key_pem.write_to_path(key)
    other.private_key_pem.write_to_path(others)
    secret = serialization.load_pem_private_key(mine.private_key_pem.bytes(), None)
    encrypted.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"right"),
        )
    )
    return Files(authority, certificate, key, encrypted, others)


def test_answers_over_tls(files: Files, forecaster: Path, tmp_path: Path) -> None:
    server = Server(
        tmp_path / "log",
        forecaster,
        tls_certificate=files.certificate,
        tls_key=files.encrypted,
        tls_key_password="right",
        drain_seconds=0,
    )
    assert server.url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context()
    files.authority.configure_trust(trusting)
    with httpx.Client(base_url=server.url, verify=trusting) as client:
        assert client.get("/health/ready").status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{server.url}/health/live")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(server.url.replace("https", "http") + "/health/live")
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(f"{server.url}/health/live", verify=trusting).status_code == 200
        assert client.get("/models").status_code == 200
    assert server.stop() == 0
    assert server.log.read_text() == ""


def fault(certificate: Path, key: Path, password: str | None = None) -> str:
    """What is said of these files, with their names alone."""
    secret = None if password is None else SecretStr(password)
    settings = Settings(tls_certificate=certificate, tls_key=key, tls_key_password=secret)
    with pytest.raises(SettingsError) as caught:
        read_context(settings)
    return str(caught.value).replace(f"{certificate.parent}/", "")


def test_what_does_not_fit_is_named(files: Files) -> None:
    certificate, key, encrypted = files.certificate, files.key, files.encrypted
    missing = certificate.with_name("missing.pem")
    damaged = certificate.with_name("damaged.pem")
    damaged.write_bytes(key.read_bytes().replace(b"M", b"!", 9))
    name = "AXONNX_TLS_KEY"
    for text, given in {
        f"{name}: other.pem is not the key of the certificate certificate.pem": (files.other,),
        f"{name}_PASSWORD: encrypted.pem is encrypted, and its pass phrase is needed": (encrypted,),
        f"{name}_PASSWORD: encrypted.pem is encrypted, and its pass phrase is wrong": (
            encrypted,
            "wrong" * 500,
        ),
        f"{name}: missing.pem: No such file or directory": (missing,),
        f"{name}: certificate.pem is no PEM file with a private key": (certificate,),
        f"AXONNX_TLS_CERTIFICATE, {name}: certificate.pem or damaged.pem is damaged": (damaged,),
    }.items():
        assert fault(certificate, *given) == text
    assert fault(encrypted, encrypted, "wrong").startswith("AXONNX_TLS_CERTIFICATE: encrypted.pem")
    assert fault(missing, key).startswith("AXONNX_TLS_CERTIFICATE: missing.pem: No such file")
    assert read_context(Settings()) is None


def test_the_process_ends_with_2_and_one_line(files: Files, forecaster: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "axonnx.py", "serve", forecaster, "--port", "0"],
        env={
            **os.environ,
            "AXONNX_TLS_CERTIFICATE": str(files.certificate),
            "AXONNX_TLS_KEY": str(files.encrypted),
            "AXONNX_TLS_KEY_PASSWORD": "this-is-wrong",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("axonnx: error: AXONNX_TLS_KEY_PASSWORD: ")
    assert len(done.stderr.splitlines()) == 1
    assert "this-is-wrong" not in done.stderr
