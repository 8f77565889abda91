"""Whether the database is what the log needs: schema, rights, append-only, partitions, durable commits, its clock."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, text

from events import tables
from events.clock import Clock
from phaseline.database import SQLITE_FILE
from phaseline.findings import Finding, failed, ok, warning
from phaseline.settings import Settings

OLDEST = 150_000
CLOCK_MS = 2000
WEEK_MS = 7 * 24 * 3600 * 1000  # a partition's span
CONNECTIONS_FULL = 0.9
MIGRATE = "run `phaseline db migrate` as the role that owns the schema"

# What the application's role must be allowed; nothing else.
RIGHTS = {
    "alembic_version": "SELECT",
    "compatible": "SELECT",
    "jobs": "SELECT INSERT UPDATE",
    "job_tags": "SELECT INSERT DELETE",
    "events": "SELECT INSERT",
    "artifacts": "SELECT INSERT",
    "workers": "SELECT INSERT UPDATE DELETE",
    "engines": "SELECT INSERT UPDATE",
    "leaders": "SELECT INSERT UPDATE",
    "log": "SELECT",
    "seals": "SELECT INSERT",
    "sealed": "SELECT INSERT",
    "erasures": "SELECT",
    "holds": "SELECT INSERT",
    "acts": "SELECT INSERT",
    "archived": "SELECT",
    "pins": "SELECT INSERT DELETE",
    "webhooks": "SELECT",
    "deliveries": "SELECT UPDATE",
    "delivery_attempts": "SELECT INSERT",
    "stream_passes": "SELECT INSERT UPDATE DELETE",
    "schedules": "SELECT INSERT UPDATE DELETE",
    "schedule_acts": "SELECT INSERT",
    "api_keys": "SELECT",  # and UPDATE of one column: a gateway notes their use, and can make none
}
SEQUENCES = ("events_pos_seq", "schedule_acts_no_seq", "holds_no_seq")
FUNCTIONS = (  # of the migrating role: what they do, and judge whether to
    "phaseline_make_partition(bigint)",
    "phaseline_archive(uuid[], bigint[], text[], bigint[], bigint[], boolean[])",
    "phaseline_drop_partition(bigint)",
)
_KEPT = ("events", "seals", "sealed", "erasures", "delivery_attempts", "holds", "acts")  # append-only
_WALLED = (  # behind row level security
    "jobs", "events", "job_tags", "artifacts", "stream_passes", "schedules", "webhooks", "deliveries", "delivery_attempts",
    "holds", "acts", "archived", "pins",
)  # fmt: skip
_TRIGGERS = {
    "postgresql": tuple(f"{table}_no_{what}" for table in _KEPT for what in ("change", "truncate")),
    "sqlite": tuple(f"{table}_no_{what}" for table in _KEPT for what in ("update", "delete")),
}


@dataclass(frozen=True, slots=True)
class Looked:
    """`engines` are those workers declared: RabbitMQ has a queue for each."""

    findings: list[Finding]
    engines: list[str]


def missing_file(settings: Settings) -> Finding | None:
    """Where the embedded database should be and is not."""
    if settings.database_url or (settings.data_dir / SQLITE_FILE).exists():
        return None
    cure = "start `phaseline up`, which makes it, or say where it is with --data-dir; servers need --database-url"
    return failed("database", f"there is no {Path(settings.data_dir, SQLITE_FILE)}", cure)


def away(settings: Settings, why: str) -> Finding:
    """The finding for a database that does not answer."""
    if settings.database_url:
        return failed("database", why, "start PostgreSQL, or correct PHASELINE_DATABASE_URL")
    cure = "end what holds the file (`fuser`), and see that this user may read and write the data directory"
    return failed("database", why, cure)


def looked(connection: Connection) -> Looked:
    """Everything there is to see on a connection that works."""
    postgres = connection.dialect.name == "postgresql"
    found = [check(connection) for check in (_ON_POSTGRES if postgres else (_sqlite,))]
    found.append(_clock(connection))
    if not _has_schema(connection):
        return Looked([*found, failed("schema", "there is none", MIGRATE)], [])
    for check in (_rights, _revision) if postgres else (_revision,):
        found.append(one := check(connection))
        if one.state == "failed":
            return Looked(found, [])  # what it may not read, or does not know, cannot be looked at
    found += [check(connection) for check in (_append_only, _partitions if postgres else _journal, _workers)]
    if postgres:
        found.append(_tenants(connection))
    return Looked(found, [row[0] for row in _all(connection, "SELECT name FROM engines ORDER BY name")])


def _all(connection: Connection, sql: str, **values: object) -> list[Row[Any]]:
    return list(connection.execute(text(sql), values).all())


def _one(connection: Connection, sql: str, **values: object) -> str:
    return str(connection.execute(text(sql), values).scalar())


# ---- both


def _sqlite(connection: Connection) -> Finding:
    return ok("database", f"SQLite answers: {connection.engine.url.database}")


def _has_schema(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        return _one(connection, "SELECT to_regclass('alembic_version') IS NOT NULL") == "True"
    return _one(connection, "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'") == "1"


def _revision(connection: Connection) -> Finding:
    has = _one(connection, "SELECT max(version_num) FROM alembic_version")
    if has == tables.REVISION:
        return ok("schema", f"revision {has}")
    detail = f"revision {has}, this version needs {tables.REVISION}"
    if has.isdecimal() and has > tables.REVISION:
        if _one(connection, "SELECT max(since) FROM compatible") <= tables.REVISION:
            return ok("schema", f"revision {has}, which serves this version's {tables.REVISION} too")
        return failed("schema", detail, "install the Phaseline it was migrated for")
    return failed("schema", detail, MIGRATE)


def _clock(connection: Connection) -> Finding:
    if connection.dialect.name != "postgresql":
        return ok("clock", "the database's clock is this machine's")
    before = Clock().now_ms()
    there = int(_one(connection, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"))
    after = Clock().now_ms()
    apart = max(there - after, before - there, 0)
    detail = f"the database's clock is {apart} ms off, or less"
    if apart > CLOCK_MS:
        return warning("clock", detail, "synchronise both machines (NTP, chrony): times in streams are the database's")
    return ok("clock", detail)


def _append_only(connection: Connection) -> Finding:
    named = _TRIGGERS[connection.dialect.name]
    if connection.dialect.name == "postgresql":
        rows = _all(
            connection,
            "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D' AND tgrelid IN (to_regclass('events'), "
            "to_regclass('seals'), to_regclass('sealed'), to_regclass('erasures'), to_regclass('delivery_attempts'), "
            "to_regclass('holds'), to_regclass('acts'))",
        )
    else:
        rows = _all(connection, "SELECT name FROM sqlite_master WHERE type = 'trigger'")
    gone = [name for name in named if name not in {row[0] for row in rows}]
    if gone:
        what = ", ".join(gone)
        table = gone[0].partition("_no_")[0]
        cure = f"ALTER TABLE {table} ENABLE TRIGGER {gone[0]}, or restore the schema; then `phaseline verify`"
        return failed("append-only", f"nothing refuses changes of {table}: {what} is missing or disabled", cure)
    return ok("append-only", "changes of events and seals are refused")


def _workers(connection: Connection) -> Finding:
    now = _now(connection)
    alive = int(_one(connection, "SELECT count(*) FROM workers WHERE lease_until > :now", now=now))
    if not alive:
        return warning("workers", "none is alive: jobs wait", "start `phaseline worker`, or `phaseline up`")
    slots = _one(connection, "SELECT sum(slots) FROM workers WHERE lease_until > :now", now=now)
    return ok("workers", f"{alive} alive with {slots} slots")


def _now(connection: Connection) -> int:
    if connection.dialect.name == "postgresql":
        return int(_one(connection, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"))
    return Clock().now_ms()


# ---- PostgreSQL


def _version(connection: Connection) -> Finding:
    number, name = int(_one(connection, "SHOW server_version_num")), _one(connection, "SHOW server_version")
    if number < OLDEST:
        return failed("database", f"PostgreSQL {name} is older than 15", "upgrade it to 15 or later")
    if _one(connection, "SELECT pg_is_in_recovery()") == "True":
        cure = "name the primary in PHASELINE_DATABASE_URL (several hosts: target_session_attrs=read-write)"
        return failed("database", f"PostgreSQL {name} answers, but is a replica", cure)
    return ok("database", f"PostgreSQL {name} answers")


def _durable(connection: Connection) -> Finding:
    for name, why in {
        "fsync": "a crash of its machine may destroy the database",
        "full_page_writes": "a crash of its machine may tear pages",
        "synchronous_commit": "a crash may lose jobs that were accepted",
    }.items():
        if _one(connection, f"SHOW {name}") == "off":
            cure = f"ALTER SYSTEM SET {name} = on, and SELECT pg_reload_conf(); see also ALTER ROLE and ALTER DATABASE … SET"
            return failed("durability", f"{name} is off: {why}", cure)
    return ok("durability", f"fsync is on, synchronous_commit is {_one(connection, 'SHOW synchronous_commit')}")


def _connections(connection: Connection) -> Finding:
    used, most = (
        int(_one(connection, "SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL")),
        int(_one(connection, "SHOW max_connections")),
    )
    detail = f"{used} of {most} in use; a worker takes up to 9, a gateway 13"
    if used > CONNECTIONS_FULL * most:
        return warning("connections", detail, "raise max_connections, or put fewer processes on this server")
    return ok("connections", detail)


def _rights(connection: Connection) -> Finding:
    lacking = [
        f"{right} ON {table}"
        for table, rights in RIGHTS.items()
        if _one(connection, "SELECT to_regclass(:name) IS NOT NULL", name=table) == "True"  # else an older schema
        for right in rights.split()
        if not _allowed(connection, "has_table_privilege", table, right)
    ]
    lacking += [
        f"USAGE ON SEQUENCE {sequence}"
        for sequence in SEQUENCES
        if _one(connection, "SELECT to_regclass(:name) IS NOT NULL", name=sequence) == "True"
        if not _allowed(connection, "has_sequence_privilege", sequence, "USAGE")
    ]
    lacking += [
        f"EXECUTE ON FUNCTION {function}"
        for function in FUNCTIONS
        if _one(connection, "SELECT to_regprocedure(:name) IS NOT NULL", name=function) == "True"
        if not _allowed(connection, "has_function_privilege", function, "EXECUTE")
    ]
    if _one(connection, "SELECT to_regclass('api_keys') IS NOT NULL") == "True" and not _allowed(
        connection, "has_any_column_privilege", "api_keys", "UPDATE"
    ):
        lacking.append("UPDATE (used_at) ON api_keys")
    role = _one(connection, "SELECT current_user")
    if lacking:
        cure = "as the owner of the schema: " + "; ".join(f"GRANT {one} TO {role}" for one in lacking)
        return failed("permissions", f"{role} lacks {', '.join(lacking)}", cure)
    return ok("permissions", f"{role} may do what it must")


def _allowed(connection: Connection, function: str, name: str, right: str) -> bool:
    return _one(connection, f"SELECT {function}(:name, :right)", name=name, right=right) == "True"


def _tenants(connection: Connection) -> Finding:
    """Whether row level security stands behind the queries' own tenant."""
    open_, passes = [], []
    for table in _WALLED:
        row = _all(
            connection,
            "SELECT relrowsecurity AS stands, row_security_active(oid) AS holds FROM pg_class WHERE oid = to_regclass(:name)",
            name=table,
        )[0]
        open_ += [] if row.stands else [table]
        passes += [] if row.holds else [table]
    if open_:
        cure = "as the owner of the schema: " + "; ".join(
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY" for name in open_
        )
        return failed("tenants", f"row level security is off for {', '.join(open_)}", cure)
    if passes:
        cure = "if several tenants share this, let gateways use a role that owns nothing, with the rights named here"
        return warning(
            "tenants", "this role owns the tables, or is a superuser: row level security does not hold it", cure
        )
    return ok("tenants", "row level security holds what is read for one of them")


def _partitions(connection: Connection) -> Finding:
    week = _now(connection) // WEEK_MS
    rows = _all(
        connection,
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass",
    )
    attached = {row[0] for row in rows}
    cure = "SELECT phaseline_make_partition({0}), or start a gateway or a worker: they make those of the coming weeks"
    if f"events_w{week}" not in attached:
        return failed("partitions", f"none for this week, events_w{week}: no job can be made", cure.format(week))
    if f"events_w{week + 1}" not in attached:
        return warning("partitions", f"none for next week, events_w{week + 1}", cure.format(week + 1))
    return ok("partitions", f"{len(attached)}, this and next week among them")


_ON_POSTGRES: tuple[Callable[[Connection], Finding], ...] = (_version, _durable, _connections)


# ---- SQLite


def _journal(connection: Connection) -> Finding:
    mode = _one(connection, "PRAGMA journal_mode")
    if mode != "wal":
        cure = "end whatever changed it, and start `phaseline up`, which sets it"
        return warning("durability", f"the journal is {mode}, not wal: readers and writers block each other", cure)
    return ok("durability", "write-ahead log, every commit synced")
