"""Commands that look at jobs, replay them and change them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from events.errors import UnknownJob
from phaseline.cli_bulk import bulk
from phaseline.cli_options import (
    QUERY_HELP,
    Shape,
    both,
    closing,
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
from phaseline.cli_watch import followed, shown_or_followed

if TYPE_CHECKING:
    from phaseline.client import Client

_reason = click.option("--reason", help="Recorded in the job's stream.")


@click.group()
def jobs() -> None:
    """Looks at jobs and changes them."""


jobs.add_command(bulk)


@jobs.command(
    "list",
    epilog=QUERY_HELP
    + "\n"
    + closing(
        "phaseline jobs list",
        "phaseline jobs list status:failed engine:fpl created_after:1d",
        "phaseline jobs list --status failed --tag nightly -o jsonl | jq -r .id",
    ),
)
@click.argument("query", nargs=-1)
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(["queued", "running", "completed", "failed", "cancelled"]),
    help="May be repeated.",
)
@click.option("--engine", help="Only of this engine.")
@click.option("--tag", help="Only with this tag.")
@click.option("--created-after", metavar="TIME", help="Made after: 2026-11-24T08:00:00Z, or 1h ago.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many.")
@server_options
def list_(query: tuple[str, ...], shape: Shape, url: str, limit: int, **wanted: Any) -> None:
    """Lists jobs, newest first: all, or those QUERY or the options name."""
    from phaseline.render import jobs_table

    if query and any(wanted.values()):
        raise click.UsageError("QUERY says it all: give it alone, or options alone")

    async def work(client: "Client") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for job in client.jobs(" ".join(query) or None, **wanted, limit=min(limit, 100)):
            found.append(job)
            if len(found) == limit:
                break
        return found

    show(shape, talk(url, work), jobs_table)


@jobs.command(epilog=closing("phaseline jobs get JOB_ID", "phaseline jobs get JOB_ID -o json | jq .status"))
@click.argument("job_id")
@click.option("--at", type=click.IntRange(min=1), metavar="SEQ", help="The job as it was at this sequence.")
@server_options
def get(job_id: str, at: int | None, shape: Shape, url: str) -> None:
    """Shows one job, now or as of a sequence."""
    from phaseline.render import job_card

    show(shape, talk(url, lambda client: client.job(job_id, at=at)), job_card)


@jobs.command("at", epilog=closing("phaseline jobs at JOB_ID --seq 7", "phaseline jobs at JOB_ID --seq 7 -o json"))
@click.argument("job_id")
@click.option("--seq", type=click.IntRange(min=1), required=True, help="After this event.")
@server_options
def at_(job_id: str, seq: int, shape: Shape, url: str) -> None:
    """Shows one job as it stood after an event: status, phase, progress, attempt."""
    from phaseline.render import job_card

    show(shape, talk(url, lambda client: client.job(job_id, at=seq)), job_card)


@jobs.command(
    epilog=closing(
        "phaseline jobs events JOB_ID --after 7 -o jsonl",
        "phaseline jobs events JOB_ID --after 7 --follow       and what comes, until the job ends",
        "phaseline jobs events JOB_ID --data-dir .data/demo    needs no server",
    )
)
@click.argument("job_id")
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Only events after this one.")
@click.option("--limit", type=click.IntRange(1), help="At most this many; default all.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Read the log in this folder of `phaseline up` itself, without a server.",
)
@both(follow_option, timeout_option, server_options)
def events(
    job_id: str, after: int, limit: int | None, data_dir: Path | None, shape: Shape, url: str, **watching: Any
) -> None:
    """Replays a job's recorded events, up to the newest, or with --follow up to its end."""
    refuse_lonely_timeout(**watching)
    if watching["follow"]:
        if limit is not None or data_dir is not None:
            raise click.UsageError("--follow goes on to the job's end, with a server: without --limit and --data-dir")
        exit_with(followed(url, job_id, shape, after=after, timeout_s=watching["timeout_s"]))
    from phaseline.watched import line

    async def work(client: "Client") -> list[Mapping[str, Any]]:
        return [event async for event in client.events(job_id, after, limit=limit)]

    found = talk(url, work) if data_dir is None else _recorded(data_dir, job_id)[after:][:limit]
    show(shape, found, lambda events: click.echo("\n".join(line(event) for event in events)))


@jobs.command(epilog=closing("phaseline jobs results JOB_ID | jq .", "phaseline jobs results JOB_ID --to result.json"))
@click.argument("job_id")
@click.option("--to", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file instead.")
@url_option
def results(job_id: str, file: Path | None, url: str) -> None:
    """Prints a job's result, its exact JSON bytes."""

    async def work(client: "Client") -> bytes | int:
        ref = (await client.job(job_id)).get("results_ref") if file is not None else None
        return await client.results(job_id) if file is None or ref is None else await client.download(ref, file)

    found = talk(url, work)
    if file is None:
        click.echo(found)
    elif isinstance(found, bytes):
        file.write_bytes(found)


@jobs.command(
    epilog=closing("phaseline jobs cancel JOB_ID --reason 'wrong season'", "phaseline jobs cancel JOB_ID --grace 5")
)
@click.argument("job_id")
@click.option("--force", is_flag=True, help="At once, without letting the engine end by itself.")
@click.option("--grace", "grace_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Killed after; default 30.")
@_reason
@server_options
def cancel(job_id: str, shape: Shape, url: str, **how: Any) -> None:
    """Asks a job to stop. A queued one is cancelled at once, a running one when its engine has stopped."""
    job = talk(url, lambda client: client.cancel(job_id, **how))
    show(shape, job, lambda job: click.echo(job["status"] if job["status"] == "cancelled" else "asked to stop"))


@jobs.command(epilog=closing("phaseline jobs retry JOB_ID --reason 'the API is back' --follow"))
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


@jobs.command(
    epilog=closing(
        "phaseline jobs rerun JOB_ID -p steps=50 --follow",
        "phaseline jobs rerun JOB_ID --from-phase evaluating    keeps what came before",
    )
)
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
