"""What administrative acts tell, held against records that no seal covers. PURE; `events/audit.py` feeds it.

Acts are sealed as every event is; a row that says where a job went, or who may call, is not. Such a row counts for what an act
tells of, and for nothing more.
"""

from collections import Counter
from collections.abc import Iterator

from events.retention import Archived
from events.seal_check import Finding
from events.seal_log import Stored


class ActsTold:
    """All acts of a log, in any order, by `take`."""

    def __init__(self) -> None:
        self.first: int | None = None  # when the first one was, ms
        self.erased: set[str] = set()  # jobs
        self.discarded: set[str] = set()  # jobs
        self._archived: Counter[str] = Counter()  # jobs, by tenant
        self._archived_events: Counter[str] = Counter()

    def take(self, stored: Stored) -> None:
        """The next act."""
        self.first = min(stored.envelope.at, self.first or stored.envelope.at)
        try:
            act = stored.recorded().act()
        except ValueError:  # it was edited, which is told by its check
            return
        match act.act:
            case "payload_erased":
                self.erased.add(act.target)
            case "jobs_discarded":
                self.discarded.update(act.changed.get("job_ids", ()))
            case "jobs_archived":
                self._archived[stored.envelope.tenant] += act.changed.get("jobs", 0)
                self._archived_events[stored.envelope.tenant] += act.changed.get("events", 0)
            case _:
                pass

    def more_archived(self, records: "ArchivedCount") -> Iterator[Finding]:
        """By tenant with jobs that were not read, where records say that more went to an archive than acts tell of. Less is no
        finding of its own: a job whose record is gone is missing."""
        for tenant in records.unread:
            said = records.jobs[tenant], records.events[tenant]
            told = self._archived[tenant], self._archived_events[tenant]
            if said[0] > told[0] or said[1] > told[1]:
                detail = (
                    f"{said[0]} jobs of tenant {tenant} with {said[1]} events are recorded as archived, and acts tell of "
                    f"{told[0]} with {told[1]}: jobs were made away with as archived"
                )
                yield Finding("missing", detail)


class ArchivedCount:
    """What the records of archived jobs say, by tenant."""

    def __init__(self) -> None:
        self.jobs: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.unread: dict[str, None] = {}  # tenants with jobs whose events nobody could read

    def take(self, one: Archived, *, read: bool) -> None:
        """The next record, and whether the events were there."""
        if one.place is not None:
            self.jobs[one.tenant] += 1
            self.events[one.tenant] += one.last_seq
            if not read:
                self.unread[one.tenant] = None
