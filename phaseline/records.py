"""What every erasure records, in its own transaction."""

from sqlalchemy import Connection, select

from events import tables as t
from events.acts_sql import act_statements
from events.record import Recorded


def is_erased(connection: Connection, job_id: str, through: int) -> bool:
    """Whether it is recorded that this job is erased, to this event."""
    x = t.erasures.c
    return connection.execute(select(x.job_id).where(x.job_id == job_id, x.through_seq == through)).first() is not None


def tell(connection: Connection, told: Recorded) -> None:
    """Appends an act, in the connection's transaction."""
    for statement in act_statements(told):
        connection.execute(statement)
