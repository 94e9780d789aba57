"""HTTP as CodaBench needs it: bounded answers, pauses between tries, secrets that stay here.

Two clients that share nothing: one for the platform, which sends the token, and one for its
storage, which never sees it. Neither keeps cookies or follows a redirect by itself.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

import httpx

from submission.codabench.answers import plain
from submission.errors import ConfigError, PlatformError

HOST = re.compile(r"[0-9A-Za-z.:_-]+")
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_ANSWER = 16 << 20
MAX_DOWNLOAD = 8 << 30
BLOCK = 1 << 18
CONNECT = 20.0
BUSY = frozenset({429, 502, 503, 504})
REDIRECTS = 3
Advance = Callable[[int, int | None], None]  # bytes so far, bytes in all where known


@dataclass(frozen=True)
class Patience:
    """How often a call is tried and how long the pauses are, in seconds; each twice the last."""

    tries: int = 5
    first: float = 1.0
    longest: float = 120.0
    silence: float = 60.0  # the longest that nothing may arrive
    answer: float = 180.0  # the longest that one answer may take to arrive in full
    sleep: Callable[[float], None] = time.sleep

    def pause(self, attempt: int, response: httpx.Response | None) -> None:
        """Wait after try number `attempt` (from 0), or as long as the answer's Retry-After says."""
        asked = None if response is None else _retry_after(response)
        self.sleep(min(self.first * 2**attempt if asked is None else asked, self.longest))


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return None


