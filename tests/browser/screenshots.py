"""`make screenshots`: each view of the pages, wide and narrow, light and dark, as PNG files to look at."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Browser, Page

from tests.browser.browsing import chromium

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
JOBS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("countdown", {"steps": 30, "step_s": 0.01}, {"tags": ["nightly"]}),
    ("countdown", {"steps": 10, "step_s": 0, "fail_at": 6}, {"tags": ["nightly"], "max_attempts": 1}),
    ("fpl", {"team_id": 1, "horizon": 4, "time_limit_s": 8}, {"tags": ["weekly"]}),
]


async def run(url: str, folder: Path, only: str) -> None:
    _, failed, fpl = [await _submit(url, *job) for job in JOBS]
    await _until(url, fpl)
    running = await _submit(url, "countdown", {"steps": 400, "step_s": 0.25}, {"priority": "high"})
    views = {
        "overview": "/",
        "jobs": "/jobs",
        "job_fpl": f"/jobs/{fpl}",
        "job_running": f"/jobs/{running}",
        "job_failed": f"/jobs/{failed}",
        "job_past": f"/jobs/{fpl}?at=9",
        "submit": "/submit/fpl",
        "schedules": "/schedules",
        "workers": "/workers",
        "live": "/live",
        "audit": "/audit",
        "docs": "/docs",
    }
    async with chromium() as browser:
        for name, path in views.items():
            if only in name:
                await _shoot(browser, url + path, folder / f"{name}.png", WIDE, "light")
                await _shoot(browser, url + path, folder / f"{name}_dark.png", WIDE, "dark")
                await _shoot(browser, url + path, folder / f"{name}_phone.png", PHONE, "light")
                await _shoot(browser, url + path, folder / f"{name}_phone_dark.png", PHONE, "dark")


async def _shoot(browser: Browser, address: str, file: Path, size: Any, scheme: Any) -> None:
    context = await browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1)
    page: Page = await context.new_page()
    await page.goto(address)
    await page.locator("main h1").wait_for()
    if not address.endswith("/docs"):  # which has no script
        await page.locator("#connection:is([data-state=live], [data-state=ended])").wait_for()
    await page.wait_for_timeout(1500)  # plots and what the server was asked for meanwhile; only a picture depends on it
    await page.screenshot(path=file, full_page=True)
    await context.close()


async def _submit(url: str, engine: str, params: dict[str, Any], more: dict[str, Any]) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/api/v1/jobs", json={"engine": engine, "params": params, **more}) as made,
    ):
        made.raise_for_status()
        job_id: str = (await made.json())["id"]
        return job_id


async def _until(url: str, job_id: str) -> None:
    """Until the job's stream ends."""
    async with (
        asyncio.timeout(180),
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/api/v1/jobs/{job_id}/stream") as socket,
    ):
        async for _ in socket:
            pass


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--url", default="http://127.0.0.1:8000", help="a Phaseline that runs, such as `make up`")
    words.add_argument("--out", type=Path, default=Path(".data/screenshots"))
    words.add_argument("--only", default="", help="part of a view's name")
    asked = words.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(asked.url, asked.out, asked.only))
    sys.stdout.writelines(f"{picture}\n" for picture in sorted(asked.out.glob("*.png")))
