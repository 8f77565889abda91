"""Commands for retention. They work on the database and the archive themselves."""

import asyncio
import json
from dataclasses import asdict
from typing import Any

import click

from events.clock import rfc3339
from phaseline.cli_options import Failure, both, closing, settings_of
from phaseline.cli_server import ON_DATABASE, data_dir_option, database_url_option, who_and_why

_CODES = "\b\nExit codes: 0 done, 1 error, 2 usage.\n"
_database = both(database_url_option, data_dir_option)


@click.group()
def retention() -> None:
    """Says what retention does to jobs that have ended, and what it shall leave alone.

    PHASELINE_RETENTION holds the rules, PHASELINE_ARCHIVE where jobs go. Processes that have both act once an hour.
    """


@retention.command(
    epilog=closing(f"PHASELINE_RETENTION=completed=30d phaseline retention plan {ON_DATABASE}", codes=_CODES)
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
@_database
def plan(as_json: bool, **given: Any) -> None:
    """Shows what each rule would take out now, and changes nothing."""
    settings = settings_of(given)
    from phaseline import retain

    found = [
        {"rule": str(one.rule), "due": one.due, "kept": one.kept,
         "oldest": None if one.oldest_at is None else rfc3339(one.oldest_at)}
        for one in asyncio.run(retain.plan(settings))
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found:
        oldest = f", the first ended {one['oldest']}" if one["oldest"] else ""
        kept = f", {one['kept']} kept: pinned, held, or a webhook still owed" if one["kept"] else ""
        click.echo(f"{one['rule']}  {one['due']} jobs due{oldest}{kept}")


@retention.command(epilog=closing(f"phaseline retention run {ON_DATABASE}", codes=_CODES))
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
@_database
def run(as_json: bool, **given: Any) -> None:
    """Takes out what is due, now. Each job is written to the archive and read back before it goes."""
    settings = settings_of(given)
    from phaseline import retain, signals

    signals.arm(settings)
    done = asyncio.run(
        retain.run(settings, lambda done: click.echo(f"{done.jobs} jobs, {done.events} events so far", err=True))
    )
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    click.echo(f"{done.jobs} jobs with {done.events} events went, into {done.objects} objects of {done.bytes} bytes")


@retention.command(
    epilog=closing(f"phaseline retention pin JOB --reason 'the baseline' --by user:ada {ON_DATABASE}", codes=_CODES)
)
@both(who_and_why, _database)
def pin(job: Any, reason: str, actor: str, **given: Any) -> None:
    """Keeps JOB, whatever the rules say, until it is unpinned. Over HTTP: POST /api/v1/jobs/{id}/pin."""
    settings = settings_of(given)
    from phaseline import retain

    asyncio.run(retain.pin(settings, str(job), actor=actor, reason=reason))
    click.echo(f"job {job} is pinned")


@retention.command(
    epilog=closing(f"phaseline retention unpin JOB --reason 'replaced' --by user:ada {ON_DATABASE}", codes=_CODES)
)
@both(who_and_why, _database)
def unpin(job: Any, reason: str, actor: str, **given: Any) -> None:
    """Lets retention have JOB again."""
    settings = settings_of(given)
    from phaseline import retain

    if not asyncio.run(retain.unpin(settings, str(job), actor=actor, reason=reason)):
        raise Failure(f"job {job} is not pinned")
    click.echo(f"job {job} is pinned no more")