def safe_url(text: str, what: str, local: bool) -> httpx.URL:
    """`text` as a URL that may be called; raises PlatformError without quoting its query.

    It must be https; with `local`, http to this machine will do.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise PlatformError(f"{what} is no URL; expected https://…") from None
    if url.userinfo:
        raise PlatformError(f"{what} holds a user name or password; expected https://host/…")
    if url.scheme == "https" and HOST.fullmatch(url.host) and (local or url.host not in LOCAL):
        return url
    if local and url.scheme == "http" and url.host in LOCAL:
        return url
    shown = plain(f"{url.scheme}://{url.host}", 120)
    raise PlatformError(f"{what} begins with {shown}; expected https:// and a public host")


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates, read once for both clients; raises ConfigError."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ConfigError(
            f"SSL_CERT_FILE or SSL_CERT_DIR: no certificates can be read there ({error})"
        ) from None


def new_client(patience: Patience, local: bool) -> httpx.Client:
    """A client without cookies, redirects or compression.

    It goes through the environment's proxy, but never to this machine (`local`): that way is not
    encrypted, and the proxy would read the token. Raises ConfigError for a proxy that is none.
    """
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    headers = {"Accept-Encoding": "identity", "User-Agent": "axonnx"}
    timeout = httpx.Timeout(patience.silence, connect=CONNECT)
    trusted = _trusted()
    try:
        return httpx.Client(
            verify=trusted,
            timeout=timeout,
            headers=headers,
            cookies=jar,
            follow_redirects=False,
            trust_env=not local,
        )
    except (ImportError, ValueError, httpx.InvalidURL):  # their texts may quote a password
        raise ConfigError(
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: names a proxy that cannot be used; expected "
            "http://host:port (SOCKS is not known here), or none for CodaBench with NO_PROXY"
        ) from None


def read_bounded(response: httpx.Response, call: str, limit: int, seconds: float) -> bytes:
    """The body, at most `limit` bytes and `seconds` long; raises PlatformError beyond."""
    body, end = bytearray(), time.monotonic() + seconds
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > limit:
            raise PlatformError(
                f"{call} answered {response.status_code} with over {limit} bytes; "
                "expected a short answer",
                response.status_code,
                unsure=True,
            )
        if time.monotonic() > end:
            raise httpx.ReadTimeout("the answer is too slow")
    return bytes(body)


class Storage:
    """The storage host behind signed URLs: uploads and downloads without any credentials."""

    def __init__(self, patience: Patience, local: bool) -> None:
        self._patience = patience
        self._local = local
        self._http = new_client(patience, local)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def put(self, link: str, file: BinaryIO, size: int, sha256: str, advance: Advance) -> None:
        """Send the `size` bytes of `file` to a signed URL; repeating it does no harm.

        Raises ConfigError when the bytes are not those of `sha256`, before the last are sent, and
        PlatformError when the storage refuses or cannot be reached.
        """
        url = safe_url(link, "the upload URL that CodaBench gave", self._local)
        headers = {"Content-Type": "application/zip", "Content-Length": str(size)}
        if url.host.endswith(".blob.core.windows.net"):
            headers |= {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2018-03-28"}
        call = f"PUT of the zip to {plain(url.host, 120)}"

        def send() -> httpx.Response:
            body = _blocks(file, size, sha256, advance)
            request = self._http.build_request("PUT", url, headers=headers, content=body)
            response = self._http.send(request, stream=True)
            try:
                read_bounded(response, call, MAX_ANSWER, self._patience.answer)
            finally:
                response.close()
            return response

        response = self._try(call, send)
        if response.status_code not in (200, 201):
            raise PlatformError(
                f"{call} was answered {response.status_code}, expected 200 or 201; the signed URL "
                "may have run out: run the command again, which asks for a new one",
                response.status_code,
            )

    def get(self, link: str, what: str, target: Path, advance: Advance) -> None:
        """Fetch a signed URL into the new file `target`; raises PlatformError with its status."""
        url = safe_url(link, f"the URL of {what}", self._local)
        for _ in range(REDIRECTS):
            save = partial(self._save, url, what, target, advance)
            response = self._try(f"GET of {what}", save)
            if not response.has_redirect_location:
                break
            location = urljoin(str(url), response.headers["location"])
            url = safe_url(location, f"the redirect of {what}", self._local)
        if response.status_code != 200:
            raise PlatformError(
                f"GET of {what} from {plain(url.host, 120)} was answered {response.status_code}, "
                "expected 200",
                response.status_code,
            )

    def _save(self, url: httpx.URL, what: str, target: Path, advance: Advance) -> httpx.Response:
        with self._http.stream("GET", url) as response:
            if response.status_code != 200:
                return response
            length = response.headers.get("content-length", "")
            total = int(length) if length.isascii() and length.isdigit() else None
            done = 0
            with target.open("wb") as file:
                for chunk in response.iter_bytes():
                    done += len(chunk)
                    if done > MAX_DOWNLOAD:
                        raise PlatformError(f"{what} has over {MAX_DOWNLOAD} bytes; not fetched")
                    file.write(chunk)
                    advance(done, total)
            return response

    def _try(self, call: str, send: Callable[[], httpx.Response]) -> httpx.Response:
        for attempt in range(self._patience.tries):
            last = attempt + 1 == self._patience.tries
            try:
                response = send()
            except httpx.HTTPError as error:
                if last:
                    raise PlatformError(f"{call} failed: {reason(error)}") from None
                self._patience.pause(attempt, None)
                continue
            if last or response.status_code not in BUSY | {500}:
                return response
            self._patience.pause(attempt, response)
        raise AssertionError("at least one try is made")


def _blocks(file: BinaryIO, size: int, sha256: str, advance: Advance) -> Iterator[bytes]:
    """`size` bytes from the file's start, checked before the last block leaves."""
    file.seek(0)
    digest, sent = hashlib.sha256(), 0
    while sent < size:
        block = file.read(min(BLOCK, size - sent))
        digest.update(block)
        sent += len(block)
        if not block or (sent == size and digest.hexdigest() != sha256):
            raise ConfigError("the zip changed while it was being sent; run the command again")
        yield block
        advance(sent, size)


def reason(error: httpx.HTTPError) -> str:
    """What went wrong, without the URL."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.ProxyError):
        return f"the environment's proxy does not let it through ({plain(error, 120)})"
    if isinstance(error, httpx.ConnectError):
        return f"no connection ({plain(error, 120)})"
    return f"the connection broke ({type(error).__name__})"
