"""The page in a real browser: files in, figures and files out, errors, keys, no other host."""

from __future__ import annotations

import csv
import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import WAIT_MS, chromium, visit
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from playwright.sync_api import Browser, Page
from posterior_artifact import write_posterior
from server_process import Server, running

import artifact
from artifact.arrays import Array, decode_npz, encode_npy, encode_npz

KEY = "a-key-that-nobody-knows"
some = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def posterior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_posterior(tmp_path_factory.mktemp("artifacts") / "posterior")


@pytest.fixture(scope="module")
def server(
    forecaster: Path, decoder: Path, posterior: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("page"), forecaster, decoder, posterior) as found:
        yield found


def address(server: Server, name: str) -> str:
    return f"{server.url}/#{name}"


def masked(rows: int = 3) -> Array:
    """Windows whose steps from 10 on repeat step 9."""
    generator = np.random.default_rng(7)
    windows = generator.normal(100, 50, (rows, 20, 4, 9)).astype(np.float32)
    windows[:, 10:] = windows[:, 9:10]
    return windows


def by_role(traces: list[dict[str, Any]], role: str) -> dict[int, list[float]]:
    """Values of the traces of a role, by channel or place."""
    return {
        trace["meta"].get("channel", trace["meta"].get("place")): trace["y"]
        for trace in traces
        if trace["meta"]["role"] == role
    }


def by_role_colour(traces: list[dict[str, Any]], role: str) -> str:
    """The colour of the first trace of a role."""
    return next(str(trace["line"]["color"]) for trace in traces if trace["meta"]["role"] == role)


def test_a_dropped_file_is_answered_drawn_and_saved(
    browser: Browser, server: Server, forecaster_model: artifact.Model
) -> None:
    windows = masked()
    expected = forecaster_model.predict({"neural": windows})["forecast"]
    with visit(browser, address(server, "small-forecaster")) as seen:
        seen.page.wait_for_selector("#inputs")
        assert seen.page.inner_text("#inputs tbody code >> nth=2") == (
            "(batch, time=20, channel=4, feature=9)"
        )
        seen.drop(("windows.npy", encode_npy(windows)))
        traces = seen.drawn("forecast")
        forecasts, observed = by_role(traces, "forecast"), by_role(traces, "observed")
        for channel in range(4):
            assert np.array_equal(np.float32(forecasts[channel]), expected[0, :, channel])
            assert np.array_equal(np.float32(observed[channel]), windows[0, :10, channel, 0])
        marks = [shape["x0"] for shape in seen.layout("forecast")["shapes"]]
        assert marks == [9.5] * 8
        facts = seen.page.inner_text("#answer .origin")
        assert forecaster_model.id[:16] in facts
        name, saved = seen.saved("#save")
        assert re.fullmatch(r"small-forecaster-\w{8}\.npz", name)
    assert saved == encode_npz({"forecast": expected})


def test_wrong_files_are_refused_with_what_would_be_right(browser: Browser, server: Server) -> None:
    layout = "neural: float32 (batch, time=20, channel=4, feature=9)"
    with visit(
        browser,
        address(server, "small-forecaster"),
        "status of 400",
        viewport={"width": 390, "height": 844},
    ) as seen:
        seen.page.wait_for_selector("#drop")
        seen.drop(("notes.txt", b"hello"))
        assert "notes.txt is neither .npy nor .npz; nothing was sent" in seen.failure()
        assert layout in seen.failure()
        seen.drop(("a.npy", encode_npy(masked())), ("b.npy", encode_npy(masked())))
        assert "2 files; one is wanted" in seen.failure()
        wrong = encode_npy(np.zeros((2, 20, 4), np.float32))
        with seen.page.expect_response("**/predict") as answer:
            seen.page.set_input_files(
                "#file", {"name": "wrong.npy", "mimeType": "", "buffer": wrong}
            )
        seen.page.wait_for_selector(".failure .origin")
        body, text = answer.value.json(), seen.failure()
        assert answer.value.status == 400
        assert body["request_id"] == answer.value.headers["x-request-id"]
        for part in (body["error"], body["type"], body["field"], body["request_id"], layout):
            assert part in text


@pytest.mark.slow
def test_the_golden_example_by_keyboard_classes_and_csv(
    browser: Browser, server: Server, decoder: Path
) -> None:
    expected = decode_npz((decoder / "golden.npz").read_bytes())["output.probability"]
    with visit(browser, address(server, "small-decoder")) as seen:
        seen.page.wait_for_selector("#golden")
        seen.page.focus("#file")
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.press("Enter")
        bars, rows = seen.drawn("probability")
        assert np.array_equal(np.float32(bars["x"]), expected[0])
        assert bars["y"] == ["hand", "foot", "rest"]
        assert np.array_equal(np.float32(rows["z"]), expected.T)
        seen.page.click('button[aria-label="next row"]')
        seen.page.wait_for_function(
            "document.querySelector('.plot').getAttribute('aria-label').endsWith('row 1')"
        )
        assert np.array_equal(np.float32(seen.drawn("probability")[0]["x"]), expected[1])
        name, table = seen.saved('[data-output="probability"] button:text("CSV")')
        assert name == "small-decoder-probability.csv"
        head, *lines = csv.reader(io.StringIO(table.decode()))
        assert head == ["batch", "class 0", "class 1", "class 2"]
        got = np.array([line[1:] for line in lines], np.float64).astype(np.float32)
        assert got.tobytes() == expected.tobytes()
        _, example_file = seen.saved("#keep")
        assert set(decode_npz(example_file)) == {"neural", "behavior", "behavior_mask"}


