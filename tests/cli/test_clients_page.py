"""docs/clients.md does what it says: its programs run against a real server."""

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.node import node

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
MODULE = ROOT / "clients" / "js" / "phaseline.js"
WITHIN_S = 60.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run_python(program: str, url: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(program, "docs/clients.md", "exec"), names)
    asyncio.run(names["main"](url))


def test_the_python_programs_of_the_page_work(up, capsys):
    follows, resumes = blocks("python")
    run_python(follows, up.url)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 submitted"
    assert lines[-1] == "completed 5"

    run_python(resumes, up.url)
    *seqs, last = capsys.readouterr().out.splitlines()
    assert last == "2 completed"
    assert [int(seq) for seq in seqs] == list(range(3, 3 + len(seqs)))


def test_the_javascript_program_of_the_page_works(up, tmp_path):
    program = tmp_path / "program.mjs"
    # As npm would install it.
    program.write_text(blocks("js")[0].replace('"phaseline"', f'"{MODULE.as_uri()}"'))
    run = node(str(program), cwd=tmp_path, within_s=WITHIN_S, PHASELINE_URL=up.url)
    assert run.returncode == 0, run.stdout
    lines = run.stdout.splitlines()
    assert lines[0] == "1 submitted"
    assert "4" in lines
    assert lines[-1] == "completed 5"


def test_the_bare_websocket_of_the_page_is_javascript(tmp_path):
    program = tmp_path / "bare.mjs"
    program.write_text(blocks("js")[1])  # it runs in Chromium: tests/browser/test_pages.py
    assert subprocess.run(["node", "--check", str(program)], check=False).returncode == 0
    page = (ROOT / "tests" / "browser" / "test_pages.py").read_text()
    assert 'new WebSocket("' in page
