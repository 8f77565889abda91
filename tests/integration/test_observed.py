"""What a running installation tells those who run it: numbers, and lines that name the job."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.installation import Viewer, api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.ports import free_port
from tests.scrape import scraped, scraped_until
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings


async def test_a_killed_worker_shows_in_the_metrics_and_in_every_log_as_json(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    port = free_port()
    made = on_servers(
        str(settings.database_url),
        await asyncio.to_thread(rabbit.create_vhost),
        **ENVIRONMENT | {"PHASELINE_LOG_LEVEL": "INFO"},
        PHASELINE_LOG_FORMAT="json",
        PHASELINE_METRICS_PORT=str(port),
    )
    made.logs = tmp_path
    worker_url = f"http://127.0.0.1:{port}"
    async with running(made), api(made.url) as http:
        job_id = await http.submit("countdown", {"steps": 20, "step_s": 0.2})
        viewer = await Viewer(made.url, job_id).follow(until=4)
        assert (await scraped(worker_url))["phaseline_slots", "busy"] == 1
        await made.kill("worker")
        await made.start("worker")
        await viewer.follow_to_the_end()
        worker = await scraped_until(worker_url, lambda scrape: scrape["phaseline_children"] == 2)
        gateway = await scraped(made.url)
        story = [event["type"] for event in viewer.events]
        last = next(event["worker"] for event in reversed(viewer.events) if event["type"] == "started")
        mine = [event for event in viewer.events if event["type"] == "started" and event["worker"] == last]
        assert story.count("interrupted") >= 1
        for once in (("phaseline_attempts_ended_total", "lost"), ("phaseline_expiries_total", "lost")):
            assert worker[once] + gateway[once] == story.count("interrupted")
        assert worker["phaseline_claims_total", "taken"] == len(mine)
        assert worker["phaseline_attempts_ended_total", "complete"] == 1
        assert gateway["phaseline_events_appended_total", "submitted"] == 1
        assert gateway["phaseline_frames_sent_total"] >= len(viewer.frames)
        assert (gateway["phaseline_closes_total", "1000"], gateway["phaseline_closes_total", "gone"]) == (1, 1)
        async with http.session.get(f"{worker_url}/healthz") as answer:
            assert await answer.json() == {"status": "alive"}
        assert await made.stop() == [0, 0]
    lines = _lines(tmp_path)
    assert all({"time", "level", "logger", "message", "host", "pid"} <= set(line) for line in lines)
    about = [line for line in lines if line.get("job_id") == job_id]
    lost = [(line["attempt"], line["seq"]) for line in about if line.get("event") == "interrupted"]
    assert sorted(lost) == [
        (event["attempt"], event["seq"]) for event in viewer.events if event["type"] == "interrupted"
    ]
    (ended,) = [line for line in about if line.get("event") == "complete"]
    end = viewer.events[-1]
    assert (ended["attempt"], ended["seq"], ended["worker"]) == (end["attempt"], end["seq"], last)


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.glob("*.log") for line in path.read_text().splitlines()]
