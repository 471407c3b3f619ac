"""A live loop for the tests of the pages, started once; and a browser that notes what a page does wrong."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from tests.dashboard.site import Site, live_site

_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

_PATIENCE_MS = 120_000
"""A busy machine is no fault of a page."""


@dataclass
class Wrong:
    """What pages did that they must not."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note errors on the console and requests that leave the machine, from now on."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.hostname != "127.0.0.1":
            self.outside.append(request.url)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The loop: its first version serves."""
    with live_site(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=_PATIENCE_MS)
        made = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(_ARGUMENTS))
        yield made
        made.close()


@pytest.fixture
def wrong() -> Iterator[Wrong]:
    """What the pages of a test did wrong: nothing, at its end."""
    found = Wrong()
    yield found
    assert found.errors == []
    assert found.outside == []


@pytest.fixture
def look(site: Site, browser: Browser, wrong: Wrong) -> Iterator[Callable[..., Page]]:
    """Opens a page: its path, and in whose name (a role behind the proxy); else on this machine itself."""
    with ExitStack() as stack:

        def open_page(path: str, role: str = "", **options: Any) -> Page:
            context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(_PATIENCE_MS)
            wrong.watch(page)
            page.goto((site.signed_in[role] if role else site.url) + path)
            page.wait_for_selector(".tm-panel")
            page.wait_for_function("document.querySelectorAll('.tm-wait').length == 0")
            return page

        yield open_page
