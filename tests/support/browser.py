"""A real browser: Debian's Chromium, headless, driven by Playwright.

    with live_page(url) as page:                        # blocks, as everything on it does
        page.wait_for_selector("#lines time", timeout=30_000)
        expect(page.locator("#status")).to_have_text("running", timeout=30_000)

What Playwright offers to blocking code runs on greenlets, as SQLAlchemy does, whose stacks the two of them switched in one
process; once that ended in a crash. Here its asyncio form runs, in a thread and a loop of its own: no greenlets.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright import async_api

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_TIMEOUT_MS = 90_000.0
"""Of the browser, on a machine where many start something."""
DEFAULT_TIMEOUT_MS = 60_000.0
"""Of whatever names no timeout of its own."""
OF_PLAYWRIGHT = "playwright."


class Blocking:
    """An object of Playwright's asyncio form, whose methods block."""

    def __init__(self, loop: asyncio.AbstractEventLoop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return _blocking(self._loop, value)

        def call(*arguments: Any, **named: Any) -> Any:
            async def in_the_loop() -> Any:
                made = value(*arguments, **named)
                return await made if inspect.isawaitable(made) else made

            return _blocking(self._loop, _run(self._loop, in_the_loop()))

        return call


def expect(locator: Blocking) -> Blocking:
    """Playwright's assertions about what a locator of `live_page` finds."""
    return Blocking(locator._loop, async_api.expect(locator._inner))


@contextmanager
def live_page(url: str, width: int = 1280, height: int = 900) -> Iterator[Any]:
    """The page at `url`, open in a browser: Playwright's Page, blocking. Skips where there is no Chromium."""
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's package chromium")
    with _loop() as loop:
        playwright = _run(loop, async_api.async_playwright().start())
        try:
            browser = _run(
                loop,
                playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS, timeout=START_TIMEOUT_MS),
            )
            try:
                page = _run(loop, browser.new_page(viewport={"width": width, "height": height}))
                page.set_default_timeout(DEFAULT_TIMEOUT_MS)
                _run(loop, page.goto(url))
                yield Blocking(loop, page)
            finally:
                _run(loop, browser.close())
        finally:
            _run(loop, playwright.stop())


@asynccontextmanager
async def page_beside(url: str) -> AsyncIterator[Any]:
    """`live_page` for a test whose own loop has to go on: what blocks on it is called by `asyncio.to_thread`."""
    opening = live_page(url)
    page = await asyncio.to_thread(opening.__enter__)
    try:
        yield page
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that runs in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="browser")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop).result()


def _blocking(loop: asyncio.AbstractEventLoop, value: Any) -> Any:
    return Blocking(loop, value) if type(value).__module__.startswith(OF_PLAYWRIGHT) else value
