"""API keys from the command line, and what a server that has one asks of everybody."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from events.schedules import Schedule, ScheduleAct
from phaseline import database
from phaseline.settings import Settings
from tests.cli.program import in_process, phaseline
from tests.ports import free_port


@pytest.fixture
def data_dir(tmp_path: Path) -> str:
    folder = str(tmp_path)
    assert phaseline("db", "migrate", "--data-dir", folder).code == 0
    return folder


def create(data_dir: str, *words: str) -> str:
    made = phaseline("keys", "create", "--data-dir", data_dir, *words)
    assert made.code == 0, made.err
    assert re.fullmatch(r"pl_[0-9a-f]{16}_[A-Za-z0-9_-]{43}\n", made.out)
    return made.out.strip()


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(data_dir: str):
    text = create(data_dir, "--tenant", "acme", "--scope", "read", "--scope", "submit", "--days", "90", "--name", "CI")
    listed = phaseline("keys", "list", "--data-dir", data_dir, "--json")
    assert text.split("_", 2)[2] not in listed.out
    [key] = json.loads(listed.out)
    assert (key["tenant"], key["scopes"], key["name"], key["revoked_at"]) == ("acme", ["submit", "read"], "CI", None)
    assert phaseline("keys", "revoke", key["id"], "--data-dir", data_dir).code == 0
    assert "revoked 20" in phaseline("keys", "list", "--data-dir", data_dir).out
    missing = phaseline("keys", "revoke", "0" * 16, "--data-dir", data_dir)
    assert (missing.code, "there is no key" in missing.err) == (1, True)


def test_revoking_a_key_names_the_schedules_it_made_which_go_on(data_dir: str):
    keys = [create(data_dir, "--tenant", "acme", "--scope", "admin").split("_")[1] for _ in range(2)]
    mine, others = (f"key:{key}" for key in keys)
    made = {"nightly": (mine, 1), "hourly": (mine, 2), "asleep": (mine, None), "theirs": (others, 1)}

    async def make() -> None:
        async with database.opened(Settings(data_dir=Path(data_dir), database_url=None)) as log:
            for name, (actor, next_at) in made.items():
                job = {"engine": "countdown", "params": {}} | (
                    {"webhook": "https://a.example/x"} if name == "hourly" else {}
                )
                it = Schedule(name, "acme", name, "0 6 * * *", "UTC", "last", 10, job, 1, actor, next_at)
                assert await log.add_schedule(it, ScheduleAct("created", 1, actor)) == "made"

    asyncio.run(make())
    for _ in range(2):  # also when it was revoked before
        first, told, *pauses = phaseline("keys", "revoke", keys[0], "--data-dir", data_dir).out.splitlines()
        assert (first, told.startswith("2 schedules")) == (f"key {keys[0]} is revoked", True)
        assert [line.partition("schedules ")[2] for line in pauses] == [
            "pause hourly  # webhook to https://a.example", "pause nightly",
        ]  # fmt: skip
    assert len(phaseline("keys", "revoke", keys[1], "--data-dir", data_dir).out.splitlines()) == 3


@pytest.mark.parametrize(
    "words",
    ["", "--scope write", "--scope read --tenant Acme", "--scope read --tenant a/b", "--scope read --days 0"],
)
def test_wrong_usage_makes_no_key(tmp_path: Path, words: str):
    assert in_process("keys", "create", "--data-dir", str(tmp_path), *words.split()).code == 2


def test_a_server_with_a_key_asks_for_it_and_the_client_brings_it(fresh_up):
    def call(**env: str):
        return phaseline(
            "submit", "countdown", "-p", "steps=2", "--follow", "-o", "json", PHASELINE_URL=fresh_up.url, **env
        )

    assert call().code == 0
    fresh_up.stop()
    text = create(str(fresh_up.data_dir), "--scope", "submit", "--scope", "read")
    fresh_up.start()
    refused = call()
    assert (refused.code, "A key is needed" in refused.err) == (1, True)
    done = call(PHASELINE_KEY=text)
    assert (done.code, json.loads(done.out)["status"]) == (0, "completed")
    given = phaseline("jobs", "list", "-o", "json", "--api-key", text, PHASELINE_URL=fresh_up.url)
    assert (given.code, len(json.loads(given.out))) == (0, 2)
    assert "needs the scope admin" in phaseline("workers", PHASELINE_URL=fresh_up.url, PHASELINE_KEY=text).err


def test_strangers_are_not_let_in_without_a_key_unless_that_is_said(tmp_path: Path):
    refused = phaseline("up", "--host", "0.0.0.0", "--port", str(free_port()), "--data-dir", str(tmp_path))
    assert refused.code == 1
    assert "PHASELINE_AUTH=open" in refused.err
    assert "phaseline keys create" in refused.err
