"""Who goes next when several want a worker: shares of tenants, limits of tenants and of concurrency keys. PURE.

The next place goes to the tenant that runs least, and within a tenant to the job of the best rank. So one with ten thousand
jobs in its queue holds up nobody: whoever runs nothing is next. What would pass a limit is left in the queue, where the claim
finds it after something has ended.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from events.log import JobRow

AHEAD = 1000  # due jobs of a tenant and engine that are looked at, best rank first, for one within its limit
LIMITED_MAX = 200  # of those, so many are chosen from
SPARE = 8  # jobs chosen beyond those asked for: another process may be just about to take some


def by_rank(row: JobRow) -> tuple[int, str]:
    """The order of claims where there is nothing to share."""
    return row.job.rank, row.job.id


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due job. `running` are those of its tenant, `holding` those with its concurrency key."""

    id: str
    tenant: str
    engine: str
    version: int
    rank: int
    key: str | None
    limit: int | None
    running: int
    holding: int


def chosen(candidates: Iterable[Candidate], wanted: Mapping[tuple[str, int], int], tenant_max: int) -> list[str]:
    """The ids of those to start, the first first: of each engine and version at most as many as wanted, of a tenant no more
    than `tenant_max` with those that run (0: no limit)."""
    left = dict(wanted)
    running: dict[str, int] = {}
    holding: dict[tuple[str, str], int] = {}
    lines: dict[str, list[Candidate]] = {}
    for one in sorted(candidates, key=lambda one: (one.rank, one.id), reverse=True):
        lines.setdefault(one.tenant, []).append(one)  # the best is last
        running[one.tenant] = one.running
        if one.key is not None:
            holding[one.tenant, one.key] = one.holding
    turns = [(running[tenant], line[-1].rank, tenant) for tenant, line in lines.items()]
    heapq.heapify(turns)
    taken: list[str] = []
    while turns:
        _, _, tenant = heapq.heappop(turns)
        line = lines[tenant]
        if tenant_max and running[tenant] >= tenant_max:
            continue
        while line:
            one = line.pop()
            place = (tenant, one.key) if one.key is not None else None
            full = place is not None and one.limit is not None and holding[place] >= one.limit
            if full or not left.get((one.engine, one.version)):
                continue
            taken.append(one.id)
            left[one.engine, one.version] -= 1
            running[tenant] += 1
            if place is not None:
                holding[place] += 1
            if line:
                heapq.heappush(turns, (running[tenant], line[-1].rank, tenant))
            break
    return taken


def claimable_of(
    due: Iterable[tuple[str, int, str, str | None, int | None, int]],
    running: Mapping[str, int],
    holding: Mapping[tuple[str, str], int],
    tenant_max: int,
) -> dict[tuple[str, int], int]:
    """How many due jobs could start now, by engine and version: tickets for others would be claims of nothing. `due` are
    (engine, version, tenant, concurrency key, its limit, number)."""
    left = dict(running)
    held = dict(holding)
    counts: dict[tuple[str, int], int] = {}
    for engine, version, tenant, key, limit, number in due:
        fits = number
        if key is not None and limit is not None:
            fits = min(fits, max(limit - held.get((tenant, key), 0), 0))
            held[tenant, key] = held.get((tenant, key), 0) + fits
        if tenant_max:
            fits = min(fits, max(tenant_max - left.get(tenant, 0), 0))
            left[tenant] = left.get(tenant, 0) + fits
        if fits:
            counts[engine, version] = counts.get((engine, version), 0) + fits
    return counts
