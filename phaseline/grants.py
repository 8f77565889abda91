"""`phaseline db grant`: a role for gateways and workers, which owns nothing and may do what they need, nothing else."""

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from events.errors import PhaselineError
from phaseline import database
from phaseline.doctor_database import FUNCTIONS, RIGHTS, SEQUENCES
from phaseline.settings import Misconfigured, Settings


async def grant(settings: Settings, role: str, password: str | None) -> bool:
    """Gives a role its rights and takes any other, in one transaction; a role that is not there is made with the password,
    which of one that is there is set, when given. True when it was made. As the role that migrates.

    Raises `Misconfigured` for SQLite, `PhaselineError` for a role that row level security would not hold."""
    if not settings.database_url:
        raise Misconfigured("SQLite has no roles; --database-url names a PostgreSQL")
    try:
        return await database.on_connection(settings, lambda connection: _grant(connection, role, password))
    except DBAPIError as refusal:
        raise PhaselineError(f"the database refused it: {str(refusal.orig).partition(chr(10))[0]}") from refusal


def _grant(connection: Connection, role: str, password: str | None) -> bool:
    with connection.begin():
        known = connection.execute(
            text("SELECT rolsuper OR rolbypassrls AS above FROM pg_roles WHERE rolname = :role"), {"role": role}
        ).one_or_none()
        if known is None and not password:
            raise PhaselineError(f"there is no role {role}, and no password to make it with: POSTGRES_APP_PASSWORD")
        if known is not None and known.above:
            raise PhaselineError(
                f"row level security does not hold {role}, a superuser or one that bypasses it; take another"
            )
        if _count(connection, "SELECT count(*) FROM pg_tables WHERE tableowner = :role", role=role):
            raise PhaselineError(f"{role} owns tables, so that nothing holds it; take another")
        if password:
            verb = "CREATE ROLE %I LOGIN PASSWORD %L" if known is None else "ALTER ROLE %I LOGIN PASSWORD %L"
            _formatted(connection, verb, role, password)
        schema = str(connection.execute(text("SELECT current_schema()")).scalar_one())
        _formatted(connection, "GRANT USAGE ON SCHEMA %I TO %I", schema, role)
        _formatted(connection, "REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I", schema, role)
        for table, rights in RIGHTS.items():
            _formatted(connection, f"GRANT {', '.join(rights.split())} ON %I TO %I", table, role)
        _formatted(connection, "GRANT UPDATE (used_at) ON %I TO %I", "api_keys", role)
        for sequence in SEQUENCES:
            _formatted(connection, "GRANT USAGE ON SEQUENCE %I TO %I", sequence, role)
        _formatted(connection, "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %I FROM %I", schema, role)
        for function in FUNCTIONS:
            _formatted(connection, f"GRANT EXECUTE ON FUNCTION {function} TO %I", role)
        return known is None


def _count(connection: Connection, sql: str, **values: str) -> int:
    return int(connection.execute(text(sql), values).scalar_one())


def _formatted(connection: Connection, statement: str, *values: str) -> None:
    """A statement that takes no parameters, with names and texts quoted by the database."""
    named = {f"v{number}": value for number, value in enumerate(values)}
    asked = text(f"SELECT format(:statement, {', '.join(f'CAST(:{name} AS text)' for name in named)})")
    connection.exec_driver_sql(str(connection.execute(asked, {"statement": statement, **named}).scalar_one()))
