"""Where the token comes from: the environment, else a question on the terminal; nowhere else."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping

from pydantic import SecretStr

from submission.codabench.client import DEFAULT_URL, CodabenchClient, checked_token
from submission.codabench.transport import Patience
from submission.errors import CredentialsError

MISSING = (
    "no credentials: set CODABENCH_TOKEN, or CODABENCH_USERNAME and CODABENCH_PASSWORD, in the "
    "environment; on a terminal you are asked"
)


def token_of(environment: Mapping[str, str]) -> SecretStr | None:
    """The token that the environment holds; raises CredentialsError for what cannot be one."""
    value = environment.get("CODABENCH_TOKEN", "").strip()
    return checked_token(SecretStr(value)) if value else None


def site_of(environment: Mapping[str, str]) -> str:
    """CODABENCH_URL, else the public site."""
    return environment.get("CODABENCH_URL", "").strip() or DEFAULT_URL


def anonymous(environment: Mapping[str, str], patience: Patience | None = None) -> CodabenchClient:
    """A client with the environment's token, where there is one, that asks nobody."""
    key = environment.get("CODABENCH_SECRET_KEY", "").strip()
    return CodabenchClient(
        site_of(environment),
        token_of(environment),
        secret_key=SecretStr(key) if key else None,
        patience=patience,
    )


def connect(environment: Mapping[str, str], patience: Patience | None = None) -> CodabenchClient:
    """A client that is logged in: by token, by name and password, or by what a person types.

    Raises CredentialsError when there is nothing to log in with.
    """
    client = anonymous(environment, patience)
    try:
        if token_of(environment) is None:
            client.log_in(*_name_and_password(environment, client.url))
    except BaseException:
        client.close()
        raise
    return client


def _name_and_password(environment: Mapping[str, str], url: str) -> tuple[str, SecretStr]:
    name = environment.get("CODABENCH_USERNAME", "").strip()
    password = environment.get("CODABENCH_PASSWORD", "")
    if name and password:
        return name, SecretStr(password)
    if not sys.stdin.isatty():
        raise CredentialsError(MISSING)
    try:
        if not name:
            print(f"user name at {url}: ", end="", file=sys.stderr, flush=True)
            name = input().strip()
        password = getpass.getpass(f"password of {name}: ")
    except EOFError:
        raise CredentialsError(MISSING) from None
    if not (name and password):
        raise CredentialsError(MISSING)
    return name, SecretStr(password)
