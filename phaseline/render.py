"""Tables for people: jobs, engines, one job, how it ended. Plain aligned columns when piped, rich in a terminal."""

import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from events.clock import parse_instant
from phaseline.cli_options import command, is_terminal, styled
from phaseline.plain import plain

STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "queued": "blue"}
# A result longer than this is not for the terminal; it is fetched with `jobs results`.
_CARD = (
    *("id", "engine", "engine_version", "status", "phase", "progress", "attempt", "failures", "losses"),
    *(
        "max_attempts",
        "priority",
        "tags",
        "seq",
        "created_at",
        "started_at",
        "finished_at",
        "not_before",
        "rerun_of",
        "unique_key",
        "concurrency",
        "schedule",
    ),
)
RESULT_LINES_MAX = 40
PIPED_WIDTH = 100


def console() -> Console:
    """For stdout: colours for a person only, whatever the environment forces; a fixed width when piped."""
    if is_terminal():
        return Console(highlight=False)
    return Console(highlight=False, force_terminal=False, no_color=True, color_system=None, width=PIPED_WIDTH)


def rows(headings: Sequence[str], lines: Sequence[Sequence[str]], empty: str) -> None:
    """A table. When piped: a heading line, then one line a row, columns aligned, nothing cut off."""
    if not lines:
        click.echo(empty, err=not is_terminal())
        return
    lines = [[plain(cell) for cell in cells] for cells in lines]
    if is_terminal():
        table = Table(*headings, box=None, header_style="bold", pad_edge=False)
        for cells in lines:
            table.add_row(*(Text(cell, STYLES.get(cell, ""), overflow="fold") for cell in cells))
        console().print(table)
        return
    widths = [max(len(line[index]) for line in [headings, *lines]) for index in range(len(headings))]
    for line in [headings, *lines]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def jobs_table(jobs: Sequence[dict[str, Any]]) -> None:
    rows(
        ("ID", "ENGINE", "STATUS", "PROGRESS", "PHASE", "CREATED", "TAGS"),
        [
            (
                job["id"],
                job["engine"],
                job["status"],
                f"{job['progress']:.0f} %",
                job.get("phase") or "",
                job["created_at"],
                ",".join(job.get("tags") or ()),
            )
            for job in jobs
        ],
        empty="no jobs; make one with `phaseline submit countdown`",
    )


def engines_table(engines: Sequence[dict[str, Any]]) -> None:
    rows(
        ("ENGINE", "VERSION", "PHASES", "SUMMARY"),
        [
            (
                engine["name"],
                str(engine["version"]),
                " ".join(phase["name"] for phase in engine["phases"]),
                engine.get("summary") or "",
            )
            for engine in engines
        ],
        empty="no engines; a worker declares its engines when it starts: `phaseline worker`",
    )


def workers_table(workers: Sequence[dict[str, Any]]) -> None:
    rows(
        ("WORKER", "HOST", "PID", "SLOTS", "RUNNING", "STATE", "LAST BEAT", "ENGINES"),
        [
            (
                worker["id"],
                worker["host"],
                str(worker["pid"]),
                str(worker["slots"]),
                str(worker["running"]),
                "draining" if worker["draining"] else "working",
                worker["beat_at"],
                ",".join(worker["engines"]),
            )
            for worker in workers
        ],
        empty="no workers; start one with `phaseline worker`, or everything with `phaseline up`",
    )


def job_card(job: dict[str, Any]) -> None:
    """One job: what it is, where it stands, what came of it."""
    facts = [(name, job[name]) for name in _CARD if job.get(name) not in (None, [], "")]
    facts.append(("params", json.dumps(job.get("params"), ensure_ascii=False)))
    for name, value in facts:
        click.echo(plain(f"{name:<15} {', '.join(value) if isinstance(value, list) else value}"))
    outcome(job, headline=False)


def outcome(job: dict[str, Any], *, headline: bool = True) -> None:
    """How a job ended, and its result when it is short enough or has a table of its own."""
    if headline:
        click.echo(f"{_coloured(job['status'])} after {_age(job)}, {job['seq']} events")
    if error := job.get("error"):
        told = f"error: {error.get('code')}: {error.get('message')}" if isinstance(error, dict) else str(error)
        click.echo(plain(told))
    if job.get("results_ref"):
        click.echo(f"result: {job['results_ref']['size']} bytes; get it with {command('jobs', 'results', job['id'])}")
    elif "results" in job:
        _result(job)


def _result(job: dict[str, Any]) -> None:
    if job["engine"] == "fpl" and job["status"] == "completed":
        from phaseline.render_fpl import decision

        decision(console(), job["results"])
        return
    text = json.dumps(job["results"], indent=2, ensure_ascii=False)
    if text.count("\n") >= RESULT_LINES_MAX:
        click.echo(f"result: {len(text)} characters; get it with {command('jobs', 'results', job['id'])}")
    else:
        click.echo(f"result: {plain(text)}")


def _coloured(status: str) -> str:
    return styled(status, fg=STYLES.get(status))


def _age(job: dict[str, Any]) -> str:
    if not job.get("finished_at"):
        return "some time"
    took_ms = parse_instant(job["finished_at"]) - parse_instant(job.get("started_at") or job["created_at"])
    return f"{took_ms / 1000:.2f} s"
