"""What is asked of PostgreSQL again and again costs the same however much is in the log: each statement, by the blocks it
touches with the plan the committer's connection keeps."""

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


async def test_no_statement_reads_more_where_many_jobs_wait_and_others_have_many_events(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """20 000 due jobs of one tenant, each with an event, a key and a unique key; behind them one job of another tenant."""
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
            copied = await connection.exec_driver_sql(
                "SELECT string_agg(column_name, ', ') FROM information_schema.columns WHERE table_name = 'events' "
                "AND column_name NOT IN ('job_id', 'pos', 'xid')"
            )
            names = copied.scalar_one()
            await connection.exec_driver_sql(
                f"INSERT INTO events (job_id, {names}) SELECT overlay(job_id::text PLACING substr(md5(n::text), 1, 12) FROM 25)"
                f"::uuid, {names} FROM generate_series(2, {JOBS}) AS s (n), events"
            )
            await connection.exec_driver_sql("ANALYZE jobs, events")
        small = await running.submit(tenant="small")
        await log.beat(a_worker(), 3600.0)
        now = await log.now()
        assert (await log.look("me", ["expire", "tickets"], 60.0, None)).due
        look = log._look  # type: ignore[attr-defined]
    most = 4 + SPARE
    asked: dict[str, tuple[str, tuple[Any, ...]]] = {
        "a claim": (sql.CLAIMABLE, (["w1"], ["countdown"], [1], [4], CAREFUL_LOSSES, False)),
        "a claim of one tenant": (sql.CLAIMABLE_ALONE, (["w1"], ["countdown"], [1], [4], CAREFUL_LOSSES)),
        "a claim of two": (sql.CANDIDATES, (["countdown"], [1], [most], now, CAREFUL_LOSSES, most, most, 0)),
        "its jobs": (sql.TAKE, ([first, small], now)),
        "a lock": (sql.LOCK, ([first, small],)),
        "jobs with these keys": (sql.KEYED, (["large", "large", "small"], ["key", "key7", "key8"])),
        "rivals": (sql.RIVALS, (["large", "small"], ["key7", "key8"], ["key9", None])),
        "holders": (sql.HOLDERS, ([first, small],)),
        "commands of jobs": (sql.FOUND, ([first, small], ["a", "b"])),
        "a look of the leader": (look, ("me", ["expire", "tickets"], 60_000, None, None, None)),
        "the feed of the small tenant": (sql.FEED_OF_TENANT, (1, "0", -1, 50, 10**6, "small", False)),
        "the feed of nobody": (sql.FEED_OF_TENANT, (1, "0", -1, 50, 10**6, "nobody", False)),
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
    """By the server's own account, of what it ran. Prepared and executed: that is the plan which is kept."""
    await connection.execute(f"PREPARE asked AS {text}")
    told = f"({', '.join(map(_literal, values))})" if values else ""
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked{told}")
    await connection.execute("DEALLOCATE asked")
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return "'{" + ",".join("NULL" if one is None else str(one) for one in value) + "}'"
    return "NULL" if value is None else f"'{value}'"
