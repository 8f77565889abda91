"""The embedded database. Loaded only where it is used: a process on PostgreSQL has no need of it in memory."""

from events.log_archived import WithArchive
from events.log_sqlite import SqliteLog, sqlite_engine

__all__ = ["ArchivedSqliteLog", "SqliteLog", "sqlite_engine"]


class ArchivedSqliteLog(WithArchive, SqliteLog):
    """With the jobs retention took out."""