@pytest.mark.slow
def test_posteriors_maps_lines_and_single_numbers(
    browser: Browser, server: Server, posterior: Path
) -> None:
    stored = decode_npz((posterior / "golden.npz").read_bytes())
    with visit(browser, address(server, "posterior"), color_scheme="dark") as seen:
        seen.page.click("#golden")
        histograms = seen.drawn("theta")
        assert [trace["type"] for trace in histograms] == ["histogram"] * 3
        for parameter, trace in enumerate(histograms):
            values = np.float32(trace["x"])
            assert np.array_equal(values, stored["output.theta"][0, :, parameter])
        (heat,) = seen.drawn("coupling")
        assert np.array_equal(np.float32(heat["z"]), stored["output.coupling"][0])
        (line,) = seen.drawn("activity")
        assert np.array_equal(np.float32(line["y"]), stored["output.activity"][0])
        (bars,) = seen.drawn("score")
        assert np.array_equal(np.float32(bars["y"]), stored["output.score"])
        seen.page.fill('[data-output="theta"] input[type="text"]', "2")
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_function(
            "document.querySelector('[data-output=\"theta\"] .plot').data.length === 1"
        )
        assert seen.drawn("theta")[0]["meta"]["place"] == 2
        seen.page.click('[data-output="activity"] summary')
        cells = '[data-output="activity"] .numbers tbody td'
        seen.page.wait_for_selector(cells)
        shown = [np.float32(text) for text in seen.page.locator(cells).all_inner_texts()[1::2]]
        assert np.array_equal(shown, stored["output.activity"][0])


@pytest.mark.slow
def test_no_button_sends_data_elsewhere_and_the_width_of_a_phone_is_enough(
    browser: Browser, server: Server
) -> None:
    size = {"width": 390, "height": 844}
    with visit(browser, address(server, "small-forecaster"), viewport=size) as seen:
        seen.page.click("#golden")
        seen.drawn("forecast")
        buttons = "[...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title)"
        titles = seen.page.evaluate(buttons)
        assert len(titles) == 6
        assert not [title for title in titles if re.search("cloud|share|studio", title, re.I)]
        light = by_role_colour(seen.drawn("forecast"), "observed")
        seen.page.emulate_media(color_scheme="dark")
        seen.page.wait_for_function(
            "colour => document.querySelector('.plot').data[1].line.color !== colour", arg=light
        )
        assert seen.layout("forecast")["width"] < 390
        for script in ("document.documentElement.scrollWidth", "document.body.scrollWidth"):
            assert seen.page.evaluate(script) <= 390
        unnamed = seen.page.evaluate(
            "[...document.querySelectorAll('button, input, summary, a')].filter((node) =>"
            " !(node.ariaLabel || node.textContent.trim() || node.labels?.length"
            " || node.dataset.title)).length"
        )
        assert unnamed == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, server: Server, scheme: str) -> None:
    with visit(browser, server.url, color_scheme=scheme) as seen:
        script = """(names) => {
          const style = getComputedStyle(document.documentElement);
          return names.map((name) => style.getPropertyValue(`--${name}`));
        }"""
        names = ["ink", "muted", "good", "bad", "caution", "accent", "surface", "ground"]
        *texts, surface, ground = seen.page.evaluate(script, names)
    for text in texts:
        assert min(contrast(text, surface), contrast(text, ground)) >= 4.5, text


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours, #rrggbb each (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = np.frombuffer(bytes.fromhex(colour.strip()[1:]), np.uint8) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.slow
def test_the_routes_are_listed_without_internet(browser: Browser, server: Server) -> None:
    with visit(browser, f"{server.url}/docs") as seen:
        seen.page.wait_for_selector(".opblock", timeout=WAIT_MS)
        listed = set(seen.page.locator(".opblock-summary-path").all_inner_texts())
    plain = {re.sub("[\u200b\\s]", "", path) for path in listed}
    assert plain == set(server.client.get("/openapi.json").json()["paths"])


