"""Who goes next (events/shares.py)."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from events.shares import Candidate, chosen, claimable_of

ENGINE = ("countdown", 1)


@st.composite
def queues(draw: st.DrawFn) -> list[Candidate]:
    """Due jobs of a few tenants; some run already, and some have a concurrency key, whose limit may differ by job."""
    running = {tenant: draw(st.integers(0, 4)) for tenant in "abc"}
    holding = {(tenant, key): draw(st.integers(0, running[tenant])) for tenant in "abc" for key in "xy"}
    found = []
    for n in range(draw(st.integers(0, 25))):
        tenant, key = draw(st.sampled_from("abc")), draw(st.sampled_from(["x", "y", None]))
        limit = draw(st.integers(1, 3)) if key else None
        held = holding[tenant, key] if key else 0
        rank = draw(st.integers(0, 9))
        found.append(Candidate(f"{n:02}", tenant, *ENGINE, rank, key, limit, running[tenant], held))
    return found


@given(queues(), st.integers(0, 12), st.integers(0, 5))
def test_places_go_to_who_runs_least_and_no_limit_is_passed(queue: list[Candidate], places: int, most: int):
    by_id = {one.id: one for one in queue}
    taken = [by_id[job_id] for job_id in chosen(queue, {ENGINE: places}, most)]
    assert len(set(taken)) == len(taken) <= places
    running = {one.tenant: one.running for one in queue}
    holding: Counter[tuple[str, str | None]] = Counter({(one.tenant, one.key): one.holding for one in queue})
    left = list(queue)

    def may(one: Candidate) -> bool:
        free = one.key is None or one.limit is None or holding[one.tenant, one.key] < one.limit
        return free and (not most or running[one.tenant] < most)

    for one in taken:
        able = [other for other in left if may(other)]
        assert one in able
        assert running[one.tenant] == min(running[other.tenant] for other in able)
        own = [(other.rank, other.id) for other in able if other.tenant == one.tenant]
        assert (one.rank, one.id) == min(own)
        left.remove(one)
        running[one.tenant] += 1
        holding[one.tenant, one.key] += 1
    assert len(taken) == places or not any(may(other) for other in left)  # no place stays empty that could be taken


def test_a_single_job_is_next_however_many_another_tenant_has_in_its_queue():
    flood = [Candidate(f"{n:05}", "flood", *ENGINE, n, None, None, 3, 0) for n in range(10_000)]
    lone = Candidate("lone", "lone", *ENGINE, 99_999, None, None, 0, 0)
    assert chosen([*flood, lone], {ENGINE: 2}, 0) == ["lone", "00000"]


def test_tickets_are_for_what_could_start():
    due = [(*ENGINE, "a", None, None, 10), (*ENGINE, "b", "k", 3, 10), ("other", 2, "a", None, None, 2)]
    assert claimable_of(due, {}, {}, 0) == {ENGINE: 13, ("other", 2): 2}
    assert claimable_of(due, {"a": 3, "b": 1}, {("b", "k"): 1}, 4) == {ENGINE: 3}
