"""`make demo`: the first thing a newcomer runs."""

import json
import re
import shlex
import subprocess
import time

from tests.cli.program import env_of, in_terminal, phaseline

# Ten seconds are promised on a machine that does nothing else; tests run beside others.
LIMIT_S = 30.0


def test_the_demo_shows_a_job_a_broken_connection_and_a_decision(tmp_path):
    began = time.monotonic()
    demo = phaseline("demo", "--data-dir", str(tmp_path))
    assert demo.code == 0, demo.err
    assert time.monotonic() - began < LIMIT_S
    assert_decision(demo.out)
    for phase in ("initializing", "collecting_data", "projecting_points", "analyzing_transfers", "finalizing"):
        assert phase in demo.out
    dropped, resumed = (
        int(re.findall(rf"{words} seq (\d+)", demo.err)[0]) for words in ("dropped at", "resumed after")
    )
    assert dropped == resumed
    seqs = [int(line.split()[0]) for line in demo.out.splitlines() if re.match(r" +\d+  \d\d:\d\d:", line)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert 1 < dropped < len(seqs)
    assert replayed(demo.out) == seqs


def test_the_demo_in_a_terminal_moves_and_prints_the_same_decision(tmp_path):
    shown = in_terminal("demo", "--data-dir", str(tmp_path))
    assert_decision(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
    assert "connection dropped at seq " in shown
    assert "resumed after seq " in shown


def assert_decision(text):
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("Line-up "))
    players = lines[start + 2 : start + 17]
    assert all(line.split()[0] in {"GKP", "DEF", "MID", "FWD"} for line in players), players
    assert sum(line.rstrip().endswith(" captain") for line in players[:11]) == 1
    assert sum(line.rstrip().endswith(" vice-captain") for line in players[:11]) == 1
    assert [line.split()[4:] for line in players[11:]] == [["bench"], ["bench", "1"], ["bench", "2"], ["bench", "3"]]
    assert "points over holding" in text


def replayed(text):
    """The sequences the printed command shows, run as it was printed."""
    command = next(line for line in text.splitlines() if " jobs events " in line)
    run = subprocess.run(
        [*shlex.split(command), "-o", "jsonl"], env=env_of({}), capture_output=True, text=True, check=True
    )
    return [json.loads(line)["seq"] for line in run.stdout.splitlines()]
