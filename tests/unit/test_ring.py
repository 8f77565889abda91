"""The ring with the log's pages behind it against a plain list, whatever happens to the hints."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from events.record import Recorded
from gateway.ring import Entry, Ring, entries_of, entry_of
from gateway.watched import Watched

JOB_ID = "01a20cae-f0fd-7c5c-90af-8d1914daffc9"


def recorded(seq: int, size: int = 0, kind: str = "log") -> Recorded:
    data = f'{{"message":"{"x" * size}"}}'
    return Recorded(JOB_ID, seq, kind, 1, 1, "worker:w", "default", 1_000, "c", data)


def entry(seq: int, size: int = 0) -> Entry:
    return entries([recorded(seq, size)])[0]


def entries(rows: list[Recorded]) -> list[Entry]:
    return entries_of((row.seq, row.type, row.line()) for row in rows)


def reference(seq: int) -> bytes:
    return b'{"job_id":"%s","seq":%d,"ref":true}' % (JOB_ID.encode(), seq)


class RingAndLog(RuleBasedStateMachine):
    """Any interleaving of appends, hints lost, doubled, reordered and late, repairs, joins and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Recorded] = []
        self.hints: list[bytes] = []  # sent and not lost; delivering keeps a hint, so it may come again
        self.watched = Watched(JOB_ID)
        self.read_head: int | None = None  # a head read from the log, not yet told to the ring
        self.viewers: list[tuple[int, list[int]]] = []  # (joined after, sequences given)

    @rule(sizes=st.lists(st.integers(0, 90), min_size=1, max_size=12), large=st.booleans())
    def append(self, sizes: list[int], large: bool) -> None:
        for size in sizes:
            self.log.append(recorded(len(self.log) + 1, size))
            self.hints.append(reference(len(self.log)) if large and size > 60 else self.log[-1].line())

    @precondition(lambda self: self.hints)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        self.watched.take(data.draw(st.sampled_from(self.hints)))

    @precondition(lambda self: self.hints)
    @rule()
    def deliver_in_order(self) -> None:
        for line in self.hints:
            self.watched.take(line)
        self.hints.clear()

    @precondition(lambda self: self.hints)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        del self.hints[data.draw(st.integers(0, len(self.hints) - 1))]

    @rule()
    def read_the_head(self) -> None:
        self.read_head = len(self.log)

    @precondition(lambda self: self.read_head is not None)
    @rule()
    def the_head_arrives(self) -> None:
        assert self.read_head is not None
        if self.watched.ring is None:
            self.watched.ring = Ring(self.read_head, events_max=5, bytes_max=900)
        self.watched.admit(self.read_head)
        self.read_head = None

    @precondition(lambda self: self.watched.stale)
    @rule(limit=st.integers(1, 7))
    def repair(self, limit: int) -> None:
        ring = self.watched.ring
        assert ring is not None
        page = self.log[ring.head : ring.head + limit]
        assert page, "stale means that the log holds more"
        for event in entries(page):
            assert ring.offer(event) == "entered"

    @precondition(lambda self: self.watched.ring is not None)
    @rule()
    def drop_for_memory(self) -> None:
        assert self.watched.ring is not None
        self.watched.ring.empty()

    @precondition(lambda self: self.watched.ring is not None)
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        self.viewers.append((data.draw(st.integers(0, len(self.log))), []))

    @precondition(lambda self: self.viewers)
    @rule(data=st.data(), limit=st.integers(1, 4))
    def read(self, data: st.DataObject, limit: int) -> None:
        joined, given = data.draw(st.sampled_from(self.viewers))
        given += self._next(joined + len(given), limit)

    def _next(self, after: int, limit: int) -> list[int]:
        assert self.watched.ring is not None
        found = self.watched.ring.after(after)
        if found is None:
            found = entries(self.log[after : after + limit])
            assert found, "below the ring's head the log always holds the next event"
        return [event.seq for event in found]

    @invariant()
    def the_ring_is_a_piece_of_the_log(self) -> None:
        ring = self.watched.ring
        if ring is None:
            return
        held = ring.after(ring.start) or []
        assert [event.line for event in held] == [row.line() for row in self.log[ring.start : ring.head]]
        assert ring.size == sum(len(event.line) for event in held) <= 900
        assert len(held) <= 5

    @invariant()
    def every_viewer_saw_consecutive_sequences(self) -> None:
        for joined, given in self.viewers:
            assert given == list(range(joined + 1, joined + 1 + len(given)))

    def teardown(self) -> None:
        """Once heads are compared and repaired, every viewer gets the whole stream."""
        if self.watched.ring is None:
            return
        self.watched.hear_of(len(self.log))
        while self.watched.stale:
            self.repair(3)
        for joined, given in self.viewers:
            while fresh := self._next(joined + len(given), 3):
                given.extend(fresh)
            assert given == list(range(joined + 1, len(self.log) + 1))


TestRingAndLog = RingAndLog.TestCase
TestRingAndLog.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_event_enters_only_as_the_next_one():
    ring = Ring(4)
    assert [ring.offer(entry(seq)) for seq in (6, 4, 5, 5, 7, 6)] == [
        "hole",
        "repeat",
        "entered",
        "repeat",
        "hole",
        "entered",
    ]
    assert ring.head == 6
    assert [event.seq for event in ring.after(4) or []] == [5, 6]


def test_a_reference_empties_the_ring_and_moves_its_head():
    ring = Ring(0)
    ring.offer(entry(1))
    assert ring.offer_reference(3) == "hole"
    assert ring.offer_reference(2) == "entered"
    assert (ring.head, ring.size, ring.after(0), ring.after(2)) == (2, 0, None, [])


def test_an_event_larger_than_the_ring_is_read_from_the_log():
    ring = Ring(0, bytes_max=500)
    ring.offer(entry(1))
    assert ring.offer(entry(2, size=600)) == "entered"
    assert (ring.head, ring.size, ring.after(1)) == (2, 0, None)


def test_a_line_is_known_by_slicing():
    line = recorded(2**53 - 1, kind="complete").line()
    entered = entry_of(line)
    assert entered is not None
    assert (entered.seq, entered.type, entered.line) == (2**53 - 1, "complete", line)
    assert entry_of(reference(12)) is None


def test_a_hint_that_comes_before_the_head_is_known_marks_the_job_stale():
    watched = Watched(JOB_ID)
    watched.take(recorded(3).line())
    watched.admit(2)
    assert watched.stale
