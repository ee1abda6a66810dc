"""Headless Chromium: one a test process, a fresh window a test."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
# no GPU, no calls home; parallel coordinates are drawn with WebGL all the same
FLAGS = [
    "--no-sandbox", "--enable-unsafe-swiftshader", "--use-gl=angle", "--use-angle=swiftshader",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
PHONE: ViewportSize = {"width": 390, "height": 844}
SCREEN: ViewportSize = {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("there is no Chromium: on Debian, `apt-get install chromium-headless-shell`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Windows:
    """Opens windows, and keeps what went wrong in them."""

    browser: Browser
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __call__(self, *, phone: bool = False, dark: bool = False, **more: Any) -> Page:
        page = self.browser.new_page(
            viewport=PHONE if phone else SCREEN, color_scheme="dark" if dark else "light", **more
        )
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)
        page.on("request", lambda request: self.requests.append(request.url))
        return page

    def close(self) -> None:
        """Close all windows."""
        for context in self.browser.contexts:
            context.close()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)


@pytest.fixture
def window(browser: Browser) -> Iterator[Windows]:
    """Opens windows; an error in one of them fails the test."""
    windows = Windows(browser)
    yield windows
    windows.close()
    assert windows.errors == []
