"""What administrative acts tell, held against records that no seal covers. PURE; `events/audit.py` feeds it.

Acts are sealed as every event is; a row that says where a job went, or who may call, is not. Such a row counts for what an act
tells of, and for nothing more.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from events.catalog import Administered
from events.clock import rfc3339
from events.keys import ApiKey
from events.retention import Archived
from events.seal_check import Finding
from events.seal_log import Stored


class ActsTold:
    """All acts of a log, in any order, by `take`."""

    def __init__(self) -> None:
        self.first: int | None = None  # when the first one was, ms
        self.erased: set[str] = set()  # jobs
        self.discarded: set[str] = set()  # jobs
        self._keys: dict[str, dict[str, Any]] = {}
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
            case "key_created" | "key_revoked" | "key_recorded":
                self._take_key(act, stored.envelope.tenant)
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

    def keys_unlike(self, keys: Sequence[ApiKey]) -> Iterator[Finding]:
        """Each key whose row is not what acts tell of it. The digest of its secret is held where an act tells that too."""
        there = {key.id: _of_row(key) for key in keys}
        for key_id, row in there.items():
            told = self._keys.get(key_id)
            if told is None or "scopes" not in told:
                yield Finding("added", "no act tells that it was made", key_id=key_id)
            else:
                for name in told:
                    if row[name] != told[name]:
                        yield Finding("changed", _differing(name, row[name], told[name]), key_id=key_id)
        for key_id in self._keys.keys() - there.keys():
            yield Finding("missing", "acts tell of it, and its row is gone", key_id=key_id)

    def _take_key(self, act: Administered, tenant: str) -> None:
        """What was told first counts; that it is revoked, for ever."""
        known = self._keys.setdefault(act.target, {"tenant": tenant, "revoked": False})
        known["revoked"] |= act.act == "key_revoked" or bool(act.changed.get("revoked"))
        for name in ("name", "scopes", "expires_at", "sha256") if act.act != "key_revoked" else ():
            if name in act.changed:
                known.setdefault(name, act.changed[name])


def _of_row(key: ApiKey) -> dict[str, Any]:
    expires = None if key.expires_at is None else rfc3339(key.expires_at)
    said = {"tenant": key.tenant, "name": key.name, "scopes": list(key.scopes), "expires_at": expires}
    return said | {"sha256": key.sha256.hex(), "revoked": key.revoked_at is not None}


def _differing(name: str, row: Any, told: Any) -> str:
    match name:
        case "sha256":
            return "its secret is another than the one it was made with"
        case "revoked":
            return (
                "its row is revoked, and no act tells of that" if row else "it was revoked, and its row says it is not"
            )
        case "scopes":
            return f"its scopes are {' '.join(row) or 'none'}, and acts tell of {' '.join(told)}"
        case _:
            return f"its {name} is {row or 'none'}, and acts tell of {told or 'none'}"


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
