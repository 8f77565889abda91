"""The JavaScript client, tested by Node's own runner against a whole Phaseline (clients/js/test)."""

import asyncio
from pathlib import Path

import pytest

from tests.installation import embedded, running
from tests.node import installed, node

pytestmark = pytest.mark.long

CLIENT = Path(__file__).resolve().parents[2] / "clients" / "js"
TESTS_S = 240.0


@pytest.mark.timeout(TESTS_S + 60)
async def test_the_javascript_client_keeps_its_promises(tmp_path: Path):
    await asyncio.to_thread(installed, CLIENT)
    async with running(embedded(tmp_path, PHASELINE_SLOTS="2", PHASELINE_LOG_LEVEL="WARNING")) as phaseline:
        run = await asyncio.to_thread(
            node,
            "--test",
            "--test-reporter=tap",
            "test/client.test.js",
            cwd=CLIENT,
            within_s=TESTS_S,
            PHASELINE_URL=phaseline.url,
        )
    assert run.returncode == 0, run.stdout
    assert "# pass 42\n" in run.stdout, run.stdout
