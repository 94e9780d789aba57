"""The page of a network: fields become its inputs, answers are drawn over time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import WAIT_MS, Visit, chromium, visit
from playwright.sync_api import Browser
from seeded_artifact import DT, NODES, NOISE, STEPS, expected, write_seeded
from server_process import Server, running

from artifact.arrays import decode_npz, encode_npz
from artifact.noise import standard_normals, with_noise


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seeded(tmp_path_factory.mktemp("artifacts") / "seeded")


@pytest.fixture(scope="module")
def server(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("page"), seeded) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def drawn(seen: Visit) -> dict[int, np.ndarray]:
    """Values of the traces, by node."""
    traces = [trace for trace in seen.drawn("x") if trace["type"] == "scatter"]
    return {trace["meta"]["place"]: np.float32(trace["y"]) for trace in traces}


def test_fields_become_a_simulation(browser: Browser, server: Server) -> None:
    with visit(browser, f"{server.url}/#seeded") as seen:
        page = seen.page
        page.wait_for_selector("#simulate")
        assert page.input_value("#simulate-gain, #simulate-own-gain") == "0.5"
        assert page.input_value("#simulate-amplitude-stimulus") == "0.25"
        for name, value in {
            "duration": "60",
            "rows": "2",
            "seed": "11",
            "amplitude-stimulus": "1.5",
            "from": "10",
            "until": "20",
            "nodes": "1-2",
            "own-gain": "0.25",
        }.items():
            page.fill(f"#simulate-{name}", value)
        page.click("#simulate button")
        first = drawn(seen)
        steps = 30
        stimulus = np.zeros((2, steps, NODES), np.float32)
        stimulus[:, 5:10, 1:] = 1.5
        wanted = expected(stimulus, standard_normals(11, range(2), 0, steps, 1, NODES), 0.25)
        assert list(first) == [0, 1, 2]
        for node, values in first.items():
            np.testing.assert_allclose(values, wanted[0, :, node], atol=1e-5)
        trace = seen.drawn("x")[1]
        assert trace["name"] == "middle"
        assert trace["x"] == [DT * (step + 1) for step in range(steps)]
        heat = next(each for each in seen.drawn("x") if each["type"] == "heatmap")
        np.testing.assert_allclose(heat["z"], wanted[0].T, atol=1e-5)
        (pulse,) = seen.layout("x")["shapes"]
        assert (pulse["x0"], pulse["x1"]) == (10, 20)
        page.click('.answer [aria-label="next row"]')
        last = wanted[1, -1, 0].item()
        for _ in range(WAIT_MS // 100):  # the page's policy forbids to wait by a function
            if abs(drawn(seen)[0][-1] - last) < 1e-5:
                break
            page.wait_for_timeout(100)
        np.testing.assert_allclose(drawn(seen)[2], wanted[1, :, 2], atol=1e-5)
        name, content = seen.saved("#save")
        assert name.startswith("seeded")
        np.testing.assert_allclose(decode_npz(content)["x"], wanted, atol=1e-5)


@pytest.mark.slow
def test_golden_rows_and_files_are_drawn_as_well(
    browser: Browser, server: Server, seeded: Path
) -> None:
    stored = decode_npz((seeded / "golden.npz").read_bytes())
    with visit(browser, f"{server.url}/#seeded", color_scheme="dark") as seen:
        seen.page.click("#golden")
        values = drawn(seen)
        assert np.array_equal(values[2], stored["output.x"][0, :, 2])
        (pulse,) = seen.layout("x")["shapes"]
        assert (pulse["x0"], pulse["x1"]) == (10 * DT, 20 * DT)
        alone = {"stimulus": np.zeros((1, 7, NODES), np.float32)}
        seen.drop(("alone.npz", encode_npz(alone)))
        seen.page.wait_for_selector("text=Answer to alone.npz")
        rest = {"seed": np.zeros(1, np.int64), "member": np.zeros(1, np.int64)}
        noise = with_noise(NOISE, {**alone, **rest})["noise"]
        wanted = expected(alone["stimulus"], noise)
        np.testing.assert_allclose(drawn(seen)[0], wanted[0, :, 0], atol=1e-5)
        assert not seen.layout("x")["shapes"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("nodes", "9", "names none of 0 to 2"),
        ("duration", "99999999", "are too long to send from here"),
        ("until", "1", "until: 1 ms is before "),
    ],
)
def test_fields_that_make_no_simulation(
    browser: Browser, server: Server, field: str, value: str, said: str
) -> None:
    with visit(browser, f"{server.url}/#seeded") as seen:
        seen.page.wait_for_selector("#simulate")
        seen.page.fill(f"#simulate-{field}", value)
        seen.page.click("#simulate button")
        assert said in seen.failure()


def test_an_explosion_is_told(browser: Browser, server: Server) -> None:
    with visit(browser, f"{server.url}/#seeded") as seen:
        seen.page.wait_for_selector("#simulate")
        for name, value in {"amplitude-stimulus": "3e38", "from": "0", "until": "400"}.items():
            seen.page.fill(f"#simulate-{name}", value)
        seen.page.click("#simulate button")
        said = seen.page.inner_text(".output .caution:not([hidden])")
        assert said.startswith("The simulation explodes: x of left is no finite number at 4 ms.")


def test_a_field_beyond_its_limits_is_not_sent(browser: Browser, server: Server) -> None:
    with visit(browser, f"{server.url}/#seeded") as seen:
        seen.page.wait_for_selector("#simulate", timeout=WAIT_MS)
        seen.page.fill("#simulate-rows", "0")
        seen.page.click("#simulate button")
        assert not seen.page.evaluate("document.querySelector('#simulate').checkValidity()")
        assert seen.page.inner_text("#status") == ""


def test_left_out_inputs_and_wrong_seeds_over_http(server: Server) -> None:
    stimulus = np.zeros((2, STEPS, NODES)).tolist()

    def ask(**inputs: object) -> tuple[int, str]:
        response = server.client.post("/predict", json={"inputs": {"stimulus": stimulus, **inputs}})
        return response.status_code, response.text

    assert ask()[0] == 200
    status, text = ask(seed=[1, -1])
    assert status == 400
    assert re.search(r"seed: is -1 at batch 1; must be 0 up", text)
