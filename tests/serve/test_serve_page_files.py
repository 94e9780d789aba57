"""The files of the page as they are served: types, policy, tags; nothing from elsewhere."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from server_process import ROOT, Server, running

import artifact
from artifact.arrays import decode_npz
from serve.page import DOCS, FILES, INDEX, POLICY

FOLDER = ROOT / "serve" / "page"
PATHS = {"/": INDEX, "/docs": DOCS, **{f"/page/{name}": FILES[name] for name in FILES}}
OWN = [source for source in PATHS.values() if source.package is None]


@pytest.mark.parametrize("path", PATHS)
def test_every_file(forecast_server: Server, path: str) -> None:
    client = forecast_server.client
    packed = client.get(path, headers={"Accept-Encoding": "gzip"})
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert packed.status_code == plain.status_code == 200
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content != b""
    source = PATHS[path]
    if source.package is None:
        assert plain.content == (FOLDER / source.path).read_bytes()
        assert plain.headers["cache-control"] == "no-cache"
    assert plain.headers["content-type"] == source.media_type
    assert plain.headers["content-security-policy"] == POLICY
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert plain.headers["referrer-policy"] == "no-referrer"
    assert plain.headers["vary"] == "Accept-Encoding"
    assert "x-request-id" in plain.headers
    head = client.head(path, headers={"Accept-Encoding": "identity"})
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(plain.content)


def test_a_file_that_is_known_is_not_sent_again(forecast_server: Server) -> None:
    first = forecast_server.client.get("/page/page.js")
    for tag in (first.headers["etag"], f'"other", {first.headers["etag"]}'):
        again = forecast_server.client.get("/page/page.js", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    other = forecast_server.client.get("/page/page.js", headers={"If-None-Match": '"other"'})
    assert other.content == first.content


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpage.py", "%2e%2e%2fpage.py", "index.html"])
def test_no_other_file(forecast_server: Server, name: str) -> None:
    response = forecast_server.client.get(f"/page/{name}")
    assert response.status_code == 404
    assert response.json()["type"] == "not_found"


def test_scripts_may_not_be_inline_nor_from_elsewhere() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"


def test_our_files_are_all_there_and_name_no_other_host() -> None:
    assert {source.path for source in OWN} == {path.name for path in FOLDER.iterdir()}
    for source in OWN:
        text = (FOLDER / source.path).read_text(encoding="utf-8")
        links = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org"}  # SVG's name
        assert links == set(), source.path
        for module in re.findall(r'from "\./([\w.]+)"', text):
            assert module in FILES, source.path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)


def test_the_page_is_no_part_of_the_document(forecast_server: Server) -> None:
    paths = forecast_server.client.get("/openapi.json").json()["paths"]
    assert not {"/", "/docs", "/page/{file}"} & set(paths)
    assert "/models/{name}/predict" in paths


def test_card_and_golden_example(
    forecast_server: Server, forecaster: Path, forecaster_model: artifact.Model
) -> None:
    client = forecast_server.client
    card = client.get("/models/small-forecaster/card")
    assert card.content == (forecaster / "README.md").read_bytes()
    assert card.headers["content-type"] == "text/markdown; charset=utf-8"
    golden = client.get("/models/small-forecaster/golden")
    assert golden.headers["content-type"] == "application/x-npz"
    assert golden.headers["x-artifact-id"] == card.headers["x-artifact-id"] == forecaster_model.id
    answer = client.post(
        "/predict", content=golden.content, headers={"Content-Type": "application/x-npz"}
    )
    stored = decode_npz((forecaster / "golden.npz").read_bytes())
    got = decode_npz(answer.content)["forecast"]
    assert got.tobytes() == stored["output.forecast"].tobytes()
    for what in ("card", "golden"):
        missing = client.get(f"/models/other/{what}")
        assert (missing.status_code, missing.json()["type"]) == (404, "not_found")


def test_nothing_large_is_imported_or_read_before_it_is_asked_for() -> None:
    code = (
        "import sys\n"
        "from serve import page\n"
        "assert page.load.cache_info().currsize == 0\n"
        "assert len(page.load(page.FILES['plotly.js']).content) < 2_500_000\n"
        "bad = {'plotly', 'fastapi_offline'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_service_without_the_page(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, tiny, page=False) as server:
        for path in ("/", "/docs", "/page/page.js", "/models/tiny/card", "/models/tiny/golden"):
            assert server.client.get(path).status_code == 404, path
        assert server.client.get("/models/tiny").status_code == 200


def test_packing_is_the_same_every_time(forecast_server: Server) -> None:
    with httpx.stream(
        "GET", f"{forecast_server.url}/page/page.css", headers={"Accept-Encoding": "gzip"}
    ) as response:
        raw = b"".join(response.iter_raw())
    text = (FOLDER / "page.css").read_bytes()
    assert raw == gzip.compress(text, mtime=0)
