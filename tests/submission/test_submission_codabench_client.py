"""The client's calls one by one, and the test server judged by a client that is not ours."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import codabench
import httpx
import pytest
from codabench_server import (
    FINISHED,
    PASSWORD,
    SCORES,
    SECRET_KEY,
    TOKEN,
    USERNAME,
    Platform,
    running,
)
from pydantic import SecretStr

from submission.codabench.answers import Details, plain
from submission.codabench.client import CodabenchClient, site
from submission.codabench.transport import MAX_ANSWER, Patience, Storage, safe_url
from submission.errors import ConfigError, CredentialsError, PlatformError


@pytest.fixture(scope="module")
def server() -> Iterator[Platform]:
    with running() as platform:
        yield platform


@pytest.fixture
def platform(server: Platform) -> Iterator[Platform]:
    server.reset()
    yield server
    assert server.violations == []


@pytest.fixture
def pauses() -> list[float]:
    """Seconds that the client would have waited."""
    return []


@pytest.fixture
def client(platform: Platform, pauses: list[float]) -> Iterator[CodabenchClient]:
    patience = Patience(sleep=pauses.append)
    with CodabenchClient(platform.url, SecretStr(TOKEN), patience=patience) as client:
        yield client


# ---- the server, by an independent client -----------------------------------------------------


def test_an_independent_client_completes_its_own_sequence(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    platform.scripts = [FINISHED]
    path = tmp_path / "theirs.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("model.py", "")
    other = codabench.CodabenchClient(platform.url + "/", USERNAME, PASSWORD)
    competition = other.competition(f"{platform.url}/competitions/7/")
    phase = codabench.find_phase(competition)
    assert phase["id"] == 71
    other.can_submit(phase["id"])
    said: list[str] = []
    submission = other.submit(phase["id"], path, progress=said.append)
    finished = other.wait_for_submission(submission["id"], interval=0, progress=said.append)
    assert finished["status"] == "Finished"
    results = other.results(submission["id"])
    assert results["metrics"] == {key: float(score) for key, score in SCORES.items()}
    assert other.pick_submission(phase["id"])["filename"] == "theirs.zip"
    assert platform.datasets[platform.stored[0]]["content"] == path.read_bytes()
    assert other.download_artifact(submission["id"], "scoring", tmp_path) is not None
    [kit] = codabench.collect_files(competition)
    saved = other.download_dataset(kit.key, tmp_path, kit.filename)
    assert saved is not None
    assert saved.read_bytes() == b"kit"
    assert other.leaderboard(3) == {"submissions": []}


@pytest.mark.parametrize("name", ["", "wrong"])
def test_the_server_shuts_strangers_out(name: str, platform: Platform) -> None:
    headers = {"Authorization": f"Token {name}"} if name else {}
    for method, path in (("GET", "/api/submissions/"), ("POST", "/api/datasets/")):
        answer = httpx.request(method, platform.url + path, headers=headers)
        assert answer.status_code == 403
    with pytest.raises(codabench.AuthError):
        codabench.CodabenchClient(platform.url, USERNAME, "wrong").can_submit(71)


def test_the_storage_minds_what_it_is_sent(server: Platform) -> None:
    server.reset()
    link = server.signed(server._place("x.zip", b"", 3))
    httpx.put(link, content=iter([b"abc"]), headers={"Authorization": f"Token {TOKEN}"})
    assert server.violations == [
        "the storage saw an Authorization header",
        "the storage saw a secret",
        "the upload was chunked",
        "the upload's Content-Type is None",
    ]
    assert httpx.get(link.split("?")[0]).status_code == 403


# ---- tries and pauses -------------------------------------------------------------------------


def test_a_busy_platform_is_asked_again(
    platform: Platform, client: CodabenchClient, pauses: list[float]
) -> None:
    platform.fail("GET", "can_make", "drop")
    platform.fail("GET", "can_make", "html", 1, 502)
    platform.fail("GET", "can_make", "html", 1, 503)
    assert client.can_submit(71).can
    assert pauses == [1, 2, 4]


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("99999999999", 120, 120),
        ("soon", 1, 1),
        ("-3", 1, 1),
        ("Fri, 31 Dec 2999 23:59:59 GMT", 120, 120),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00", 1, 1),
    ],
)
def test_a_rate_limit_is_waited_for(
    header: str,
    least: float,
    most: float,
    platform: Platform,
    client: CodabenchClient,
    pauses: list[float],
) -> None:
    platform.fail("POST", "/api/datasets/", "body", 1, (429, b"{}", {"Retry-After": header}))
    client.create_dataset("a.zip", 3, 7)
    assert len(pauses) == 1
    assert least <= pauses[0] <= most


def test_what_may_not_be_repeated_is_not(
    platform: Platform, client: CodabenchClient, pauses: list[float]
) -> None:
    for kind, value in (("drop", None), ("status", 429), ("status", 503), ("html", 200)):
        platform.calls.clear()
        platform.fail("POST", "/api/submissions/$", kind, 1, value)
        with pytest.raises(PlatformError) as found:
            client.create_submission({"data": "x", "phase": 71, "tasks": []})
        assert found.value.unsure == (value != 429)
        assert len(platform.calls) == 1
    platform.fail("POST", "/api/datasets/", "drop_after")
    with pytest.raises(PlatformError, match="the connection broke"):
        client.create_dataset("a.zip", 3, 7)
    assert pauses == []


def test_a_platform_that_is_not_there(pauses: list[float]) -> None:
    patience = Patience(tries=3, sleep=pauses.append)
    with (
        CodabenchClient("http://127.0.0.1:9", SecretStr(TOKEN), patience=patience) as client,
        pytest.raises(PlatformError, match="no connection"),
    ):
        client.can_submit(71)
    assert pauses == [1, 2]


@pytest.mark.parametrize("limits", [{"silence": 0.05}, {"answer": 0.0}])
def test_a_slow_answer_is_not_waited_for(limits: dict[str, float], platform: Platform) -> None:
    platform.fail("GET", "can_make", "slow", 2, 0.2)
    patience = Patience(tries=2, sleep=lambda seconds: None, **limits)  # type: ignore[arg-type]
    with (
        CodabenchClient(platform.url, SecretStr(TOKEN), patience=patience) as client,
        pytest.raises(PlatformError, match="no answer in time"),
    ):
        client.can_submit(71)


def test_the_upload_is_repeated_from_its_start(
    platform: Platform, client: CodabenchClient, pauses: list[float]
) -> None:
    platform.fail("PUT", "/bucket/", "drop")
    platform.fail("PUT", "/bucket/", "status", 1, 500)
    content = b"x" * 700_000
    dataset = client.create_dataset("a.zip", len(content), 7)
    seen: list[tuple[int, int | None]] = []
    sha256 = hashlib.sha256(content).hexdigest()
    advance = lambda done, total: seen.append((done, total))  # noqa: E731
    client.upload(dataset, io.BytesIO(content), len(content), sha256, advance)
    assert platform.datasets[dataset.key]["content"] == content
    assert seen[-1] == (700_000, 700_000)
    assert len(pauses) == 2
    platform.fail("PUT", "/bucket/", "html", 1, 403)
    with pytest.raises(PlatformError, match="answered 403, expected 200 or 201") as found:
        client.upload(dataset, io.BytesIO(content), len(content), sha256, advance)
    assert "Signature" not in str(found.value)


def test_azure_gets_its_headers(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []

    def send(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        sent.append(request)
        request.read()
        return httpx.Response(201, request=request)

    monkeypatch.setattr(httpx.Client, "send", send)
    storage = Storage(Patience(), local=False)
    link = "https://account.blob.core.windows.net/c/x.zip?sig=s"
    sha256 = hashlib.sha256(b"abc").hexdigest()
    storage.put(link, io.BytesIO(b"abc"), 3, sha256, lambda done, total: None)
    assert sent[0].headers["x-ms-blob-type"] == "BlockBlob"
    assert sent[0].headers["x-ms-version"] == "2018-03-28"
    assert sent[0].headers["content-length"] == "3"
    assert "transfer-encoding" not in sent[0].headers


# ---- odd and hostile answers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<!doctype html>", "answered 200 with an HTML page; expected JSON with can"),
        (b"", "something that is no JSON"),
        (b"[1]", "an odd shape"),
        (b'{"can": "perhaps"}', r"an odd shape \(can: "),
        (b'{"can"' + b":[" * 100_000, "something that is no JSON"),
        (b"x" * (MAX_ANSWER + 1), "expected a short answer"),
    ],
)
def test_odd_answers(body: bytes, text: str, platform: Platform, client: CodabenchClient) -> None:
    platform.fail("GET", "can_make", "body", 1, (200, body))
    with pytest.raises(PlatformError, match=text) as found:
        client.can_submit(71)
    assert "GET /api/can_make_submission/71/" in str(found.value)
    assert len(str(found.value)) < 600


@pytest.mark.parametrize(
    "score", ['"nan"', '"1e999999999"', "[]", '"' + "9" * 500 + '"', '"high"', "null"]
)
def test_odd_scores(score: str, platform: Platform, client: CodabenchClient) -> None:
    scores = (
        f'{{"id": 1, "status": "Finished", "scores": [{{"column_key": "a", "score": {score}}}]}}'
    )
    platform.fail("GET", "/api/submissions/1/", "body", 1, (200, scores.encode()))
    with pytest.raises(PlatformError, match=r"an odd shape \(scores\.0\.score"):
        client.submission(1)


def test_the_list_may_come_in_pages(platform: Platform, client: CodabenchClient) -> None:
    page = {"count": 1, "results": [{"id": 5, "status": "Finished"}]}
    platform.fail("GET", "/api/submissions/$", "body", 1, (200, json.dumps(page).encode()))
    assert [entry.id for entry in client.submissions(71)] == [5]


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (403, b'{"detail": "Invalid token."}', "Invalid token.; the token is missing, wrong or"),
        (404, b'{"detail": "Not found."}', "answered 404: Not found"),
        (400, b'{"data_file": ["quota", "used up"]}', "answered 400: data_file: quota used up"),
        (418, b"\x1b[2J\x00evil", "answered 418: �\\[2J�evil"),
        (301, b"", "a redirect to https://elsewhere.example/ is not followed"),
        (500, b"<h1>", r"answered 500: \(an HTML page\)"),
    ],
)
def test_refusals(
    status: int, body: bytes, text: str, platform: Platform, client: CodabenchClient
) -> None:
    extra = {"Location": "https://elsewhere.example/?q=1"} if status == 301 else {}
    platform.fail("GET", "can_make", "body", 1, (status, body, extra))
    with pytest.raises(PlatformError, match=text) as found:
        client.can_submit(71)
    assert found.value.status == status
    assert TOKEN not in str(found.value)


def test_a_wrong_token_is_explained(platform: Platform) -> None:
    with (
        CodabenchClient(platform.url, SecretStr("0123456789")) as client,
        pytest.raises(PlatformError, match="set CODABENCH_TOKEN"),
    ):
        client.can_submit(71)
    with (
        CodabenchClient(platform.url) as client,
        pytest.raises(PlatformError, match="set CODABENCH_TOKEN"),
    ):
        client.can_submit(71)


def test_an_unpublished_competition(platform: Platform) -> None:
    platform.published = False
    key = SecretStr(SECRET_KEY)
    with CodabenchClient(platform.url, SecretStr(TOKEN), secret_key=key) as client:
        assert client.competition(7).title == "Neural [forecasting]"
    with (
        CodabenchClient(platform.url, SecretStr(TOKEN)) as client,
        pytest.raises(PlatformError, match="set CODABENCH_SECRET_KEY"),
    ):
        client.competition(7)


def test_cookies_are_not_kept(platform: Platform, client: CodabenchClient) -> None:
    client.can_submit(71)
    client.can_submit(71)
    assert all("cookie" not in call.headers for call in platform.calls)


# ---- hosts and secrets ------------------------------------------------------------------------


def test_a_proxy_never_sees_what_goes_to_this_machine(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, platform.storage_url)  # any server: it must not be asked
    with CodabenchClient(platform.url, SecretStr(TOKEN), patience=Patience(tries=1)) as client:
        assert client.competition(7).id == 7
    assert [call.headers["host"] for call in platform.calls] == [platform.url.partition("//")[2]]


@pytest.mark.parametrize("proxy", ["socks5://u:hidden-word@h:1", "foo://u:hidden-word@h", "[::zz"])
def test_a_proxy_that_cannot_be_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(ConfigError, match="names a proxy that cannot be used") as caught:
        CodabenchClient("https://codabench.invalid")
    assert "hidden-word" not in str(caught.value)


def test_a_proxy_that_refuses_is_named(
    client: CodabenchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> httpx.Response:
        raise httpx.ProxyError("407 Proxy Authentication Required")

    monkeypatch.setattr(client._http, "send", refuse)
    with pytest.raises(PlatformError, match="proxy does not let it through") as caught:
        client.create_submission({})
    assert not caught.value.unsure


def test_an_answer_that_repeats_the_password(platform: Platform) -> None:
    password = 'päss "word" of mine'
    body = json.dumps({"password": [f"{password} is too long"]}).encode()
    platform.fail("POST", "/api/api-token-auth/", "body", value=(422, body))
    with (
        CodabenchClient(platform.url) as client,
        pytest.raises(PlatformError, match=r"\*\*\* is too long") as caught,
    ):
        client.log_in(USERNAME, SecretStr(password))
    assert "word" not in str(caught.value).replace("password:", "")


def test_sites() -> None:
    assert site("https://www.codabench.org/") == "https://www.codabench.org"
    assert site("http://localhost:8000") == "http://localhost:8000"
    for wrong in (
        "http://www.codabench.org",
        "ftp://localhost",
        "https://ada:secret-word@www.codabench.org",
        "https://www.codabench.org/api/",
        "https://",
        "codabench",
        "https://[",
    ):
        with pytest.raises(ConfigError) as found:
            site(wrong)
        assert "secret-word" not in str(found.value)


def test_a_public_site_may_not_point_at_this_machine() -> None:
    with pytest.raises(PlatformError, match="a public host"):
        safe_url("https://localhost/x", "the URL", local=False)
    with pytest.raises(PlatformError, match="expected https://"):
        safe_url("http://storage.example/x?sig=secret", "the URL", local=True)


@pytest.mark.parametrize("token", ["with blank", "line\nbreak", "ü", ""])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(CredentialsError) as found:
        CodabenchClient("http://localhost", SecretStr(token))
    assert not token or token not in str(found.value)


def test_downloads_follow_redirects_without_the_token(
    platform: Platform, client: CodabenchClient, tmp_path: Path
) -> None:
    link = platform.signed(platform._place("log", b"text", 4))
    platform.fail("GET", "/moved/", "body", 1, (302, b"", {"Location": link}))
    start = f"{platform.storage_url}/moved/1"
    client.storage.get(start, "a log", tmp_path / "log", lambda done, total: None)
    assert (tmp_path / "log").read_bytes() == b"text"
    away = {"Location": "http://elsewhere.example/"}
    platform.fail("GET", "/moved/", "body", 1, (302, b"", away))
    with pytest.raises(PlatformError, match="the redirect of a log begins with"):
        client.storage.get(start, "a log", tmp_path / "log", lambda done, total: None)
    platform.fail("GET", "/moved/", "body", 9, (302, b"", {"Location": start}))
    with pytest.raises(PlatformError, match="answered 302, expected 200"):
        client.storage.get(start, "a log", tmp_path / "log", lambda done, total: None)


def test_secrets_do_not_show_in_a_representation(client: CodabenchClient) -> None:
    details = Details.model_validate({"scoring_result": "https://h/x?sig=secret"})
    assert "sig=secret" not in repr(details)
    assert TOKEN not in repr(vars(client))


def test_plain_text_is_short_and_printable() -> None:
    assert plain("a\n\x1b[31mb\u202e") == "a �[31mb�"
    assert len(plain("x" * 10_000)) == 500
