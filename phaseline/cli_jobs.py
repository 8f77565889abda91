"""Commands that look at jobs, replay them and change them."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from events.errors import UnknownJob
from phaseline.cli_options import (
    EXIT_CODES,
    Shape,
    both,
    exit_with,
    follow_option,
    key_option,
    params_of,
    params_options,
    refuse_lonely_timeout,
    server_options,
    settings_of,
    show,
    talk,
    timeout_option,
    url_option,
)
from phaseline.cli_watch import shown_or_followed

if TYPE_CHECKING:
    from phaseline.client import Client

_reason = click.option("--reason", help="Recorded in the job's stream.")


@click.command(epilog=EXIT_CODES)
@server_options
def engines(shape: Shape, url: str) -> None:
    """Lists the engines jobs can be made for. With -o json also the JSON Schemas of their params and results."""
    from phaseline.render import engines_table

    show(shape, talk(url, lambda client: client.engines()), engines_table)


@click.group()
def jobs() -> None:
    """Looks at jobs and changes them."""


@jobs.command(
    "list", epilog=f"\b\nExample:\n  phaseline jobs list --status failed --tag nightly -o jsonl\n\n{EXIT_CODES}"
)
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(["queued", "running", "completed", "failed", "cancelled"]),
    help="May be repeated.",
)
@click.option("--engine", help="Only of this engine.")
@click.option("--tag", help="Only with this tag.")
@click.option("--created-after", metavar="TIME", help="Only made after, such as 2026-11-24T08:00:00Z.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many.")
@server_options
def list_(shape: Shape, url: str, limit: int, **wanted: Any) -> None:
    """Lists jobs, newest first."""
    from phaseline.render import jobs_table

    async def work(client: "Client") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = None
        while len(found) < limit:
            page = await client.jobs(**wanted, cursor=cursor, limit=min(limit - len(found), 100))
            found += page.jobs
            if (cursor := page.cursor) is None:
                break
        return found

    show(shape, talk(url, work), jobs_table)


@jobs.command(epilog=EXIT_CODES)
@click.argument("job_id")
@click.option("--at", type=click.IntRange(min=1), metavar="SEQ", help="The job as it was at this sequence.")
@server_options
def get(job_id: str, at: int | None, shape: Shape, url: str) -> None:
    """Shows one job, now or as of a sequence."""
    from phaseline.render import job_card

    show(shape, talk(url, lambda client: client.job(job_id, at=at)), job_card)


@jobs.command(
    epilog=f"\b\nExample:\n  phaseline jobs events JOB_ID --data-dir .data/demo    needs no server\n\n{EXIT_CODES}"
)
@click.argument("job_id")
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Only events after this one.")
@click.option("--limit", type=click.IntRange(1), help="At most this many; default all.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Read the log in this folder of `phaseline up` itself, without a server.",
)
@server_options
def events(job_id: str, after: int, limit: int | None, data_dir: Path | None, shape: Shape, url: str) -> None:
    """Replays a job's recorded events, up to the newest."""
    from phaseline.watched import line

    async def work(client: "Client") -> list[dict[str, Any]]:
        return [event async for event in client.events(job_id, after, limit=limit)]

    found = talk(url, work) if data_dir is None else _recorded(data_dir, job_id)[after:][:limit]
    show(shape, found, lambda events: click.echo("\n".join(line(event) for event in events)))


@jobs.command(epilog=EXIT_CODES)
@click.argument("job_id")
@url_option
def results(job_id: str, url: str) -> None:
    """Prints a job's result, its exact JSON bytes."""
    click.echo(talk(url, lambda client: client.results(job_id)))


@jobs.command(epilog=EXIT_CODES)
@click.argument("job_id")
@click.option("--force", is_flag=True, help="At once, without letting the engine end by itself.")
@click.option("--grace", "grace_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Killed after; default 30.")
@_reason
@server_options
def cancel(job_id: str, shape: Shape, url: str, **how: Any) -> None:
    """Asks a job to stop. A queued one is cancelled at once, a running one when its engine has stopped."""
    job = talk(url, lambda client: client.cancel(job_id, **how))
    show(shape, job, lambda job: click.echo(job["status"] if job["status"] == "cancelled" else "asked to stop"))


@jobs.command(epilog=EXIT_CODES)
@click.argument("job_id")
@_reason
@both(follow_option, timeout_option, server_options)
def retry(job_id: str, reason: str | None, follow: bool, timeout_s: float | None, shape: Shape, url: str) -> None:
    """Tries a failed or cancelled job again, under the same id: its stream goes on."""
    refuse_lonely_timeout(follow=follow, timeout_s=timeout_s)
    from phaseline.watch import watch

    async def work(client: "Client") -> int:
        before = await client.job(job_id)
        job = await client.retry(job_id, reason=reason)
        if follow:
            # The earlier attempts are not shown again.
            return await watch(client, job, shape, after=before["seq"], timeout_s=timeout_s)
        return await shown_or_followed(client, job, shape, follow=False, timeout_s=None)

    exit_with(talk(url, work))


@jobs.command(epilog=EXIT_CODES)
@click.argument("job_id")
@click.option("--from-phase", help="Reuse what was recorded before this phase.")
@both(params_options, key_option, follow_option, timeout_option, server_options)
def rerun(job_id: str, shape: Shape, url: str, follow: bool, timeout_s: float | None, **asked: Any) -> None:
    """Makes a new job like this one. --params replaces its params, -p changes single ones."""
    refuse_lonely_timeout(follow=follow, timeout_s=timeout_s)
    replaced = asked["params"] is not None
    changed = params_of(asked.pop("pairs"), asked.pop("params"))

    async def work(client: "Client") -> int:
        kept = {} if replaced or changed is None else (await client.job(job_id))["params"]
        job = await client.rerun(job_id, params=None if changed is None else kept | changed, **asked)
        return await shown_or_followed(client, job, shape, follow=follow, timeout_s=timeout_s)

    exit_with(talk(url, work))


def _recorded(data_dir: Path, job_id: str) -> list[dict[str, Any]]:
    """The events of a job, read from an embedded database; a server may be using it meanwhile."""
    from events.values import decode
    from phaseline.database import SQLITE_FILE, make_log, whole_stream

    if not (data_dir / SQLITE_FILE).exists():
        raise click.UsageError(f"--data-dir {data_dir}: there is no {SQLITE_FILE} of `phaseline up` in it")
    log = make_log(settings_of({"data_dir": data_dir, "database_url": ""}))

    async def read() -> list[dict[str, Any]]:
        await log.open()
        try:
            return [decode(recorded.line()) for recorded in await whole_stream(log, job_id)]
        finally:
            await log.close()

    found = asyncio.run(read())
    if not found:
        raise UnknownJob
    return found