@pytest.mark.slow
def test_keys_broken_artifacts_and_a_service_that_is_gone(
    browser: Browser, forecaster: Path, decoder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(decoder, broken)
    (broken / "model.onnx").write_bytes(b"\0")
    server = Server(tmp_path / "log", forecaster, broken, api_keys=KEY)
    try:
        with visit(browser, server.url, "Failed to load resource") as seen:
            seen.page.fill("#key", "a-key-that-is-wrong")
            seen.page.keyboard.press("Enter")
            seen.page.wait_for_function("document.querySelector('#key').value === ''")
            seen.page.fill("#key", KEY)
            seen.page.keyboard.press("Enter")
            seen.page.wait_for_selector("#golden")
            failed = seen.page.inner_text("#models .failed")
            assert "small-decoder" in failed
            assert "broken: model.onnx" in failed
            assert KEY not in seen.page.content()
            seen.page.click("#golden")
            assert len(by_role(seen.drawn("forecast"), "forecast")) == 4
            server.stop()
            seen.page.click("#golden")
            assert "gave no answer" in seen.failure()
    finally:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="module")
def modules(browser: Browser, server: Server) -> Iterator[Page]:
    with visit(browser, server.url) as seen:
        yield seen.page


READ = """
async ([kind, text]) => {
  const { readNpy, readNpz, kindOf, FormatError } = await import("/page/npy.js");
  const { toCsv } = await import("/page/arrays.js");
  const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
  try {
    const found = kind === "npy" ? readNpy(bytes) : (await readNpz(bytes)).get("x");
    if (!found) return { refused: "another name" };
    const axes = found.shape.map((_, i) => `a${i}`);
    const { dtype, shape } = found;
    return { kind: kindOf(bytes), dtype, shape, csv: toCsv("x", axes, found) };
  } catch (error) {
    if (error instanceof FormatError) return { refused: error.message };
    throw error;
  }
}
"""
ARRAYS = st.sampled_from(["f4", "f8", "i4", "i8", "u1", "b1"]).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(max_dims=4, max_side=4))
)


def read(page: Page, kind: str, content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(READ, [kind, content.decode("latin-1")])
    return found


def from_csv(text: str, dtype: np.dtype[Any], rank: int) -> Array:
    lines = list(csv.reader(io.StringIO(text)))[1:]
    cells = [cell for line in lines for cell in line[max(1, rank - 1) if rank > 1 else 1 :]]
    if dtype == np.bool_:
        return np.array([cell == "true" for cell in cells])
    convert = int if dtype.kind in "iu" else float
    return np.array([convert(cell) for cell in cells], dtype)


@pytest.mark.slow
@some
@given(array=ARRAYS, fortran=st.booleans(), kind=st.sampled_from(["npy", "npz", "packed"]))
@example(np.array([[0.1, -0.0, np.inf, -np.inf, np.nan, 1e-45]], np.float32), False, "npy")
def test_arrays_are_read_and_written_exactly(
    modules: Page, array: Array, fortran: bool, kind: str
) -> None:
    stream = io.BytesIO()
    array = np.asfortranarray(array) if fortran else array
    if kind == "npy":
        np.save(stream, array)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(stream, x=array)
    found = read(modules, kind, stream.getvalue())
    assert found["kind"] == ("npy" if kind == "npy" else "npz")
    assert (found["dtype"], found["shape"]) == (str(array.dtype), list(array.shape))
    got = from_csv(found["csv"], array.dtype, array.ndim)
    np.testing.assert_array_equal(got, array.ravel())


@pytest.mark.slow
@some
@given(data=st.data(), packed=st.booleans())
def test_damaged_files_are_refused_and_nothing_else_happens(
    modules: Page, data: st.DataObject, packed: bool
) -> None:
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("x.npy", encode_npy(np.arange(12.0).reshape(3, 4)))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    read(modules, "npz", bytes(content))  # an answer of either kind; anything else raises
    short = read(modules, "npz", bytes(content[:cut]))
    assert cut == len(content) or "refused" in short


@pytest.mark.slow
def test_a_card_cannot_become_code(modules: Page) -> None:
    card = (
        "# Card <img src=x onerror=alert(1)>\n\n<script>alert(1)</script>\n"
        "[bad](javascript:alert(1)) and [good](https://example.org/a)\n\n"
        "| a | b |\n|---|---|\n| `x` | **y** |\n\n- one\n  more\n- two\n\n1. first\n\n"
        "```python\n<b>code</b>\n```\n"
    )
    found = modules.evaluate(
        """async (text) => {
          const { renderCard } = await import("/page/card.js");
          const node = renderCard(text);
          const names = [...node.querySelectorAll("*")].map((item) => item.localName);
          const links = [...node.querySelectorAll("a")].map((item) => item.href);
          return { names, links, text: node.textContent };
        }""",
        card,
    )
    assert not {"img", "script", "b"} & set(found["names"])
    assert {"h3", "p", "table", "ul", "ol", "li", "pre", "code", "strong"} <= set(found["names"])
    assert found["names"].count("li") == 3
    assert found["links"] == ["https://example.org/a"]
    assert "<script>alert(1)</script>" in found["text"]
    assert "one more" in found["text"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "places"),
    [("0-3, 7", [0, 1, 2, 3, 7]), ("9 2", [2, 9]), ("8-99", [8, 9]), ("x, -1, 3.5, 10", [])],
)
def test_spans_of_channels(modules: Page, text: str, places: list[int]) -> None:
    script = "async (text) => (await import('/page/answer.js')).parseSpans(text, 10)"
    assert modules.evaluate(script, text) == places
