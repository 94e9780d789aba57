"""The page for people at `/` and the reference of the routes at `/docs`; neither needs internet.

Our own files lie in the folder `page`; the two large scripts are those of installed packages,
found without importing them. Nothing is read before someone asks for it; then it is kept packed.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import Response

from artifact.arrays import encode_npz
from serve.answers import artifact_header
from serve.errors import NotFound
from serve.negotiation import NPZ
from serve.service import Service

MARKDOWN = "text/markdown; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
_STYLE = "text/css; charset=utf-8"
_OWN = Path(__file__).with_suffix("")
_HOUR, _NOW = "public, max-age=3600", "no-cache"


@dataclass(frozen=True)
class Source:
    """Where a file comes from: our folder, or an installed package; its type; how long it keeps."""

    path: str
    media_type: str
    package: str | None = None

    @property
    def cache(self) -> str:
        """Cache-Control: our own files change with us, those of packages with an installation."""
        return _NOW if self.package is None else _HOUR


@dataclass(frozen=True)
class Packed:
    """A file's gzip bytes and its entity tag."""

    content: bytes
    etag: str


INDEX = Source("index.html", _HTML)
DOCS = Source("docs.html", _HTML)
FILES = {
    "page.css": Source("page.css", _STYLE),
    "icon.svg": Source("icon.svg", "image/svg+xml"),
    "docs.js": Source("docs.js", _SCRIPT),
    **{
        f"{name}.js": Source(f"{name}.js", _SCRIPT)
        for name in (
            *("page", "dom", "service", "arrays", "npy", "card", "facts"),
            *("run", "answer", "figures", "forecast", "recording", "table", "theme"),
            *("npz_writer", "simulate", "simulation"),
        )
    },
    "plotly.js": Source("package_data/plotly.min.js", _SCRIPT, "plotly"),
    "swagger-ui.js": Source("static/swagger-ui-bundle.js", _SCRIPT, "fastapi_offline"),
    "swagger-ui.css": Source("static/swagger-ui.css", _STYLE, "fastapi_offline"),
}
# Styles may be inline because both scripts write some; scripts may not, so data never becomes code.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
}


def add_page(api: FastAPI, service: Service) -> None:
    """Add `/`, `/page/{file}`, `/docs`, and what the page asks of a model: its card, an example."""

    async def index(request: Request) -> Response:
        return await _answer(request, INDEX)

    async def docs(request: Request) -> Response:
        return await _answer(request, DOCS)

    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in FILES:
            raise NotFound(f"/page/{name[:100]}: no such file of the page")
        return await _answer(request, FILES[name])

    # Routes of starlette: they answer HEAD as well and stay out of the OpenAPI document.
    api.router.add_route("/", index, ["GET"])
    api.router.add_route("/docs", docs, ["GET"])
    api.router.add_route("/page/{file}", file, ["GET"])

    @api.get("/models/{name}/card", include_in_schema=False)
    async def card(name: str) -> Response:
        """The model card, in Markdown."""
        served = service.repository.find(name)
        return Response(served.model.card, headers=artifact_header(served), media_type=MARKDOWN)

    @api.get("/models/{name}/golden", include_in_schema=False)
    async def golden(name: str) -> Response:
        """The inputs of the golden rows, as `.npz`: an example that the model answers."""
        served = service.repository.find(name)
        content = await asyncio.to_thread(encode_npz, served.model.golden_inputs)
        return Response(content, headers=artifact_header(served), media_type=NPZ)


@functools.cache
def load(source: Source) -> Packed:
    """The file, packed; kept from the first call on. Raises NotFound where it is not installed."""
    try:
        content = _locate(source).read_bytes()
    except FileNotFoundError:
        owner = source.package or "serve"
        raise NotFound(f"{source.path} of the package {owner} is not installed") from None
    digest = hashlib.sha256(content).hexdigest()[:32]
    return Packed(gzip.compress(content, mtime=0), f'W/"{digest}"')


def _locate(source: Source) -> Path:
    if source.package is None:
        return _OWN / source.path
    spec = find_spec(source.package)  # finds the folder; imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(source.package)
    return Path(spec.submodule_search_locations[0]) / source.path


async def _answer(request: Request, source: Source) -> Response:
    """The file, packed for those who can unpack it, or the word that it has not changed."""
    packed = await asyncio.to_thread(load, source)
    headers = {**HEADERS, "ETag": packed.etag, "Cache-Control": source.cache}
    known = request.headers.get("if-none-match", "")
    if packed.etag in (tag.strip() for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    content = packed.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        content = await asyncio.to_thread(gzip.decompress, content)
    return Response(content, headers=headers, media_type=source.media_type)
