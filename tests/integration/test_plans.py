"""What the committer asks PostgreSQL costs the same however many jobs wait: each statement, by the blocks it touches on a
connection like the committer's."""

import json
from pathlib import Path
from typing import Any

from events import postgres_sql as sql
from events.job import CAREFUL_LOSSES
from events.postgres_line import PostgresLine
from events.shares import SPARE
from tests.builders import a_worker, committing
from tests.servers import PostgresServer
from tests.stores import open_log, postgres_settings

JOBS = 20_000
BLOCKS_MAX = 100  # all these jobs fill ten times as many, an index of them some 150
OURS = "('id', 'key_sha256', 'unique_key')"


async def test_no_statement_of_the_committer_reads_more_where_many_jobs_wait(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """20 000 due jobs of one tenant, each with a key and a unique key; behind them one job of another tenant."""
    settings = await postgres_settings(postgres, tmp_path)
    async with open_log(settings) as log, committing(log) as running:
        first = await running.submit(tenant="large", key="key", unique_key="key")
        async with log._writing(60.0) as connection:  # type: ignore[attr-defined]
            columns = await connection.exec_driver_sql(
                "SELECT string_agg(column_name, ', ') FROM information_schema.columns WHERE table_name = 'jobs' "
                f"AND is_generated = 'NEVER' AND column_name NOT IN {OURS}"
            )
            names = columns.scalar_one()
            await connection.exec_driver_sql(
                "INSERT INTO jobs (id, key_sha256, unique_key, " + names + ") "
                "SELECT ('01000000' || substr(md5(n::text), 9))::uuid, 'key' || n, 'key' || n, " + names + " "
                f"FROM generate_series(2, {JOBS}) AS s (n), jobs"
            )
            await connection.exec_driver_sql("ANALYZE jobs")
        small = await running.submit(tenant="small")
        await log.beat(a_worker(), 3600.0)
        now = await log.now()
    most = 4 + SPARE
    asked: dict[str, tuple[str, tuple[Any, ...]]] = {
        "a claim": (sql.CLAIMABLE, (["w1"], ["countdown"], [1], [4], CAREFUL_LOSSES, False)),
        "a claim of one tenant": (sql.CLAIMABLE_ALONE, (["w1"], ["countdown"], [1], [4], CAREFUL_LOSSES)),
        "a claim of two": (sql.CANDIDATES, (["countdown"], [1], [most], now, CAREFUL_LOSSES, most)),
        "its jobs": (sql.TAKE, ([first, small], now)),
        "a lock": (sql.LOCK, ([first, small],)),
        "jobs with these keys": (sql.KEYED, (["large", "large", "small"], ["key", "key7", "key8"])),
        "rivals": (sql.RIVALS, (["large", "small"], ["key7", "key8"], ["key9", None])),
        "holders": (sql.HOLDERS, ([first, small],)),
        "commands of jobs": (sql.FOUND, ([first, small], ["a", "b"])),
    }
    line = PostgresLine(str(settings.database_url))
    read: dict[str, int] = {}
    try:
        async with line.transaction() as connection:
            whole = await _blocks(connection, "SELECT count(params) FROM jobs", ())
            for what, (text, values) in asked.items():
                read[what] = await _blocks(connection, text, values)
    finally:
        await line.close()
    assert whole > 5 * BLOCKS_MAX
    assert {what: blocks for what, blocks in read.items() if blocks > BLOCKS_MAX} == {}


async def _blocks(connection: Any, text: str, values: tuple[Any, ...]) -> int:
    """By the server's own account, of what it ran."""
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *values)
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
