"""docs/cli.md does what it says: its commands and its program are run, its exit codes are the real ones."""

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

from phaseline import cli_options
from tests.cli.program import COMMAND, env_of

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_of_the_page_work(up):
    lines = [line[2:] for block in blocks("console") for line in block.splitlines()]
    assert len(lines) > 10
    function = f'phaseline() {{ {" ".join(COMMAND)} "$@"; }}'
    script = "\n".join(["set -eu", function, *(f"echo '{line.split('(')[0]}' >&2\n{line}" for line in lines)])
    run = subprocess.run(
        ["bash", "-c", script], env=env_of({"PHASELINE_URL": up.url}), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert {"asked to stop", "cancelled"} & set(lines)
    assert lines[-1].startswith("bus  ")


def test_the_programs_of_the_page_work(up, capsys):
    names: dict[str, Any] = {}
    exec(compile("\n".join(blocks("python")), "docs/cli.md", "exec"), names)
    asyncio.run(names["main"](up.url))
    assert capsys.readouterr().out.splitlines()[-1].startswith("completed {'steps': 5")
    asyncio.run(names["more"](up.url))
    assert "1 to run again" in capsys.readouterr().out


def test_the_page_and_the_help_name_the_same_exit_codes():
    in_page = dict(re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE))
    in_help = dict(re.findall(r"^  (\d+) +(.*)$", cli_options.EXIT_CODES, re.MULTILINE))
    assert list(in_page) == list(in_help)
    for code, meaning in in_help.items():
        assert in_page[code].replace("`", "").startswith(meaning.partition(" is wrong")[0].partition(":")[0])
