"""Command lines that need no server: help, wrong usage, no server there."""

import json
import subprocess
import sys

import pytest

from tests.cli.program import in_process as phaseline
from tests.cli.program import unused_port

COMMANDS = [
    "",
    "up",
    "gateway",
    "worker",
    "db",
    "db migrate",
    "db check",
    "db rebuild",
    "submit",
    "follow",
    "jobs",
    "jobs list",
    "jobs get",
    "jobs events",
    "jobs results",
    "jobs cancel",
    "jobs retry",
    "jobs rerun",
    "engines",
    "demo",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    run = phaseline(*command.split(), "--help")
    assert run.code == 0
    assert "Usage: phaseline" in run.out
    if command not in {"db", "jobs"}:
        assert "Exit codes:" in run.out


def test_the_exit_codes_are_in_the_help():
    out = phaseline("follow", "--help").out
    for code, meaning in {0: "done", 1: "error", 2: "usage", 3: "failed", 4: "cancelled", 5: "--timeout"}.items():
        assert any(line.split()[:1] == [str(code)] and meaning in line for line in out.splitlines()), out


@pytest.mark.parametrize(
    "command",
    [
        "fly",
        "submit",
        "submit countdown -p steps",
        "submit countdown -p =5",
        "submit countdown --params [1]",
        "submit countdown --params {",
        "submit countdown --params @nowhere.json",
        "submit countdown --priority urgent",
        "submit countdown --timeout 3",
        "follow JOB --after -1",
        "follow JOB --after last",
        "follow JOB -o yaml",
        "jobs list --status lost",
        "jobs list --limit 0",
        "jobs retry JOB --timeout 3",
        "up --port 70000",
        "worker --slots 0",
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(command):
    run = phaseline(*command.split())
    assert run.code == 2
    assert "Error: " in run.err
    assert run.out == ""


def test_a_wrong_setting_is_named_by_its_variable():
    run = phaseline("db", "check", PHASELINE_LEASE_S="soon")
    assert run.code == 2
    assert "PHASELINE_LEASE_S" in run.err


@pytest.mark.parametrize(
    "command",
    ["engines", "jobs list", "submit countdown", "submit countdown --follow", "follow JOB", "jobs cancel JOB"],
)
def test_without_a_server_the_message_says_how_to_start_one(command):
    run = phaseline(*command.split(), PHASELINE_URL=f"http://127.0.0.1:{unused_port()}")
    assert run.code == 1
    assert "phaseline up" in run.err
    assert run.out == ""


def test_a_data_directory_without_a_database_is_said_so(tmp_path):
    run = phaseline("jobs", "events", "JOB", "--data-dir", str(tmp_path))
    assert run.code == 2
    assert "phaseline.db" in run.err


def test_the_front_door_opens_without_what_only_some_commands_need():
    slow = ["aiohttp", "sqlalchemy", "rich", "numpy", "highspy", "aio_pika", "alembic"]
    script = f"import json, sys, phaseline, phaseline.cli; print(json.dumps([n for n in {slow} if n in sys.modules]))"
    assert json.loads(subprocess.check_output([sys.executable, "-c", script])) == []
