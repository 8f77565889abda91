"""Requests made up from our OpenAPI description never break the API and are answered as it says."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.installation import embedded, running

RUN_S = 240.0
SEED = "1"
# Left out: that whatever fits the schema is accepted. An engine, a phase, an id and a query term are known at run time only.
OPTIONS = (
    "--phases=examples,coverage,fuzzing", "--max-examples=4", "--exclude-checks=positive_data_acceptance",
    "--generation-database=none", f"--seed={SEED}", "--max-failures=10", "--request-timeout=30",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(RUN_S + 60)
async def test_nothing_made_up_from_the_description_breaks_the_api(tmp_path: Path):
    schemathesis = str(Path(sys.executable).parent / "st")
    async with running(embedded(tmp_path, PHASELINE_SLOTS="1", PHASELINE_LOG_LEVEL="ERROR")) as phaseline:
        process = await asyncio.create_subprocess_exec(
            *(schemathesis, "run", f"{phaseline.url}/openapi.json", *OPTIONS),
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
