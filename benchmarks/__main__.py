"""`make bench` (about two minutes) or `make bench ARGS=--quick`: measures, prints a table, writes JSON.

Everything runs on this machine in one run, on a private PostgreSQL with fsync on and a private RabbitMQ: compare the
figures with the floors beside them, not with another machine's.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import floors, spine, system
from benchmarks.measure import Results
from events.announce import Announcer
from events.log import Log
from phaseline import database
from phaseline.settings import Settings
from tests.builders import Committing, committing
from tests.installation import Installation, api, on_servers, running
from tests.servers import Servers
from tests.stores import open_bus, open_log

PACKAGES = ("aio-pika", "aiohttp", "asyncpg", "pydantic", "SQLAlchemy")


async def measure(servers: Servers, *, quick: bool) -> Results:
    """Runs everything once and returns the figures in the order shown."""
    results = Results()
    scale, seconds, repeats = (1, 0.5, 3) if quick else (4, 2.0, 5)
    url = servers.postgres().create_database()
    rabbit_url = servers.rabbit().create_vhost()
    settings = Settings(database_url=url, rabbitmq_url=rabbit_url, data_dir=Path(tempfile.gettempdir()))
    await database.migrate(settings)
    await floors.publish_to_consume(rabbit_url, results, 200 * scale)
    await floors.bare_sends(results, 5_000 * scale, repeats)
    installation = on_servers(
        url, rabbit_url, PHASELINE_ENGINE_MODULES="benchmarks.engines", PHASELINE_SLOTS="2", PHASELINE_LOG_LEVEL="ERROR"
    )
    async with running(installation), writing(settings) as (log, writer):
        await _whole_system(installation, writer, results, scale, repeats)
        await spine.append_rates(writer, url, results, seconds=seconds, repeats=repeats)
        events = 5_000 * scale
        streams = [await spine.long_stream(writer, log, events) for _ in range(repeats)]
        await floors.page_reads(url, streams[0], results, repeats)
        await system.replay(installation.url, streams, events, results)
        await installation.stop()
    return results


async def _whole_system(
    installation: Installation, writer: Committing, results: Results, scale: int, repeats: int
) -> None:
    async with api(installation.url) as http:
        # Warms children, caches and connections up; not measured, and over before anything is.
        await system.all_done(http, {await http.submit("noop", {}, tags=["bench"]) for _ in range(20)})
        await system.idle_start(http, results, 50 * scale)
        await system.noop_jobs(http, results, 150 * scale, repeats)
    await system.commit_to_socket(writer, installation.url, results, 100 * scale)


@contextlib.asynccontextmanager
async def writing(settings: Settings) -> AsyncIterator[tuple[Log, Committing]]:
    """A committer of our own on the same log, announcing over RabbitMQ as a worker does."""
    async with (
        open_log(settings) as log,
        open_bus(str(settings.rabbitmq_url), "bench") as bus,
        committing(log) as running_committer,
    ):
        announcer = Announcer(bus)
        announcer.epoch = log.epoch
        running_committer.committer._on_committed = announcer  # noqa: SLF001 same wiring as compose
        yield log, running_committer


def show(results: Results, console: Console) -> None:
    """The table."""
    table = Table(
        "figure", "unit", "measured", "against its floor", "what it is", title="median (min–max), or p50 / p99"
    )
    for figure in results.figures:
        table.add_row(figure.name, figure.unit, figure.shown(), results.ratio(figure), figure.note)
    console.print(table)


def machine() -> dict[str, object]:
    """What the figures are for."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(prog="make bench", description=__doc__)
    options.add_argument("--quick", action="store_true", help="under a minute, fewer repeats")
    options.add_argument("--json", type=Path, help="also write the figures here")
    chosen = options.parse_args()
    servers = Servers()
    servers.prepare("postgres", "rabbit")
    try:
        results = asyncio.run(measure(servers, quick=chosen.quick))
    finally:
        servers.close()
    show(results, Console(width=None if os.isatty(1) else 160))
    report = {"machine": machine(), "figures": [figure.as_json() for figure in results.figures]}
    text = json.dumps(report, indent=1)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
