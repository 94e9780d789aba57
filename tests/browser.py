"""The service's page in a real browser: Debian's chromium, driven by playwright."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
WAIT_MS = 60_000
_DROP = """
async ([selector, files]) => {
  const carried = new DataTransfer();
  for (const [name, bytes] of files) {
    carried.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
  }
  const zone = document.querySelector(selector);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const options = { dataTransfer: carried, bubbles: true, cancelable: true };
    zone.dispatchEvent(new DragEvent(kind, options));
  }
}
"""
_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI));
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; tests skip where the machine has none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, where its requests went, and what it complained of."""

    page: Page
    url: str
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def drop(self, *files: tuple[str, bytes], onto: str = "#drop") -> None:
        """Drop files, name and content each, as a person would with the mouse."""
        packed = [[name, base64.b64encode(content).decode()] for name, content in files]
        self.page.evaluate(_DROP, [onto, packed])

    def drawn(self, output: str) -> list[dict[str, Any]]:
        """The traces of an output's figure, once it is drawn."""
        plot = f'[data-output="{output}"] .plot'
        self.page.wait_for_selector(f"{plot} .main-svg", timeout=WAIT_MS)
        script = f"JSON.parse(JSON.stringify(document.querySelector('{plot}').data))"
        traces: list[dict[str, Any]] = self.page.evaluate(script)
        return traces

    def layout(self, output: str) -> dict[str, Any]:
        """The layout of an output's figure that is drawn."""
        plot = f'[data-output="{output}"] .plot'
        script = f"JSON.parse(JSON.stringify(document.querySelector('{plot}').layout))"
        layout: dict[str, Any] = self.page.evaluate(script)
        return layout

    def saved(self, selector: str) -> tuple[str, bytes]:
        """Name and content of the file that a click saves."""
        with self.page.expect_download() as event:
            self.page.click(selector)
        name = event.value.suggested_filename
        return name, event.value.path().read_bytes()

    def failure(self) -> str:
        """The text of the error that is shown."""
        self.page.wait_for_selector(".failure", timeout=WAIT_MS)
        return self.page.inner_text(".failure")


@contextmanager
def visit(browser: Browser, url: str, complaint: str = "", **options: Any) -> Iterator[Visit]:
    """Open a page of the service.

    At the end: it asked no other host for anything, broke no rule of its content policy, and
    complained of nothing but what `complaint` says (a browser logs every 4xx).
    """
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(_VIOLATIONS)
    seen = Visit(context.new_page(), url)

    def heard(text: str) -> None:
        if not complaint or complaint not in text:
            seen.complaints.append(text)

    seen.page.on("request", lambda request: seen.hosts.add(request.url.split("/")[2]))
    seen.page.on("console", lambda message: heard(f"{message.type}: {message.text}"))
    seen.page.on("pageerror", lambda error: heard(f"uncaught: {error}"))
    try:
        seen.page.goto(url)
        yield seen
        violations = seen.page.evaluate("window.violations")
    finally:
        context.close()
    assert violations == []
    assert seen.complaints == []
    assert seen.hosts - {""} <= {url.split("/")[2]}
