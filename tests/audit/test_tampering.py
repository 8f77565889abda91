"""Whatever the owner of the database does to what is stored, an audit names the event. Random edits, each undone.

`PHASELINE_TEST_TAMPER_SEED` repeats a run.
"""

import hashlib
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from events.seal import Range
from events.seal_check import Finding
from events.seal_log import Stored
from tests import figures
from tests.audit.scene import Scene
from tests.builders import a_report, progress

EDITS = 200
TABLES = ("events", "jobs", "acts", "seals", "sealed")


@dataclass(frozen=True, slots=True)
class Expected:
    """What an audit must say first: one of these words, of this job and event, or of this seal."""

    what: frozenset[str]
    job_id: str | None = None
    seq: int | None = None
    seal: int | None = None


def says(what: str, job_id: str | None = None, seq: int | None = None, seal: int | None = None) -> Expected:
    return Expected(frozenset(what.split()), job_id, seq, seal)


class Vandal:
    """Owner of the database. Each `edit` changes something and says what an audit must find."""

    def __init__(self, scene: Scene, draw: random.Random, events: list[Stored], ranges: list[Range]) -> None:
        self.scene = scene
        self.draw = draw
        self.ranges = ranges
        self.streams: dict[str, list[Stored]] = {}  # of jobs
        self.acts = sorted(one.job_id for one in events if one.envelope.type == "administered")
        for stored in events:
            if stored.job_id not in self.acts:
                self.streams.setdefault(stored.job_id, []).append(stored)
        self.seals = max(one.seal for one in ranges)

    def job(self) -> str:
        return self.draw.choice(sorted(self.streams))

    def event(self) -> tuple[str, int]:
        """Of a job, or an act."""
        job_id = self.draw.choice([*sorted(self.streams), *self.acts])
        if job_id in self.acts:
            return job_id, 1
        return job_id, self.draw.randint(1, len(self.streams[job_id]))

    async def sql(self, *statements: str, **parameters: Any) -> None:
        await self.scene.tamper(*statements, **parameters)

    async def _set(self, change: str, **values: Any) -> Expected:
        job_id, seq = self.event()
        await self.sql(f"UPDATE events SET {change} WHERE job_id = :job AND seq = :seq", job=job_id, seq=seq, **values)
        return says("changed", job_id, seq)

    async def change_type(self) -> Expected:
        return await self._set("type = CASE type WHEN 'log' THEN 'partial' ELSE 'log' END")

    async def change_actor(self) -> Expected:
        return await self._set("actor = 'user:somebody-else'")

    async def change_at(self) -> Expected:
        return await self._set("at = at - 1")

    async def change_tenant(self) -> Expected:
        return await self._set("tenant = 'other'")

    async def change_attempt(self) -> Expected:
        return await self._set("attempt = attempt + 1")

    async def change_version(self) -> Expected:
        return await self._set("version = version + 1")

    async def change_command(self) -> Expected:
        return await self._set("command_id = 'another'")

    async def change_epoch(self) -> Expected:
        return await self._set("epoch = epoch + 1")

    async def change_digest(self) -> Expected:
        return await self._set("digest = :digest", digest=self.draw.randbytes(32))

    async def change_size(self) -> Expected:
        return await self._set("size = size + 1")

    async def change_data(self) -> Expected:
        return await self._set("data = replace(data, '{', '{ ')")

    async def change_data_and_digest(self) -> Expected:
        data = '{"message":"nothing to see here"}'
        digest = hashlib.sha256(data.encode()).digest()
        return await self._set("data = :data, digest = :digest, size = :size", data=data, digest=digest, size=len(data))

    async def delete(self) -> Expected:
        job_id = self.job()
        seq = self.draw.randint(1, len(self.streams[job_id]) - 1)
        await self.sql("DELETE FROM events WHERE job_id = :job AND seq = :seq", job=job_id, seq=seq)
        return says("missing", job_id, seq)

    async def cut(self) -> Expected:
        job_id = self.job()
        seq = self.draw.randint(2, len(self.streams[job_id]))
        await self.sql("DELETE FROM events WHERE job_id = :job AND seq >= :seq", job=job_id, seq=seq)
        return says("cut", job_id, seq)

    async def cut_with_row(self) -> Expected:
        expected = await self.cut()
        assert expected.seq
        await self.sql("UPDATE jobs SET last_seq = :to WHERE id = :job", to=expected.seq - 1, job=expected.job_id)
        return expected

    async def cut_with_record(self) -> Expected:
        one = self.draw.choice([one for one in self.ranges if one.first_seq > 1])
        await self.sql(
            "DELETE FROM events WHERE job_id = :job AND seq >= :first",
            "DELETE FROM sealed WHERE job_id = :job AND first_seq >= :first",
            "UPDATE jobs SET last_seq = :first - 1 WHERE id = :job",
            job=one.job_id,
            first=one.first_seq,
        )
        return says("seal cut", one.job_id, one.first_seq)

    async def swap(self) -> Expected:
        job_id = self.job()
        first, second = sorted(self.draw.sample(range(1, len(self.streams[job_id]) + 1), 2))
        step = "UPDATE events SET seq = :{} WHERE job_id = :job AND seq = :{}"
        await self.sql(
            step.format("away", "first"), step.format("first", "second"), step.format("second", "away"),
            job=job_id, first=first, second=second, away=1_000_000,
        )  # fmt: skip
        return says("moved", job_id, first)

    async def copy_over(self) -> Expected:
        source, target = self.draw.sample(sorted(self.streams), 2)
        seq = self.draw.randint(1, min(len(self.streams[source]), len(self.streams[target])))
        columns = ("type", "version", "attempt", "actor", "at", "command_id", "size", "data", "digest")
        names = ", ".join(columns)
        await self.sql(
            f"UPDATE events SET ({names}) = (SELECT {names} FROM events WHERE job_id = :source AND seq = :seq) "
            "WHERE job_id = :target AND seq = :seq",
            source=source,
            target=target,
            seq=seq,
        )
        return says("changed", target, seq)

    async def copy_behind(self) -> Expected:
        source, target = self.draw.sample(sorted(self.streams), 2)
        seq = len(self.streams[target]) + 1
        columns = [
            "type",
            "version",
            "attempt",
            "actor",
            "tenant",
            "at",
            "command_id",
            "size",
            "data",
            "digest",
            "epoch",
        ]
        if self.scene.log.name == "postgresql" and self.draw.random() < 0.5:
            columns += ["xid", "pos"]
        names = ", ".join(columns)
        await self.sql(
            f"INSERT INTO events (job_id, seq, {names}) SELECT :target, :behind, {names} FROM events "
            "WHERE job_id = :source AND seq = 1",
            source=source,
            target=target,
            behind=seq,
        )
        return says("added", target, seq)

    async def remove_job(self) -> Expected:
        job_id = self.job()
        await self.sql("DELETE FROM events WHERE job_id = :job", "DELETE FROM jobs WHERE id = :job", job=job_id)
        return says("missing", job_id, 1)

    async def remove_job_and_records(self) -> Expected:
        expected = await self.remove_job()
        await self.sql("DELETE FROM sealed WHERE job_id = :job", job=expected.job_id)
        return says("seal missing", expected.job_id, 1)

    async def remove_act(self) -> Expected:
        act_id = self.draw.choice(self.acts)
        await self.sql("DELETE FROM events WHERE job_id = :act", "DELETE FROM acts WHERE job_id = :act", act=act_id)
        return says("missing", act_id, 1)

    async def remove_act_and_record(self) -> Expected:
        expected = await self.remove_act()
        await self.sql("DELETE FROM sealed WHERE job_id = :act", act=expected.job_id)
        return says("seal missing", expected.job_id, 1)

    async def change_act_to_another(self) -> Expected:
        one, other = self.draw.sample(self.acts, 2)
        columns = ("actor", "at", "command_id", "size", "data", "digest")
        names = ", ".join(columns)
        await self.sql(
            f"UPDATE events SET ({names}) = (SELECT {names} FROM events WHERE job_id = :other) WHERE job_id = :one",
            one=one,
            other=other,
        )
        return says("changed", one, 1)

    async def edit_leaves(self) -> Expected:
        one = self.draw.choice(self.ranges)
        nth = self.draw.randrange(one.last_seq - one.first_seq + 1)
        leaves = bytearray(one.leaves)
        leaves[nth * 32 + self.draw.randrange(32)] ^= 1
        await self._record(one, "leaves = :value", bytes(leaves))
        return says("seal", one.job_id, one.first_seq)

    async def edit_head(self) -> Expected:
        one = self.draw.choice(self.ranges)
        await self._record(one, "head = :value", self.draw.randbytes(32))
        return says("seal", one.job_id, one.first_seq)

    async def remove_record(self) -> Expected:
        one = self.draw.choice(self.ranges)
        await self.sql(
            "DELETE FROM sealed WHERE job_id = :job AND first_seq = :first", job=one.job_id, first=one.first_seq
        )
        return says("seal", one.job_id, one.first_seq)

    async def edit_seal(self) -> Expected:
        no = self.draw.randint(1, self.seals)
        change = self.draw.choice(
            ["at = at + 1", "cursor = '1:1:1'", "events = events + 1", "hash = :value", "previous = :value"]
        )
        await self.sql(f"UPDATE seals SET {change} WHERE no = :no", no=no, value=self.draw.randbytes(32))
        return says("seal", seal=no)

    async def remove_seal(self) -> Expected:
        no = self.draw.randint(1, self.seals)
        await self.sql("DELETE FROM seals WHERE no = :no", no=no)
        return says("seal", seal=no)

    async def _record(self, one: Range, change: str, value: bytes) -> None:
        where = "job_id = :job AND first_seq = :first"
        await self.sql(f"UPDATE sealed SET {change} WHERE {where}", value=value, job=one.job_id, first=one.first_seq)


