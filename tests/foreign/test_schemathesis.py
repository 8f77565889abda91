"""Requests made up from our OpenAPI description never break the API and are answered as it says."""

import asyncio
import re
import sys
from pathlib import Path

import aiohttp
import pytest

from events.acts import By
from phaseline import database
from phaseline.settings import Settings
from tests.installation import embedded, running

RUN_S = 240.0
SEED = "1"
# Left out: that whatever fits the schema is accepted. An engine, a phase, an id and a query term are known at run time only.
OPTIONS = (
    "--phases=examples,coverage,fuzzing", "--max-examples=4", "--exclude-checks=positive_data_acceptance",
    "--generation-database=none", f"--seed={SEED}", "--max-failures=10", "--request-timeout=30",
)  # fmt: skip


async def until_checked(url: str, headers: dict[str, str]) -> None:
    """The first params of an engine wait for its import, and are answered 503 where that takes over 5 s."""
    async with aiohttp.ClientSession(headers=headers) as session, asyncio.timeout(60):
        status = 0
        while status != 202:
            async with session.post(f"{url}/api/v1/analyze", json={"team_id": 1}) as answer:
                status = answer.status
                assert status in (202, 503), await answer.text()


@pytest.mark.slow
@pytest.mark.timeout(RUN_S + 60)
@pytest.mark.parametrize("who", ["anybody", "an operator", "a stranger"])
async def test_nothing_made_up_from_the_description_breaks_the_api(tmp_path: Path, who: str):
    """Where nobody is asked for a key; where one is, with one that may everything; and without."""
    schemathesis = str(Path(sys.executable).parent / "st")
    asks = {} if who == "anybody" else {"PHASELINE_AUTH": "keys"}
    async with running(embedded(tmp_path, PHASELINE_SLOTS="1", PHASELINE_LOG_LEVEL="ERROR", **asks)) as phaseline:
        header: list[str] = []
        sent: dict[str, str] = {}
        if who == "an operator":
            settings = Settings(data_dir=tmp_path, database_url=None)
            _, key = await database.create_key(settings, "default", "", ["admin"], None, By("user:test"))
            sent = {"Authorization": f"Bearer {key}"}
            header = ["--header", f"Authorization: Bearer {key}"]
        if who != "a stranger":
            await until_checked(phaseline.url, sent)
        process = await asyncio.create_subprocess_exec(
            *(schemathesis, "run", f"{phaseline.url}/openapi.json", *header, *OPTIONS),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        async with asyncio.timeout(RUN_S):
            said, _ = await process.communicate()
    text = said.decode()
    assert process.returncode == 0, text
    counts = re.search(r"(\d+) generated, (\d+) passed", text)
    assert counts is not None, text
    assert counts[1] == counts[2], text
    assert int(counts[1]) > 300, text
