"""Commands that make a job or watch one."""

from collections.abc import Callable
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import click

from phaseline.cli_completion import engines_here
from phaseline.cli_options import (
    EXIT_CODES,
    OK,
    Shape,
    both,
    closing,
    command,
    concurrency_of,
    concurrency_options,
    exit_with,
    follow_option,
    is_terminal,
    key_option,
    params_of,
    params_options,
    refuse_lonely_timeout,
    server_options,
    show,
    talk,
    timeout_option,
)

if TYPE_CHECKING:
    from phaseline.client import Client

_seconds = click.FloatRange(min=0, min_open=True)


@click.command(
    epilog=closing(
        "phaseline submit countdown -p steps=50 -p step_s=0.2 --follow",
        "phaseline submit fpl --params '{\"team_id\": 1}' --follow --timeout 60",
        "phaseline submit countdown --params @params.json --priority high --tag nightly -o json",
        "phaseline submit countdown --unique-key nightly --unique-mode refuse",
    )
)
@click.argument("engine", shell_complete=engines_here)
@params_options
@click.option("--priority", type=click.Choice(["low", "normal", "high"]), help="Default normal.")
@click.option("--not-before", metavar="TIME", help="Do not start earlier, such as 2026-11-24T08:00:00Z.")
@click.option("--max-attempts", type=click.IntRange(1, 100), help="Failed attempts before the job fails; default 3.")
@click.option(
    "--start-timeout", "start_s", type=_seconds, metavar="SECONDS", help="Fail unless started so long after it is due."
)
@click.option(
    "--attempt-timeout", "attempt_s", type=_seconds, metavar="SECONDS", help="For each attempt; default 3600."
)
@click.option(
    "--total-timeout",
    "total_s",
    type=_seconds,
    metavar="SECONDS",
    help="For all attempts together, from when it is due.",
)
@click.option("--stall-timeout", "stall_s", type=_seconds, metavar="SECONDS", help="Longest silence of an attempt.")
@click.option("--tag", "tags", multiple=True, help="A word to find the job by; may be repeated.")
@click.option("--unique-key", metavar="WORD", help="While a job with this key has not ended, make no other.")
@click.option(
    "--unique-mode",
    type=click.Choice(["return", "refuse", "replace"]),
    help="Then: take that job (default), fail, or cancel it and make the new one.",
)
@click.option("--webhook", metavar="URL", help="Where the job's end is told; see `phaseline webhooks`.")
@concurrency_options
@both(key_option, follow_option, timeout_option, server_options)
def submit(engine: str, shape: Shape, url: str, follow: bool, timeout_s: float | None, **asked: Any) -> None:
    """Makes a job for ENGINE (see `phaseline engines`) and prints its id, or watches it."""
    refuse_lonely_timeout(follow=follow, timeout_s=timeout_s)
    if asked["unique_mode"] and not asked["unique_key"]:
        raise click.UsageError("--unique-mode says nothing without --unique-key")
    asked["concurrency"] = concurrency_of(asked)
    asked["params"] = params_of(asked.pop("pairs"), asked["params"])
    limits = {name: asked.pop(name) for name in ("start_s", "attempt_s", "total_s", "stall_s")}
    asked["timeouts"] = {name: limit_s for name, limit_s in limits.items() if limit_s is not None}

    async def work(client: "Client") -> int:
        job = await client.submit(engine, **asked)
        return await shown_or_followed(client, job, shape, follow=follow, timeout_s=timeout_s)

    exit_with(talk(url, work))


@click.command(
    epilog=f"""\b
Examples:
  phaseline follow JOB_ID
  phaseline follow JOB_ID --after 7            go on after sequence 7
  phaseline follow JOB_ID -o jsonl | jq .type  events for a program

Goes on across broken connections and restarted servers; no event is shown twice.

{EXIT_CODES}"""
)
@click.argument("job_id")
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Sequence already seen.")
@click.option(
    "--record",
    type=click.File("a", encoding="utf-8", lazy=True),
    metavar="FILE",
    help="Append every frame as it was received, for `phaseline verify --recording`.",
)
@both(timeout_option, server_options)
def follow(job_id: str, after: int, record: IO[str] | None, timeout_s: float | None, shape: Shape, url: str) -> None:
    """Shows a job's events from the start, or after a sequence, until it ends."""
    on_line = None if record is None else partial(print, file=record, flush=True)
    exit_with(followed(url, job_id, shape, after=after, timeout_s=timeout_s, on_line=on_line))


def followed(
    url: str,
    job_id: str,
    shape: Shape,
    *,
    after: int,
    timeout_s: float | None,
    on_line: Callable[[str], None] | None = None,
) -> int:
    """Watches a job that exists until it ends. Returns the exit code."""
    from phaseline.watch import watch

    async def work(client: "Client") -> int:
        job = await client.job(job_id)
        return await watch(client, job, shape, after=after, timeout_s=timeout_s, on_line=on_line)

    return talk(url, work)


async def shown_or_followed(
    client: "Client", job: dict[str, Any], shape: Shape, *, follow: bool, timeout_s: float | None
) -> int:
    """Watches a new job, or prints it and says how to. Returns the exit code."""
    if follow:
        from phaseline.watch import watch

        if not is_terminal():
            click.echo(f"job {job['id']}", err=True)
        return await watch(client, job, shape, timeout_s=timeout_s)
    show(shape, job, lambda made: click.echo(made["id"]))
    if shape == "table":
        click.echo(f"{job['status']}; watch it with: {command('follow', job['id'], url=client.base_url)}", err=True)
    return OK