def names(expected: Expected, findings: list[Finding]) -> bool:
    """Whether the first that is found of this job or seal is what was done, and no other job is accused."""
    if expected.job_id is None:
        return any(one.what in expected.what and one.seal == expected.seal for one in findings)
    about = [one for one in findings if one.job_id == expected.job_id]
    others = {one.job_id for one in findings} - {expected.job_id, None}
    first = min((one for one in about if one.seq is not None), key=lambda one: one.seq or 0, default=None)
    return not others and first is not None and first.seq == expected.seq and first.what in expected.what


async def grown(scene: Scene) -> None:
    """Jobs of every fate and administrative acts under several seals, one job that goes on under all of them."""
    claimed = await scene.running.started()
    for _ in range(3):
        await scene.write(5, said=2)
        await scene.act()
        await scene.running.committer.execute(claimed.job.id, a_report(claimed, progress(), progress()))
        await scene.sealer.seal()


@pytest.mark.timeout(600)
async def test_every_edit_is_found_and_the_event_is_named(scene: Scene) -> None:
    seed = int(os.environ.get("PHASELINE_TEST_TAMPER_SEED") or random.randrange(2**32))
    draw = random.Random(seed)
    await grown(scene)
    await scene.tamper(*(f"CREATE TABLE kept_{name} AS SELECT * FROM {name}" for name in TABLES))
    events = [stored async for stored in scene.log.stored()]
    ranges = [one async for one in scene.log.ranges(10**9)]
    vandal = Vandal(scene, draw, events, ranges)
    edits: list[Callable[[], Awaitable[Expected]]] = [
        getattr(vandal, name)
        for name in vars(Vandal)
        if name.startswith(("change_", "delete", "cut", "swap", "copy_", "remove_", "edit_"))
    ]
    done: Counter[str] = Counter()
    assert await scene.findings() == []
    for number in range(EDITS):
        edit = edits[number] if number < len(edits) else draw.choice(edits)
        expected = await edit()
        found = await scene.findings()
        name = edit.__name__
        assert names(expected, found), f"seed {seed}, edit {number} {name}: {expected}, found {list(map(str, found))}"
        done[name] += 1
        await restored(scene)
    assert await scene.findings() == []
    figures.note({
        "text": f"audit verify on {scene.log.name}: {EDITS} of {EDITS} random edits found and named, "
        f"of {len(done)} kinds, seed {seed}; no finding on the untouched log"
    })  # fmt: skip


async def restored(scene: Scene) -> None:
    """Everything as it was."""
    steps = ((f"DELETE FROM {name}", f"INSERT INTO {name} SELECT * FROM kept_{name}") for name in TABLES)
    await scene.tamper(*(statement for pair in steps for statement in pair))
