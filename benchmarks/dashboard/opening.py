"""Pages opened in Chromium: how long until what somebody comes for is there, and until all of the page is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from benchmarks.dashboard.site import Server
from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["Opened", "browsing", "open_page", "show_queue"]

_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
_PATIENCE_MS = 60_000
_THERE = """(text) => document.querySelector('.tm-page') && document.body.innerText.includes(text)
    ? performance.now() / 1000 : false"""
_FILLED = """() => document.querySelectorAll('.tm-panel').length && !document.querySelectorAll('.tm-wait').length
    ? performance.now() / 1000 : false"""
"""Both by the browser's clock, which begins with the navigation."""


@dataclass(frozen=True)
class Opened:
    """One opening of a page; seconds."""

    there: float
    """Until what somebody comes for is there."""
    filled: float
    """Until no part waits any more."""
    server: float
    """Processor time of the dashboard until then."""
    browser: float
    """The browser's, all its processes."""


@contextmanager
def browsing() -> Iterator[Browser]:
    """Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(_ARGUMENTS))
        yield browser
        browser.close()


def open_page(page: Page, server: Server, path: str, text: str) -> Opened:
    """Open a page and wait for `text`, which it shows once its main part is read."""
    page.goto("about:blank")
    worked, drawn = server.worked_s, _browser_worked()
    page.goto(server.url + path, wait_until="commit")
    there = page.wait_for_function(_THERE, arg=text, polling="raf", timeout=_PATIENCE_MS).json_value()
    filled = page.wait_for_function(_FILLED, polling="raf", timeout=_PATIENCE_MS).json_value()
    drawing = sum(now - drawn.get(pid, 0.0) for pid, now in _browser_worked().items())
    return Opened(there, filled, server.worked_s - worked, drawing)


def show_queue(page: Page, server: Server, path: str) -> tuple[float, float]:
    """Ask for the queue: seconds until it is there, and the dashboard's processor time until then."""
    page.goto(server.url + path)
    page.get_by_role("button", name="Show the queue").wait_for(timeout=_PATIENCE_MS)
    begun, worked = time.perf_counter(), server.worked_s
    page.get_by_role("button", name="Show the queue").click()
    page.get_by_role("button", name="Label from the top").wait_for(timeout=_PATIENCE_MS)
    return time.perf_counter() - begun, server.worked_s - worked


def _browser_worked() -> dict[int, float]:
    """Processor time of this process's children that are Chromium's, by their ids."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            if "chrom" in child.name():
                times = child.cpu_times()
                found[child.pid] = times.user + times.system
        except psutil.Error:  # it has just ended
            continue
    return found
