"""`make bench` (under 40 minutes), `make bench QUICK=1` (under 3), `make bench ROWS="noop fivephase"` (those only).

Everything runs on this machine in one run, on a private PostgreSQL with fsync on and a private RabbitMQ. Each row of
figures is measured with its floors and its peers in turns, and stands for itself: its table is printed and kept as soon
as it is there, so an interrupted run goes on with the rows that are missing.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import aiormq
import asyncpg

from benchmarks import costs, dispatch, guards, streams, webhooks
from benchmarks.bench import Bench, Row
from benchmarks.measure import Results
from benchmarks.report import Report, machine
from benchmarks.scale import arithmetic
from tests.servers import Servers

FOLDER = Path(".data/bench")
DOCS = Path("docs")
BEGIN, END = "<!-- begin: printed by make bench -->", "<!-- end: printed by make bench -->"
ROWS: tuple[Row, ...] = (
    dispatch.Start("start", "from an idle submit to running code"),
    dispatch.Noop("noop", "jobs that do nothing"),
    dispatch.FivePhase("fivephase", "jobs of five phases"),
    dispatch.Tickets("tickets", "classic queues of tickets against quorum queues"),
    dispatch.Shares("shares", "where the processor time of a job goes"),
    streams.Live("live", "from a commit to a viewer"),
    streams.FanOut("fanout", "one job, a thousand viewers"),
    streams.Large("large", "a large result, a thousand viewers"),
    streams.Replay("replay", "a late viewer of a long job"),
    streams.Reconnect("reconnect", "everybody comes back at once"),
    costs.Append("append", "events through the committer"),
    streams.Crowded("viewers", "idle viewers of one gateway"),
    costs.Quiet("quiet", "an idle system"),
    guards.Guards("guards", "what access, walls, limits and seals cost"),
    webhooks.Webhooks("webhooks", "what webhooks cost"),
    dispatch.Embedded("embedded", "`phaseline up` on SQLite"),
    costs.EventsCurve("events", "cost curves: the length of a stream"),
    costs.JobsCurve("jobs", "cost curves: the jobs in the log"),
)
NOT_QUICK = {"tickets", "webhooks"}  # they hold our own settings against each other


async def run(rows: Sequence[Row], servers: Servers, report: Report, *, quick: bool) -> list[str]:
    """Measures rows one after another; returns the names of those that failed."""
    broken = []
    about = machine(await _versions(servers))
    with tempfile.TemporaryDirectory(prefix="phaseline-bench-") as folder:
        bench = Bench(servers, Path(folder), quick)
        for row in rows:
            print(f"{row.name}: {row.title}", file=sys.stderr, flush=True)
            results, began = Results(row.name, row.title), time.monotonic()
            try:
                await row.measure(bench, results)
            except Exception as failure:  # a boundary: the other rows are measured all the same
                traceback.print_exception(failure)
                broken.append(row.name)
                await bench.alone()
                continue
            print(f"  took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            print(report.put(results, about, quick=quick), end="\n\n", flush=True)
            for name, svg in bench.plots.items():
                report.draw(name, svg)
        await bench.alone()
    return broken


async def _versions(servers: Servers) -> dict[str, str]:
    connection = await asyncpg.connect(servers.postgres().url)
    try:
        postgres = await connection.fetchval("SHOW server_version")
        fsync = await connection.fetchval("SHOW fsync")
    finally:
        await connection.close()
    return {
        "PostgreSQL": f"{postgres.partition(' ')[0]} (fsync {fsync})",
        "RabbitMQ": await _rabbit(servers.rabbit().url),
    }


async def _rabbit(url: str) -> str:
    async with await aiormq.connect(url) as connection:
        return str(connection.server_properties["version"])


def write_pages(report: Report, docs: Path) -> None:
    """Puts the kept tables, plots and what they add up to into the pages, between their marks."""
    _between_marks(docs / "performance.md", report.page(row.name for row in ROWS))
    _between_marks(docs / "scaling.md", arithmetic(report.rows) + "\n")
    for svg in report.folder.glob("*.svg"):
        (docs / "figures").mkdir(exist_ok=True)
        (docs / "figures" / svg.name).write_text(svg.read_text(encoding="utf-8"), encoding="utf-8")


def _between_marks(page: Path, text: str) -> None:
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    """Measures, prints, keeps."""
    names = [row.name for row in ROWS]
    options = argparse.ArgumentParser(prog="make bench", description=__doc__)
    options.add_argument("rows", nargs="*", metavar="ROW", help=f"some of: {' '.join(names)}")
    options.add_argument(
        "--quick",
        action="store_true",
        help=f"fewer repeats, smaller sizes; without {' and '.join(sorted(NOT_QUICK))} unless they are named",
    )
    options.add_argument("--missing", action="store_true", help="only rows that are not kept yet")
    options.add_argument("--folder", type=Path, default=FOLDER, help="where figures.json and the plots are kept")
    options.add_argument("--page", action="store_true", help=f"measure nothing, put what is kept into {DOCS}/")
    chosen = options.parse_args()
    if unknown := set(chosen.rows) - set(names):
        options.error(f"no such row: {' '.join(sorted(unknown))}")
    report = Report(chosen.folder)
    if chosen.page:
        write_pages(report, DOCS)
        return
    wanted = chosen.rows or [name for name in names if not (chosen.quick and name in NOT_QUICK)]
    rows = [row for row in ROWS if row.name in wanted]
    rows = [row for row in rows if not (chosen.missing and report.has(row.name, quick=chosen.quick))]
    servers = Servers()
    servers.prepare("postgres", "rabbit")
    try:
        broken = asyncio.run(run(rows, servers, report, quick=chosen.quick))
    finally:
        servers.close()
    print(f"kept in {chosen.folder}/figures.json", file=sys.stderr)
    sys.exit(f"failed: {' '.join(broken)}" if broken else os.EX_OK)


if __name__ == "__main__":
    main()
