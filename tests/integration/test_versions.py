"""An older version's own code on the newer schema, beside the newer version: jobs of either run on either, viewers of
either see the same, and the log is one. And newer code on an older schema says what to do.

The older code comes from this repository's history: the state just before the newest migration, and the oldest that the
schema still promises to serve (`compatible`).
"""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from sqlalchemy import text

import migrations
from phaseline import database
from tests.cli.program import phaseline
from tests.installation import BOUND_S, Viewer, api, on_servers, running
from tests.ports import free_port
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings, unmigrated_postgres
from tests.verified import verified

ROOT = Path(__file__).parents[2]
JOBS = 12
SHORT = {"steps": 5, "step_s": 0.05}


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout


def code_before(revision: str, folder: Path) -> Path:
    """The code as it was just before a migration was added, unpacked."""
    [file] = (ROOT / "migrations" / "versions").glob(f"{revision}_*.py")
    added = git("log", "--diff-filter=A", "--format=%H", "-1", "--", file.relative_to(ROOT).as_posix()).decode().strip()
    try:
        packed = git("archive", f"{added}^")
    except subprocess.CalledProcessError:  # a shallow copy, or an export: the older code is not there to be run
        pytest.skip("this copy has no history")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def revision_of(tree: Path) -> tuple[str, str]:
    """Which code runs with this tree in front, and the schema it knows."""
    asked = "import events.tables as t; print(t.__file__); print(t.REVISION)"
    out = subprocess.run([sys.executable, "-c", asked], env=environment(tree), capture_output=True, check=True).stdout
    file, revision = out.decode().split()
    return file, revision


def environment(tree: Path) -> dict[str, str]:
    """In which this interpreter runs that code."""
    return {**os.environ, **in_front(tree)}


def in_front(tree: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def newest_and_oldest() -> tuple[str, str]:
    """The newest migration, and the one after the oldest revision whose code may go on."""
    names = sorted(path.name[:4] for path in (ROOT / "migrations" / "versions").glob("0*.py"))
    return names[-1], names[names.index("0015") + 1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "which", ["the oldest that may go on", pytest.param("the version before", marks=pytest.mark.slow)]
)
async def test_an_older_version_works_beside_the_newer(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path, which: str
) -> None:
    revision = newest_and_oldest()[which != "the version before"]
    tree = await asyncio.to_thread(code_before, revision, tmp_path / "older")
    file, knows = await asyncio.to_thread(revision_of, tree)
    assert Path(file).is_relative_to(tree)
    assert knows < revision

    settings = await postgres_settings(postgres, tmp_path)
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), rabbit_url, PHASELINE_SLOTS="2")
    port = free_port()
    made.configure("gateway.older", PHASELINE_PORT=str(port), **in_front(tree))
    made.configure("worker.older", **in_front(tree))
    urls = [made.url, f"http://127.0.0.1:{port}"]
    async with (
        running(made, "gateway", "gateway.older", "worker", "worker.older"),
        api(urls[0]) as new,
        api(urls[1]) as old,
    ):
        async with asyncio.timeout(BOUND_S):
            while len((await new.get("/api/v1/workers"))["workers"]) < 2 or not await _ready(old.url):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # both processes start; the bound is above
        ids = [await (new, old)[number % 2].submit("countdown", SHORT) for number in range(JOBS)]
        viewers = [Viewer(url, job_id) for job_id in ids for url in urls]
        await asyncio.gather(*(viewer.follow_to_the_end() for viewer in viewers))
        for one, other in zip(viewers[::2], viewers[1::2], strict=True):
            assert one.events == other.events
            assert one.events[-1]["type"] == "complete"
        for job_id in ids:
            seen = [await http.get(f"/api/v1/jobs/{job_id}") for http in (new, old)]
            assert seen[0].items() >= {name: seen[0][name] for name in seen[1] if name in seen[0]}.items()
            assert seen[0]["status"] == seen[1]["status"] == "completed"
        ran = {event["worker"] for viewer in viewers for event in viewer.events if event["type"] == "started"}
        assert len(ran) == 2  # both ran some
        # What only the newer version knows: an act in the log. The older one goes on copying and feeding.
        await new.post(f"/api/v1/jobs/{ids[0]}/hold", {"reason": "case 4711"}, 200)
        await made.kill("gateway", "worker")
        late = await old.submit("countdown", SHORT)
        viewer = await Viewer(old.url, late).follow_to_the_end()
        assert viewer.events[-1]["type"] == "complete"
        counts = await verified(settings, rabbit_url, [*viewers, viewer])
        assert counts.jobs == JOBS + 1


async def _ready(url: str) -> bool:
    async with api(url) as http:
        try:
            return bool((await http.get("/readyz"))["status"] == "ready")
        except (OSError, AssertionError):
            return False


async def test_newer_code_on_an_older_schema_says_what_to_do(postgres: PostgresServer, tmp_path: Path) -> None:
    settings = await unmigrated_postgres(postgres, tmp_path)
    before = sorted(path.name[:4] for path in (ROOT / "migrations" / "versions").glob("0*.py"))[-2]
    await database.migrate(settings, before)
    urls = {
        "PHASELINE_DATABASE_URL": str(settings.database_url),
        "PHASELINE_RABBITMQ_URL": "amqp://nobody@127.0.0.1:1/",
    }
    refused = await asyncio.to_thread(phaseline, "worker", **urls)
    assert refused.code == 1
    assert "phaseline db migrate" in refused.err


async def test_what_the_schema_promises_is_what_is_tried_here(postgres: PostgresServer, tmp_path: Path) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    since = await database.on_connection(
        settings, lambda connection: connection.execute(text("SELECT max(since) FROM compatible")).scalar_one()
    )
    newest, after_oldest = newest_and_oldest()
    assert since == "0015"
    assert after_oldest > since
    assert newest == migrations.head()
