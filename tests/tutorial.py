"""Does what docs/tutorial.md says, in a clean clone, and watches the job in Chromium: `python -m tests.tutorial`.

The commands and the engine are read from the page. Prints the machine's share of the five minutes, and the page's words.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from playwright.async_api import expect

from tests.browser.browsing import chromium
from tests.browser.watching import at_least, sequences
from tests.ports import free_port

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCKS = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NAMED = re.compile(r"Save this as `(\S+)`")
BOUND_S = 600.0  # a slow machine that shares its cores
WORDS_PER_MINUTE = 200
DONE = "--- done"


async def main() -> int:
    """Exit code 0 when everything on the page is true."""
    with tempfile.TemporaryDirectory(prefix="phaseline-tutorial-") as folder:
        clone = Path(folder) / "phaseline"
        await asyncio.to_thread(subprocess.run, ["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        spent_s = await follow_the_page(clone)
    words = len(BLOCKS.sub("", PAGE.read_text()).split())
    minutes = spent_s / 60 + words / WORDS_PER_MINUTE
    print(f"tutorial: {spent_s:.0f} s of the machine, {words} words: {minutes:.1f} minutes")
    return 0


async def follow_the_page(clone: Path) -> float:
    """Returns the seconds its commands took."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PHASELINE_", "MAKE", "MFLAGS"))}
    shell = await asyncio.create_subprocess_exec(
        *("bash", "--noprofile", "--norc"),
        cwd=clone,
        env={**kept, "PHASELINE_PORT": str(port), "PHASELINE_URL": url},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    spent_s, watched = 0.0, False
    try:
        async with asyncio.timeout(BOUND_S):
            for language, text in BLOCKS.findall(PAGE.read_text()):
                if language == "python":
                    (clone / NAMED.findall(PAGE.read_text())[0]).write_text(text)
                    continue
                for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
                    began = time.monotonic()
                    said = await typed(shell, command)
                    if command.endswith("&"):
                        await answering(url)
                    spent_s += time.monotonic() - began
                    print(f"  {time.monotonic() - began:6.1f} s  {command}")
                    if command.startswith("JOB="):
                        watched = await seen_in_a_browser(url, (await typed(shell, "echo $JOB"))[-1])
                    if "follow" in command:
                        assert any("completed" in line for line in said), said
        assert watched
    finally:
        os.killpg(shell.pid, 15)
        await shell.wait()
    return spent_s


async def typed(shell: asyncio.subprocess.Process, command: str) -> list[str]:
    """What one command printed. It must succeed."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{command}\necho '{DONE}' $?\n".encode())
    said = []
    while not (line := (await shell.stdout.readline()).decode()).startswith(DONE):
        assert line, f"the shell ended in {command}"
        said.append(line.rstrip("\n"))
    assert line.split()[-1] == "0", "\n".join([command, *said])
    return said


async def answering(url: str) -> None:
    """Returns once the server that was just started answers; the caller has the bound."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.1)


async def seen_in_a_browser(url: str, job_id: str) -> bool:
    """The job's bar moves while a person looks, across a reload, and every event is there once."""
    async with chromium() as browser:
        page = await browser.new_page(base_url=url)
        await page.goto("/")
        await page.goto(f"/jobs/{job_id}")
        shown: list[list[int]] = []
        for _ in range(2):
            await at_least(page, (shown[-1][-1] if shown else 0) + 3)
            await expect(page.locator(".head .badge")).to_have_text("running")
            shown.append(await sequences(page))
            await page.reload()
    for seqs in shown:
        assert seqs == list(range(1, len(seqs) + 1)), seqs
    assert len(shown[1]) > len(shown[0]) >= 3
    return True


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
