"""The statements the log on PostgreSQL sends past SQLAlchemy, made of our own column names and never of input."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from events import tables as t
from events.catalog import ACT
from events.job import CAREFUL_LOSSES
from events.log import CLOCK_MS
from events.log_seals import ENVELOPE
from events.record import Recorded
from events.rows_sql import (
    JOB_ROW,
)
from events.seal import Range

NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
CLAIMS = 0x7068_6173_636C  # the advisory lock of claims where there are limits
TAKE_OUT = "SELECT phaseline_archive($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::boolean[])"


def lock_of(kind: str, key: tuple[str, str | None]) -> int:
    """The number of an advisory lock (64 bits, signed). Two keys with one number wait for each other, no more."""
    return int.from_bytes(hashlib.sha256(repr((kind, key)).encode()).digest()[:8], signed=True)


def _types_of(names: Sequence[str], columns: Any) -> dict[str, str]:
    words = {"Uuid": "uuid", "Text": "text", "BigInteger": "bigint", "Integer": "integer", "Float": "float8"}
    return {name: words.get(type(columns[name].type).__name__, "bytea") for name in names}


def _unnest(types: dict[str, str], *, after: int = 0) -> str:
    """An array for each column, of the parameters after `after`."""
    return f"unnest({', '.join(f'${i}::{kind}[]' for i, kind in enumerate(types.values(), after + 1))})"


def _texts(names: Iterable[str]) -> str:
    """Columns to select, ids as the text we know them by."""
    return ", ".join(f"{name}::text" if name in {"id", "job_id", "rerun_of"} else name for name in names)


def arrays(rows: Sequence[dict[str, Any]], types: dict[str, str]) -> list[list[Any]]:
    return [[row[name] for row in rows] for name in types]


JOB_TYPES = _types_of([*t.LIFECYCLE, *t.DETAILS], t.jobs.c)
EVENT_TYPES = _types_of([column.name for column in t.events.c if column.name not in {"pos", "epoch"}], t.events.c)
SAVE_TYPES = _types_of(["id", *t.CHANGING], t.jobs.c)
SEALED_TYPES = _types_of(Range.__slots__, t.sealed.c)
_RECORDED = _texts(Recorded._fields)


# One epoch at a time: the planner takes a row comparison's first column for its selectivity, and would read and sort
# everything behind the cursor for each page. The window runs over the limited rows only. The end is one expression, so
# that the index ends there too: behind a transaction that runs for long nothing is read again and again.
# With nothing behind the cursor there is one row, which says whether the log's epoch is a later one.
_BEHIND = "(xid, pos) > ($2::text::xid8, $3)"
# The comparison of four begins where the index does, and only the index that begins with the tenant is in this order: by the
# other one a tenant with few events would read everybody's.
_TENANTS_BEHIND = (
    f"(tenant, epoch, xid, pos) > ($6, $1, $2::text::xid8, $3) AND tenant <= $6 AND ($7::boolean OR type <> '{ACT}')"
)


def _feed_of(names: Sequence[str], behind: str = _BEHIND, order: str = "") -> str:
    return (
        f"SELECT q.epoch, xid_text, pos, {', '.join(names)}, log.epoch > $1 AS over FROM log LEFT JOIN ("
        "SELECT p.*, sum(size) OVER w AS total, row_number() OVER w AS nth FROM ("
        f"SELECT epoch, xid, xid::text AS xid_text, pos, size, {_texts(names)} FROM events "
        f"WHERE epoch = $1 AND {behind} "
        "AND xid < CASE WHEN $1 < (SELECT epoch FROM log) THEN '18446744073709551615'::xid8 "
        "ELSE pg_snapshot_xmin(pg_current_snapshot()) END "
        f"ORDER BY {order}events.xid, pos LIMIT $4"
        ") p WINDOW w AS (ORDER BY xid, pos)) q ON total <= $5 OR nth = 1 ORDER BY xid, pos"
    )


FEED = _feed_of(Recorded._fields)
FEED_OF_TENANT = _feed_of(Recorded._fields, _TENANTS_BEHIND, "tenant, ")
SEALABLE = _feed_of(ENVELOPE)
# Sequences have no hole, so a range of them bounds the window before anything is summed. In the order of `line_of`.
LINES = (
    "SELECT seq, type, version, attempt, actor, at, data FROM ("
    "SELECT seq, type, version, attempt, actor, at, data, sum(size) OVER (ORDER BY seq) AS total FROM events "
    "WHERE job_id = $1 AND seq > $2 AND seq <= $3"
    ") page WHERE total <= $4 OR seq = $2 + 1 ORDER BY seq"
)
# A plain update lock would also block readers of foreign keys; there are none, and this one is lighter.
# The clock is read outside of what locks, row by row: in the last row, after all locks.
LOCK = (
    f"SELECT q.*, {NOW} AS now FROM (SELECT {_texts(t.LIFECYCLE)} FROM jobs "
    "WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE) q"
)
_JOB_ROW = _texts(column.name for column in JOB_ROW)
HEADS = (
    "SELECT id::text, last_seq, status, tenant, (SELECT epoch || '-' || lineage FROM log) AS log_epoch FROM jobs "
    "WHERE id = ANY($1::uuid[])"
)
HEADS_SEALED = (
    "SELECT id::text, last.last_seq, last.head FROM unnest($1::uuid[]) AS id, LATERAL (SELECT last_seq, head FROM sealed "
    "WHERE job_id = id ORDER BY first_seq DESC LIMIT 1) AS last"
)
PUT_RANGES = f"INSERT INTO sealed ({', '.join(SEALED_TYPES)}) SELECT * FROM {_unnest(SEALED_TYPES)}"
_CLOCK = f"WITH clock AS MATERIALIZED (SELECT {NOW} AS now)"


# All that a claim asks. The clock is read before any job is locked; whether a worker is live is asked once, and without one
# no job is looked at.
def _claimable(shares: str, alone: str, locking: str = " FOR NO KEY UPDATE SKIP LOCKED") -> str:
    return (
        f"{_CLOCK}, live AS MATERIALIZED (SELECT array(SELECT id FROM workers WHERE id = ANY($1::text[]) "
        "AND lease_until > (SELECT now FROM clock)) AS ids), "
        f"shares AS MATERIALIZED ({shares}), due AS ("
        "SELECT found.* FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS wanted (engine, version, most), LATERAL ("
        f"SELECT {_JOB_ROW} FROM jobs WHERE status = 'queued' AND engine = wanted.engine "
        "AND engine_version = wanted.version AND coalesce(not_before, 0) <= (SELECT now FROM clock) AND losses < $5 "
        f"AND (SELECT ids <> '{{}}' FROM live) AND {alone} "
        f"ORDER BY rank LIMIT wanted.most{locking}) AS found) "
        "SELECT clock.now, live.ids AS live, shares.shared, shares.limited, due.* "
        "FROM clock CROSS JOIN live CROSS JOIN shares LEFT JOIN due ON true"
    )


_ASKED = (
    "SELECT limited, limited OR several AS shared FROM (SELECT $6::boolean OR EXISTS ("
    "SELECT FROM jobs WHERE concurrency_key IS NOT NULL AND status = 'queued') AS limited, "
    "(SELECT min(tenant) FROM jobs WHERE status = 'queued') IS DISTINCT FROM "
    "(SELECT max(tenant) FROM jobs WHERE status = 'queued') AS several OFFSET 0) AS asked"
)
CLAIMABLE = _claimable(_ASKED, "NOT (SELECT shared FROM shares)")
SEEN_CLAIMABLE = _claimable(_ASKED, "NOT (SELECT shared FROM shares)", "")
# Soon after nobody was found to share with: a job that has a limit waits for the next question, none passes it.
CLAIMABLE_ALONE = _claimable("SELECT false AS limited, false AS shared", "concurrency_key IS NULL")
SEEN_CLAIMABLE_ALONE = _claimable("SELECT false AS limited, false AS shared", "concurrency_key IS NULL", "")


# Whose turn it can be: of each tenant that has queued jobs, found by one look at an index each, what it runs and its next job
# of each engine that is within the limit of its concurrency key. Of those the first $7 by what they run and that rank: no
# more tenants can come to a turn, however many wait. Of each of them the next jobs, as columns of `Candidate`.
# The comparisons of pairs say no more than two equalities would, but only the index that begins with the tenant is in their
# order: by the one of all due jobs of an engine, whoever has one job behind a hundred thousand of somebody else's costs
# reading them.
def _within_limits(tenant: str, engine: str, version: str, columns: str, most: str) -> str:
    return (
        f"SELECT {columns} FROM (SELECT id, tenant, engine, engine_version, rank, concurrency_key, concurrency_limit FROM jobs "
        f"WHERE status = 'queued' AND (tenant, engine) >= ({tenant}, {engine}) AND (tenant, engine) <= ({tenant}, {engine}) "
        f"AND engine_version = {version} AND coalesce(not_before, 0) <= $4 AND losses < $5 "
        "ORDER BY tenant, engine, rank LIMIT $6) AS ahead LEFT JOIN busy USING (tenant, concurrency_key) "
        "WHERE concurrency_limit IS NULL OR coalesce(busy.holding, 0) < concurrency_limit "
        f"ORDER BY tenant, engine, rank LIMIT {most}"
    )


CANDIDATES = (
    "WITH RECURSIVE tenants (tenant) AS (SELECT min(tenant) FROM jobs WHERE status = 'queued' UNION ALL SELECT "
    "(SELECT min(tenant) FROM jobs WHERE status = 'queued' AND tenant > tenants.tenant) FROM tenants "
    "WHERE tenants.tenant IS NOT NULL), busy AS MATERIALIZED (SELECT tenant, concurrency_key, count(*) AS holding FROM jobs "
    "WHERE status = 'running' AND concurrency_key IS NOT NULL GROUP BY tenant, concurrency_key), "
    "firsts AS MATERIALIZED (SELECT tenants.tenant, load.running, wanted.*, first.rank FROM tenants CROSS JOIN LATERAL ("
    "SELECT count(*) AS running FROM jobs WHERE tenant = tenants.tenant AND status = 'running') AS load "
    "CROSS JOIN unnest($1::text[], $2::integer[], $3::bigint[]) AS wanted (engine, version, most) CROSS JOIN LATERAL ("
    f"{_within_limits('tenants.tenant', 'wanted.engine', 'wanted.version', 'rank', '1')}) AS first "
    "WHERE tenants.tenant IS NOT NULL AND ($8::bigint = 0 OR load.running < $8)), "
    "few AS MATERIALIZED (SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY engine, version ORDER BY running, rank) "
    "AS place FROM firsts) AS placed WHERE place <= $7::bigint) "
    "SELECT found.id::text, found.tenant, found.engine, found.engine_version, found.rank, found.concurrency_key, "
    "found.concurrency_limit, few.running, found.holding FROM few CROSS JOIN LATERAL ("
    f"{_within_limits('few.tenant', 'few.engine', 'few.version', 'ahead.*, coalesce(busy.holding, 0) AS holding', 'few.most')}"
    ") AS found"
)
TAKE = (
    f"SELECT {_JOB_ROW} FROM jobs WHERE id = ANY($1::uuid[]) AND status = 'queued' "
    "AND coalesce(not_before, 0) <= $2 FOR NO KEY UPDATE SKIP LOCKED"
)
# All that a beat says and asks, in one statement and thus at one moment.
BEAT = (
    f"{_CLOCK}, beaten AS (INSERT INTO workers (id, host, pid, build, slots, engines, draining, started_at, beat_at, "
    "lease_until) SELECT $1::text, $2, $3::integer, $4, $5::integer, $6, $7::boolean, now, now, now + $8::bigint FROM clock ON CONFLICT (id) DO UPDATE "
    "SET draining = excluded.draining, slots = excluded.slots, beat_at = excluded.beat_at, "
    "lease_until = excluded.lease_until) SELECT clock.now, EXISTS (SELECT FROM jobs WHERE status = 'queued' "
    f"AND losses >= {CAREFUL_LOSSES} AND last_at <= now - $9::bigint AND coalesce(not_before, 0) <= now - $9::bigint) "
    "AS waiting, jobs.id::text AS id, attempt, lease_id, cancel_mode, cancel_at, opened_at, total_s "
    "FROM clock LEFT JOIN jobs ON worker_id = $1::text AND status = 'running'"
)
LEAD = (
    f"UPDATE leaders SET holder = $2, lease_until = {NOW} + $3 WHERE name = $1 AND (holder = $2 OR lease_until < {NOW})"
)
FIRST_LEAD = (
    f"INSERT INTO leaders (name, holder, lease_until) VALUES ($1, $2, {NOW} + $3) ON CONFLICT (name) DO NOTHING"
)
FIRST_LOOK = (
    "INSERT INTO leaders (name, holder, lease_until) SELECT name, $2, 0 FROM unnest($1::text[]) AS name "
    "ON CONFLICT (name) DO NOTHING"
)
_READY = f"jobs WHERE status = 'queued' AND losses < {CAREFUL_LOSSES}"  # by ix_jobs_ready, from either end
# A lease that is locked just now is left alone until the next look: two that look must not wait for each other. What
# only a leader needs to know is asked only for it: PostgreSQL evaluates no further than the first false condition.
LOOK = (
    f"{_CLOCK}, renewed AS (UPDATE leaders SET holder = $1, lease_until = {NOW} + $3::bigint WHERE name IN ("
    "SELECT name FROM leaders WHERE name = ANY($2::text[]) "
    f"AND (holder = $1 AND lease_until < {NOW} + $3::bigint / 2 OR lease_until < {NOW}) FOR UPDATE SKIP LOCKED"
    ") RETURNING name), mine AS MATERIALIZED (SELECT name FROM renewed UNION SELECT name FROM leaders, clock "
    "WHERE name = ANY($2::text[]) AND holder = $1 AND lease_until > now) "
    "SELECT now, (SELECT array_agg(name) FROM mine) AS leads, "
    "EXISTS (SELECT FROM mine WHERE name = 'expire') AND EXISTS ({overdue}) AS overdue, "
    "EXISTS (SELECT FROM mine WHERE name = 'tickets') AND ("
    f"coalesce((SELECT not_before IS NULL FROM {_READY} ORDER BY not_before DESC LIMIT 1), false) "
    f"OR coalesce((SELECT min(not_before) FROM {_READY}) <= {NOW}, false)) AS due, "
    "$4::bigint IS NOT NULL AND ((SELECT epoch FROM log) > $4 OR EXISTS (SELECT FROM events WHERE epoch = $4 "
    "AND (xid, pos) > ($5::text::xid8, $6::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot()))) AS behind, "
    "EXISTS (SELECT FROM mine WHERE name = 'schedules') "
    "AND EXISTS (SELECT FROM schedules WHERE next_at <= (SELECT now FROM clock)) AS ticks "
    "FROM clock"
)
# Two arms, an index each.
RIVALS = (
    "WITH new AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS n (whose, one, keyed)) "
    f"SELECT {_JOB_ROW} FROM new JOIN jobs ON tenant = whose AND unique_key = one AND status IN ('queued', 'running') "
    f"UNION SELECT {_JOB_ROW} FROM new JOIN jobs ON tenant = whose AND key_sha256 = keyed"
)
HOLDERS = (
    "SELECT own.id::text AS id, other.id::text AS holder FROM jobs own JOIN jobs other ON other.tenant = own.tenant "
    "AND other.unique_key = own.unique_key AND other.status IN ('queued', 'running') AND other.id <> own.id "
    "WHERE own.id = ANY($1::uuid[])"
)
KEYED = (
    f"SELECT {_JOB_ROW} FROM unnest($1::text[], $2::text[]) AS n (whose, keyed) "
    "JOIN jobs ON tenant = whose AND key_sha256 = keyed"
)
FOUND = (
    f"SELECT {_RECORDED} FROM events WHERE job_id = ANY($1::uuid[]) AND command_id = ANY($2::text[]) "
    "ORDER BY job_id, seq"
)
INSERT_JOBS = (
    f"INSERT INTO jobs ({', '.join(JOB_TYPES)}) SELECT * FROM {_unnest(JOB_TYPES)} "
    "ON CONFLICT (tenant, key_sha256) WHERE key_sha256 IS NOT NULL DO NOTHING RETURNING id::text"
)


# The epoch is the log's own at this moment, and stays so until the commit: who raises it first locks `events` against
# appends (see `BEGIN_EPOCH`), and a statement reads only once it has its locks.
def _appended(*, after: int = 0) -> str:
    return (
        f"WITH lineage AS (SELECT epoch, lineage FROM log), appended AS (INSERT INTO events ({', '.join(EVENT_TYPES)}, epoch) "
        f"SELECT v.*, lineage.epoch FROM {_unnest(EVENT_TYPES, after=after)} AS v, lineage)"
    )


APPENDED = _appended()
_LINEAGE = "SELECT epoch || '-' || lineage FROM lineage"
APPEND = f"{APPENDED} {_LINEAGE}"
BEGIN_EPOCH = "LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE"  # waits for every append under way; readers go on
_SETS = ", ".join(f"{name} = v.{name}" for name in t.CHANGING)
SAVE_AND_APPEND = (
    f"{APPENDED}, saved AS (UPDATE jobs AS j SET {_SETS} FROM {_unnest(SAVE_TYPES, after=len(EVENT_TYPES))} "
    f"AS v ({', '.join(SAVE_TYPES)}) WHERE j.id = v.id) {_LINEAGE}"
)
WAS_TYPES = {"was_seq": "bigint", "was_lease": "text"}


# Everything a batch writes that locked nothing. What it was decided on is held against what is there: dividing by zero is how
# a statement takes back what it has written. The clock is that of the statement's arrival, whatever it waits for then.
def _unlocked(*, makes: bool, saves: bool) -> str:
    place = 1 + len(EVENT_TYPES)
    parts, holds = [_appended(after=1)], [f"coalesce(abs(clock - $1::bigint) <= {CLOCK_MS}, true)"]
    if makes:
        parts.append(
            f"made AS (INSERT INTO jobs ({', '.join(JOB_TYPES)}) SELECT * FROM {_unnest(JOB_TYPES, after=place)})"
        )
        place += len(JOB_TYPES)
    if saves:
        types = SAVE_TYPES | WAS_TYPES
        parts.append(
            f"saved AS (UPDATE jobs AS j SET {_SETS} FROM {_unnest(types, after=place)} AS v ({', '.join(types)}) "
            "WHERE j.id = v.id AND j.last_seq = v.was_seq AND j.lease_id IS NOT DISTINCT FROM v.was_lease RETURNING j.id)"
        )
        holds.append(f"(SELECT count(*) FROM saved) = cardinality(${place + 1})")
    arrived = "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
    return (
        f"{', '.join(parts)} SELECT epoch || '-' || lineage, clock, 1 / ({' AND '.join(holds)})::int "
        f"FROM lineage, (SELECT {arrived} AS clock) AS arrival"
    )


UNLOCKED = {(makes, saves): _unlocked(makes=makes, saves=saves) for makes in (False, True) for saves in (False, True)}
