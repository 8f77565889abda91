"""Anchors: what was signed and carried away shows what the owner of the database computed anew."""

from dataclasses import replace
from pathlib import Path

import pytest

from events.seal import HASH_BYTES, START, Range, first_head, head_after, make_seal
from phaseline import anchors
from phaseline.anchors import AnchorWriter
from tests.audit.scene import Scene

KEY = "anchor.pem"


@pytest.fixture
def writer(scene: Scene, tmp_path: Path) -> AnchorWriter:
    """Signs into `tmp_path/anchors`."""
    anchors.new_key(tmp_path / KEY)
    return AnchorWriter(scene.log, tmp_path / "anchors", anchors.private_key(tmp_path / KEY), 0.0)


async def anchored(scene: Scene, writer: AnchorWriter, jobs: int = 3) -> list[str]:
    ids = await scene.write(jobs, said=1)
    await scene.sealer.seal()
    last = await scene.log.last_seal()
    await writer(last)
    return ids


async def held(scene: Scene, tmp_path: Path) -> tuple[list[int], list[str]]:
    key = anchors.private_key(tmp_path / KEY).public_key()
    good, findings = await anchors.hold(scene.log, tmp_path / "anchors", key)
    return [anchor.seal for anchor in good], [str(finding) for finding in findings]


async def test_an_untouched_log_meets_every_anchor(scene: Scene, writer: AnchorWriter, tmp_path: Path) -> None:
    for _ in range(3):
        await anchored(scene, writer)
    assert await held(scene, tmp_path) == ([1, 2, 3], [])


async def test_a_folder_without_anchors_holds_the_log_to_nothing_and_says_so(
    scene: Scene, writer: AnchorWriter, tmp_path: Path
) -> None:
    await anchored(scene, writer)
    for path in (tmp_path / "anchors").iterdir():
        path.unlink()
    assert await held(scene, tmp_path) == ([], [f"the log: anchor: {tmp_path / 'anchors'} holds no anchor"])


async def test_an_end_cut_off_with_all_its_seals_is_named_by_its_jobs(
    scene: Scene, writer: AnchorWriter, tmp_path: Path
) -> None:
    await anchored(scene, writer)
    gone = await anchored(scene, writer)
    await scene.tamper(
        "DELETE FROM events WHERE job_id IN (SELECT job_id FROM sealed WHERE seal = 2)",
        "DELETE FROM jobs WHERE id IN (SELECT job_id FROM sealed WHERE seal = 2)",
        "DELETE FROM sealed WHERE seal = 2",
        "DELETE FROM seals WHERE no = 2",
    )
    assert await scene.findings() == []  # the log alone looks whole
    good, found = await held(scene, tmp_path)
    assert good == [1]
    assert found[0] == "seal 2: anchor: seal 2 was signed and is gone; up to seal 1 the log meets its anchors"
    assert [line.partition(": ")[0] for line in found[1:]] == [f"job {job_id} event 1" for job_id in sorted(gone)]


async def test_an_owner_who_computes_every_hash_anew_is_found(
    scene: Scene, writer: AnchorWriter, tmp_path: Path
) -> None:
    await anchored(scene, writer)
    [job_id, *_] = await anchored(scene, writer)
    await anchored(scene, writer)
    await scene.tamper("UPDATE events SET actor = 'user:nobody' WHERE job_id = :job AND seq = 1", job=job_id)
    await forge(scene)
    assert await scene.findings() == []  # the log alone looks whole
    good, found = await held(scene, tmp_path)
    assert good == [1]
    assert found == [
        f"seal {no}: anchor: seal {no} is not the one that was signed; up to seal 1 the log meets its anchors"
        for no in (2, 3)
    ]


async def forge(scene: Scene) -> None:
    """All leaves, heads and seals, as they must be for the events there are."""
    envelopes = {(one.job_id, one.envelope.seq): one.envelope async for one in scene.log.stored()}
    heads: dict[str, bytes] = {}
    last = None
    for seal, ranges in [pair async for pair in scene.log.seals(0, 99)]:
        made: list[Range] = []
        for one in ranges:
            leaves = b"".join(envelopes[one.job_id, seq].leaf for seq in range(one.first_seq, one.last_seq + 1))
            heads[one.job_id] = head_after(heads.get(one.job_id, first_head(one.job_id)), leaves)
            made.append(replace(one, leaves=leaves, head=heads[one.job_id]))
            await scene.tamper(
                "UPDATE sealed SET leaves = :leaves, head = :head WHERE job_id = :job AND first_seq = :first",
                leaves=leaves,
                head=heads[one.job_id],
                job=one.job_id,
                first=one.first_seq,
            )
        last = make_seal(last, seal.at, seal.cursor, made)
        await scene.tamper(
            "UPDATE seals SET ranges = :ranges, previous = :previous, hash = :hash WHERE no = :no",
            ranges=last.ranges,
            previous=last.previous,
            hash=last.hash,
            no=last.no,
        )
    assert last is not None
    assert last.previous != START
    assert len(last.hash) == HASH_BYTES


@pytest.mark.parametrize("change", ['"at":', '"jobs":{', "not json", '"signature":"'])
async def test_an_anchor_that_was_touched_or_signed_by_another_key_counts_for_nothing(
    scene: Scene, writer: AnchorWriter, tmp_path: Path, change: str
) -> None:
    await anchored(scene, writer)
    [path] = (tmp_path / "anchors").iterdir()
    whole = path.read_text()
    path.write_text(
        whole.replace(change, change + {'"jobs":{': '"x":1,', '"at":': "1", '"signature":"': "A"}.get(change, ""))
        if change in whole
        else change
    )
    good, found = await held(scene, tmp_path)
    assert good == []
    assert len(found) == 1
    assert found[0].startswith(f"the log: anchor: {path.name} ")


async def test_another_key_has_signed_nothing_here(scene: Scene, writer: AnchorWriter, tmp_path: Path) -> None:
    await anchored(scene, writer)
    other = anchors.public_key(anchors.new_key(tmp_path / "other.pem"))
    good, found = await anchors.hold(scene.log, tmp_path / "anchors", other)
    assert good == []
    assert [str(finding) for finding in found] == ["the log: anchor: 000000000001.json was not signed by this key"]


async def test_anchors_are_written_when_due_and_only_for_new_seals(scene: Scene, tmp_path: Path) -> None:
    anchors.new_key(tmp_path / KEY)
    seldom = AnchorWriter(scene.log, tmp_path / "anchors", anchors.private_key(tmp_path / KEY), 3600.0)
    await anchored(scene, seldom)
    await anchored(scene, seldom)  # within the hour
    assert [path.name for path in (tmp_path / "anchors").iterdir()] == ["000000000001.json"]
    assert (tmp_path / KEY).stat().st_mode & 0o077 == 0
