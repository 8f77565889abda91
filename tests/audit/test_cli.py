"""`phaseline audit` from outside: what it prints and how it exits."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from events.seal import Envelope
from phaseline.cli_audit import line
from tests.audit.scene import Scene
from tests.cli.program import Run, in_process


@pytest.fixture
def options(scene: Scene) -> list[str]:
    """How a command finds the scene's database."""
    url = scene.settings.database_url
    return ["--database-url", url] if url else ["--data-dir", str(scene.settings.data_dir)]


async def audit(*words: str, **env: str) -> Run:
    return await asyncio.to_thread(in_process, "audit", *words, **env)


async def test_verify_exits_0_when_nothing_is_wrong_and_says_what_is_not_sealed_yet(
    scene: Scene, options: list[str]
) -> None:
    await scene.write(2)
    run = await audit("verify", *options)
    assert run.code == 0
    assert "events not sealed yet, the oldest " in run.out
    await scene.sealer.seal()
    run = await audit("verify", *options)
    assert run.code == 0
    assert run.out.endswith("1 seals, 0 keys; nothing is wrong\n")


async def test_verify_exits_1_and_names_the_event(scene: Scene, options: list[str]) -> None:
    job_id, _ = await scene.write(2)
    await scene.sealer.seal()
    await scene.tamper("UPDATE events SET actor = 'user:other' WHERE job_id = :job AND seq = 2", job=job_id)
    run = await audit("verify", *options)
    assert run.code == 1
    assert run.out.splitlines()[0] == f"job {job_id} event 2: changed: it is not the event that was sealed"
    run = await audit("verify", "--job", job_id, "-o", "json", *options)
    assert run.code == 1
    [finding] = json.loads(run.out)["findings"]
    assert (finding["what"], finding["job_id"], finding["seq"]) == ("changed", job_id, 2)


async def test_keys_and_anchors_by_command(scene: Scene, options: list[str], tmp_path: Path) -> None:
    key, folder = str(tmp_path / "key.pem"), str(tmp_path / "anchors")
    made = await audit("key", key)
    assert made.code == 0
    assert (await audit("key", key)).out == made.out  # what is there stays
    anchor = ["anchor", "--anchors-dir", folder, "--anchor-key-file", key, *options]
    assert (await audit(*anchor)).code == 1  # nothing is sealed
    await scene.write(1)
    run = await audit(*anchor)
    assert (run.code, run.out) == (0, f"{folder}/000000000001.json\n")
    check = ["verify", "--anchors", folder, "--public-key", made.out.strip(), *options]
    run = await audit(*check)
    assert run.code == 0
    assert "1 anchors hold, up to seal 1" in run.out
    await scene.tamper("DELETE FROM events", "DELETE FROM jobs", "DELETE FROM sealed", "DELETE FROM seals")
    run = await audit(*check)
    assert run.code == 1
    assert run.out.splitlines()[0].startswith("seal 1: anchor: seal 1 was signed and is gone")


async def test_an_export_is_checkable_by_itself(scene: Scene, options: list[str], tmp_path: Path) -> None:
    await scene.write(3)
    await scene.sealer.seal()
    folder = tmp_path / "export"
    run = await audit("export", str(folder), *options)
    assert run.code == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert len(content.splitlines()) == file["lines"]
    leaves = {}
    for text in (folder / "sealed.ndjson").read_text().splitlines():
        one = json.loads(text)
        for nth, seq in enumerate(range(one["first_seq"], one["last_seq"] + 1)):
            leaves[one["job_id"], seq] = one["leaves"][nth * 64 : (nth + 1) * 64]
    rows = [json.loads(text) for text in (folder / "events.ndjson").read_text().splitlines()]
    assert len(rows) == manifest["files"]["events.ndjson"]["lines"] == len(leaves)
    for row in rows:
        data, leaf = row.pop("data"), row.pop("leaf")
        row["digest"] = hashlib.sha256(data.encode()).digest()
        assert Envelope(**row).leaf.hex() == leaf == leaves[row["job_id"], row["seq"]]
    assert (await audit("export", str(folder), *options)).code == 1  # it has a folder of its own


@pytest.mark.parametrize(
    "words", ["verify --anchors .", "verify --public-key abc", "verify --job 1", "verify -o yaml", "tail --timeout 1"]
)
def test_wrong_usage_exits_2(words: str) -> None:
    run = in_process("audit", *words.split())
    assert run.code == 2
    assert "Error: " in run.err


def test_a_key_that_is_none_is_said_so(tmp_path: Path) -> None:
    run = in_process("audit", "verify", "--anchors", str(tmp_path), "--public-key", "abc")
    assert run.code == 1
    assert "base64 of 32 bytes" in run.err


def test_a_line_of_the_tail_says_when_who_from_where_what_and_why() -> None:
    event = {
        "timestamp": "2026-11-24T08:00:00.123Z", "actor": "user:ada", "address": "203.0.113.7", "type": "cancel_requested",
        "job_id": "J", "seq": 7, "reason": "wrong week",
    }  # fmt: skip
    assert line(event) == '2026-11-24T08:00:00.123Z  user:ada  203.0.113.7  cancel_requested  J 7  "wrong week"'


def test_a_line_of_the_tail_says_what_an_act_did() -> None:
    event = {
        "timestamp": "2026-11-24T08:00:00.123Z", "actor": "user:ada", "type": "administered", "job_id": "A", "seq": 1,
        "act": "key_created", "target": "3f0c", "changed": {"name": "", "scopes": ["read"]}, "reason": "new",
    }  # fmt: skip
    assert line(event) == '2026-11-24T08:00:00.123Z  user:ada  -  key_created 3f0c (scopes read)  A 1  "new"'
