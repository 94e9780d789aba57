"""Client of CodaBench's REST API: one method per call, checked answers, errors that say what to do.

    with CodabenchClient("https://www.codabench.org", token) as client:
        competition = client.competition(1234)
        client.can_submit(competition.phases[0].id)

Calls that may be repeated are, after a pause, when the platform is busy or out of reach; the one
that creates a submission never is. Source: codalab/codabench v1.25, `src/apps/api`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeVar

import httpx
from pydantic import SecretStr, TypeAdapter, ValidationError

from submission.codabench import answers
from submission.codabench.answers import plain
from submission.codabench.transport import (
    BUSY,
    MAX_ANSWER,
    Advance,
    Patience,
    Storage,
    new_client,
    read_bounded,
    reason,
    safe_url,
)
from submission.errors import ConfigError, CredentialsError, PlatformError

DEFAULT_URL = "https://www.codabench.org"
TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
# "refused": only where the platform certainly did nothing, an answer 429 or no connection.
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
Repeat = Literal["always", "refused", "never"]
Body = Mapping[str, Any]
A = TypeVar("A")


def site(url: str) -> str:
    """`url` as scheme and host, such as `https://www.codabench.org`; raises ConfigError."""
    try:
        parsed = safe_url(url.strip(), "CODABENCH_URL", local=True)
    except PlatformError as error:
        raise ConfigError(str(error)) from None
    if parsed.path not in ("", "/") or parsed.query or parsed.fragment:
        raise ConfigError("CODABENCH_URL has more than a host; expected https://www.codabench.org")
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def dataset_body(name: str, size: int, competition: int) -> dict[str, Any]:
    """What POST /api/datasets/ says of a zip called `name`, of `size` bytes."""
    return {
        "type": "submission",
        "request_sassy_file_name": name,
        "file_name": name,
        "file_size": size,
        "competition": competition,
    }


def submission_body(
    key: str, phase: int, tasks: Sequence[int], fact_sheet: Body | None, organization: int | None
) -> dict[str, Any]:
    """What POST /api/submissions/ says; no `tasks` means every task of the phase."""
    body: dict[str, Any] = {"data": key, "phase": phase, "tasks": list(tasks)}
    if fact_sheet is not None:
        body["fact_sheet_answers"] = dict(fact_sheet)
    if organization is not None:
        body["organization"] = organization
    return body


class CodabenchClient:
    """The calls of one site; use it as a context manager.

    `url` is the site, `token` the API token (None for anonymous calls), `secret_key` the key of an
    unpublished competition. Every method raises PlatformError.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: SecretStr | None = None,
        *,
        secret_key: SecretStr | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.url = site(url)
        self.patience = patience or Patience()
        self._token = None if token is None else checked_token(token)
        self._secret_key = secret_key
        self._password: SecretStr | None = None
        local = self.url.startswith("http://")
        self._http = new_client(self.patience, local)
        self.storage = Storage(self.patience, local)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self.storage.close()

    def log_in(self, username: str, password: SecretStr) -> None:
        """Get a token for later calls; raises CredentialsError for a wrong name or password."""
        self._password = password
        body = {"username": username, "password": password.get_secret_value()}
        try:
            found = self._call("POST", "/api/api-token-auth/", answers.Token, json=body)
        except PlatformError as error:
            if error.status not in (400, 401, 403):
                raise
            raise CredentialsError(
                f"{self.url} does not take this user name and password (answered {error.status}); "
                "each site, such as dev.codabench.org, has accounts of its own"
            ) from None
        self._token = SecretStr(found.token)

    def competition(self, competition: int) -> answers.Competition:
        """A competition with its phases, and this account's standing in it."""
        return self._call(
            "GET",
            f"/api/competitions/{competition}/",
            answers.Competition,
            params=self._key(),
            hints={404: "no such competition, or it is unpublished: set CODABENCH_SECRET_KEY"},
        )

    def register(self, competition: int) -> answers.Participation:
        """Apply for a competition; the status is approved or pending."""
        return self._call(
            "POST",
            f"/api/competitions/{competition}/register/",
            answers.Participation,
            json=self._key(),
            expect=(200, 201),
            repeat="refused",
            hints={400: "this account may have applied already"},
        )

    def can_submit(self, phase: int) -> answers.Permission:
        """Whether the platform would take another submission now, and why not."""
        return self._call("GET", f"/api/can_make_submission/{phase}/", answers.Permission)

    def create_dataset(self, name: str, size: int, competition: int) -> answers.Dataset:
        """Announce a zip; the answer holds its key and the signed URL to send it to."""
        return self._call(
            "POST",
            "/api/datasets/",
            answers.Dataset,
            json=dataset_body(name, size, competition),
            expect=(200, 201),
            repeat="refused",
        )

    def complete(self, key: str) -> None:
        """Say that the zip has arrived; may be repeated."""
        hints = {404: "this account has no such upload"}
        path = f"/api/datasets/completed/{key}/"
        self._call("PUT", path, answers.Completed, hints=hints)

    def create_submission(self, body: Body) -> answers.Created:
        """Submit an uploaded zip, once; the error is `unsure` where it may have worked."""
        hints = {
            403: "this account is no approved participant of the competition",
            500: "CodaBench answers so when the phase's submission limit is used up",
        }
        return self._call(
            "POST",
            "/api/submissions/",
            answers.Created,
            json=body,
            expect=(200, 201),
            repeat="never",
            hints=hints,
        )

    def submissions(self, phase: int) -> tuple[answers.Submission, ...]:
        """The account's submissions to a phase, newest first."""
        params = {"phase": str(phase)}
        return self._call("GET", "/api/submissions/", answers.Submissions, params=params).entries

    def submission(self, submission: int) -> answers.Submission:
        """One submission: status, children, scores."""
        hints = {404: "no such submission, or it is another account's"}
        path = f"/api/submissions/{submission}/"
        return self._call("GET", path, answers.Submission, hints=hints)

    def details(self, submission: int) -> answers.Details:
        """The signed URLs of a submission's logs and results; 403 where the phase hides them."""
        path = f"/api/submissions/{submission}/get_details/"
        return self._call("GET", path, answers.Details, hints={403: "the phase hides its output"})

    def put_on_leaderboard(self, submission: int) -> None:
        """Show a finished submission on the leaderboard."""
        hints = {403: "this competition chooses the leaderboard's submissions by itself"}
        path = f"/api/submissions/{submission}/submission_leaderboard_connection/"
        self._request("POST", path, expect=(200, 201, 204), repeat="refused", hints=hints)

    def upload(
        self, dataset: answers.Dataset, file: BinaryIO, size: int, sha256: str, advance: Advance
    ) -> None:
        """Send the zip's bytes to the storage; see Storage.put."""
        self.storage.put(dataset.sassy_url, file, size, sha256, advance)

    def _key(self) -> dict[str, str]:
        return {} if not self._secret_key else {"secret_key": self._secret_key.get_secret_value()}

    def _call(self, method: str, path: str, shape: type[A], **options: Any) -> A:
        """Send one call and read its answer as `shape`; `options` as for `_request`."""
        status, body = self._request(method, path, **options)
        return _read(f"{method} {path}", status, body, shape)

    def _request(
        self,
        method: str,
        path: str,
        *,
        json: Body | None = None,
        params: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200,),
        repeat: Repeat = "always",
        hints: Mapping[int, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of one call; `hints` explains statuses that are not expected."""
        call = f"{method} {path}"
        request = self._http.build_request(method, self.url + path, json=json, params=params)
        if self._token is not None:
            request.headers["Authorization"] = f"Token {self._token.get_secret_value()}"
        response, body = self._send(request, call, repeat)
        if response.status_code not in expect:
            raise self._refusal(call, response, body, hints or {})
        return response.status_code, body

    def _send(
        self, request: httpx.Request, call: str, repeat: Repeat
    ) -> tuple[httpx.Response, bytes]:
        for attempt in range(self.patience.tries):
            last = repeat == "never" or attempt + 1 == self.patience.tries
            try:
                response = self._http.send(request, stream=True)
                try:
                    body = read_bounded(response, call, MAX_ANSWER, self.patience.answer)
                finally:
                    response.close()
            except httpx.HTTPError as error:
                unsent = isinstance(error, UNSENT)
                if last or (repeat == "refused" and not unsent):
                    text = f"{call} failed: {reason(error)}"
                    raise PlatformError(text, unsure=not unsent) from None
                self.patience.pause(attempt, None)
                continue
            again = response.status_code == 429 or (
                repeat == "always" and response.status_code in BUSY
            )
            if last or not again:
                return response, self._without_secrets(body)
            self.patience.pause(attempt, response)
        raise AssertionError("at least one try is made")

    def _without_secrets(self, body: bytes) -> bytes:
        """What came back, free of what was sent: an answer may repeat it."""
        for secret in (self._token, self._secret_key, self._password):
            value = "" if secret is None else secret.get_secret_value()
            if len(value) >= 8:
                for written in (value, json.dumps(value)[1:-1]):
                    body = body.replace(written.encode("utf-8", "replace"), b"***")
        return body

    def _refusal(
        self, call: str, response: httpx.Response, body: bytes, hints: Mapping[int, str]
    ) -> PlatformError:
        """The error for a status that was not expected."""
        status = response.status_code
        said, fields = _said(body)
        text = f"{call} was answered {status}" + (f": {said}" if said else "")
        if response.is_redirect:
            host = plain(response.headers.get("location", "?").split("?")[0], 120)
            text += f"; a redirect to {host} is not followed: set CODABENCH_URL to the right site"
        elif status in (401, 403) and (self._token is None or "oken" in said or "redent" in said):
            text += (
                f"; the token is missing, wrong or another site's ({self.url} was asked): set "
                "CODABENCH_TOKEN, or CODABENCH_USERNAME and CODABENCH_PASSWORD"
            )
        elif status in hints:
            text += f"; {hints[status]}"
        elif status == 429:
            text += "; too many calls: wait a minute and run the command again"
        return PlatformError(text, status, fields, unsure=status >= 500)


def checked_token(token: SecretStr) -> SecretStr:
    """The token without surrounding blanks; raises CredentialsError for what cannot be one."""
    value = token.get_secret_value().strip()
    if not TOKEN.fullmatch(value):
        raise CredentialsError("the token holds blanks or signs that no token has; copy it again")
    return SecretStr(value)


def _said(body: bytes) -> tuple[str, frozenset[str]]:
    """The text of a refusal, and the keys it complains of."""
    if body.lstrip()[:1] == b"<":
        return "(an HTML page)", frozenset()
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return plain(body[:4096].decode("utf-8", "replace")), frozenset()
    if not isinstance(value, dict):
        return plain(value), frozenset()
    parts = []
    for key, entry in value.items():
        entries = entry if isinstance(entry, list) else [entry]
        text = " ".join(str(part) for part in entries[:10])
        parts.append(text if key in ("detail", "non_field_errors") else f"{key}: {text}")
    return plain("; ".join(parts)), frozenset(str(key) for key in value)


def _read(call: str, status: int, body: bytes, shape: type[A]) -> A:
    """The body as `shape`; raises PlatformError naming what does not fit."""
    try:
        return TypeAdapter(shape).validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
    if body.lstrip()[:1] == b"<":
        what = "an HTML page"
    elif first["type"] == "json_invalid":
        what = "something that is no JSON"
    else:
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        what = f"an odd shape ({plain(place, 80)}: {plain(first['msg'], 120)})"
    text = f"{call} answered {status} with {what}; expected {_described(shape)}"
    raise PlatformError(text, status, unsure=True)


def _described(shape: Any) -> str:
    fields = shape.model_fields
    required = [name for name in fields if name != "root" and fields[name].is_required()]
    return f"JSON with {', '.join(required)}" if required else "a JSON list"
