"""Chromium for the tests of the pages and for their screenshots."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

from tests import servers

FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_MS = 90_000


@asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    """A browser for the block, with further flags."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=servers.chromium(), args=[*FLAGS, *flags], timeout=START_MS
        )
        try:
            yield browser
        finally:
            await browser.close()
