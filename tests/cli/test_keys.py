"""API keys from the command line, and what a server that has one asks of everybody."""

import json
import re
from pathlib import Path

import pytest

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
