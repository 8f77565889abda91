"""Command lines that need no server: help, wrong usage, no server there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from phaseline.cli import cli
from tests.cli.program import in_process as phaseline
from tests.ports import free_port


def commands(command: click.Command, *words: str) -> list[tuple[str, ...]]:
    """The words of every command below this one that does something itself."""
    if not isinstance(command, click.Group):
        return [words]
    context = click.Context(command)
    inner = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return [found for name, each in inner.items() if each is not None for found in commands(each, *words, name)]


def test_every_command_explains_itself_with_an_example_and_its_exit_codes():
    every = commands(cli)
    assert len(every) > 25
    for words in every:
        run = phaseline(*words, "--help")
        assert run.code == 0
        assert f"Usage: phaseline {' '.join(words)}" in run.out
        _, example = re.split(r"Examples?:\n", run.out)
        assert f"phaseline {' '.join(words)}" in example or words[0] == "follow"
        assert "Exit codes:" in run.out or words[0] == "fpl"


@pytest.mark.parametrize("group", ["", "db", "jobs", "fpl"])
def test_every_group_lists_its_commands(group):
    run = phaseline(*group.split(), "--help")
    assert run.code == 0
    assert "Commands:" in run.out


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
        "jobs list status:failed --status failed",
        "jobs at JOB",
        "jobs bulk",
        "jobs bulk delete tag:old --yes",
        "jobs bulk cancel --yes",
        "jobs events JOB --timeout 3",
        "jobs events JOB --follow --limit 3",
        "feed --timeout 3",
        "feed -o json",
        "completion tcsh",
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
    [
        "engines",
        "jobs list",
        "submit countdown",
        "submit countdown --follow",
        "follow JOB",
        "jobs cancel JOB",
        "feed --follow",
        "workers",
        "jobs bulk retry tag:x --yes",
    ],
)
def test_without_a_server_the_message_says_how_to_start_one(command):
    run = phaseline(*command.split(), PHASELINE_URL=f"http://127.0.0.1:{free_port()}")
    assert run.code == 1
    assert "phaseline up" in run.err
    assert run.out == ""


def test_a_data_directory_without_a_database_is_said_so(tmp_path):
    run = phaseline("jobs", "events", "JOB", "--data-dir", str(tmp_path))
    assert run.code == 2
    assert "phaseline.db" in run.err


def test_the_front_door_opens_without_what_only_some_commands_need():
    slow = ["aiohttp", "sqlalchemy", "rich", "numpy", "highspy", "aio_pika", "alembic"]
    opened = (
        "from importlib import import_module; [import_module('phaseline.' + name) for name in phaseline.cli.MODULES]"
    )
    script = f"import json, sys, phaseline, phaseline.cli; {opened}; print(json.dumps([n for n in {slow} if n in sys.modules]))"
    assert json.loads(subprocess.check_output([sys.executable, "-c", script])) == []


def completed(*words: str) -> list[str]:
    """What bash offers behind these words, the last of which is begun."""
    typed = " ".join(f"'{word}'" for word in ("phaseline", *words))
    script = (
        f'eval "$(phaseline completion bash)"; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; '
        '_phaseline_completion phaseline; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.check_output(["bash", "-c", script], env={**os.environ, "PATH": path}, text=True).split()


def test_tab_completes_commands_options_choices_and_engines_in_bash():
    assert sorted(completed("jobs", "re")) == ["rerun", "results", "retry"]
    assert completed("jobs", "list", "--st") == ["--status"]
    assert completed("jobs", "list", "--status", "c") == ["completed", "cancelled"]
    assert completed("submit", "coun") == ["countdown"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell):
    run = phaseline("completion", shell)
    assert (run.code, run.err) == (0, "")
    assert f"_PHASELINE_COMPLETE={shell}_complete" in run.out
