"""Commands for schedules: jobs made again and again, at the ticks of a cron expression."""

from typing import TYPE_CHECKING, Any, Literal

import click

from phaseline.cli_options import (
    Shape,
    both,
    closing,
    concurrency_of,
    concurrency_options,
    params_of,
    params_options,
    server_options,
    show,
    talk,
)
from phaseline.plain import plain

if TYPE_CHECKING:
    from phaseline.client import Client

_why = click.option("--reason", help="Why, for whoever reads the audit.")
_CODES = "\b\nExit codes: 0 done, 1 error, 2 usage.\n"


@click.group()
def schedules() -> None:
    """Makes jobs again and again, at the ticks of a cron expression."""


@schedules.command(
    epilog=closing(
        "phaseline schedules create weekly fpl -p team_id=7 --cron '0 6 * * FRI' --timezone Europe/London",
        "phaseline schedules create nightly countdown --cron '30 2 * * *' --catch-up skip --unique-key nightly",
        codes=_CODES,
    )
)
@click.argument("name")
@click.argument("engine")
@click.option("--cron", required=True, metavar="'M H D M W'", help="Minute, hour, day of month, month, day of week.")
@click.option("--timezone", metavar="ZONE", help="Such as Europe/Zurich; default UTC.")
@click.option(
    "--catch-up",
    type=click.Choice(["skip", "last", "all"]),
    help="Of ticks missed in an outage make none, the last (default), or all up to --catch-up-max.",
)
@click.option("--catch-up-max", type=click.IntRange(1, 100), help="With all: the newest so many; default 10.")
@params_options
@click.option("--priority", type=click.Choice(["low", "normal", "high"]), help="Default normal.")
@click.option("--max-attempts", type=click.IntRange(1, 100), help="Failed attempts before a job fails; default 3.")
@click.option("--tag", "tags", multiple=True, help="A word to find its jobs by; may be repeated.")
@click.option("--unique-key", metavar="WORD", help="While a job with this key has not ended, make no other.")
@click.option("--unique-mode", type=click.Choice(["return", "refuse", "replace"]), help="As for `phaseline submit`.")
@concurrency_options
@_why
@server_options
def create(
    name: str,
    engine: str,
    cron: str,
    timezone: str | None,
    catch_up: Literal["skip", "last", "all"] | None,
    catch_up_max: int | None,
    shape: Shape,
    url: str,
    **job: Any,
) -> None:
    """Makes a schedule NAME of jobs for ENGINE (see `phaseline engines`)."""
    params, reason = params_of(job.pop("pairs"), job.pop("params")), job.pop("reason")
    if limit := concurrency_of(job):
        job["concurrency"] = {"key": limit[0], "limit": limit[1]}
    asked = {"engine": engine, "params": params or {}, **job, "tags": list(job["tags"])}

    async def work(client: "Client") -> dict[str, Any]:
        return await client.create_schedule(
            name, cron, asked, timezone=timezone, catch_up=catch_up, catch_up_max=catch_up_max, reason=reason
        )

    show(shape, talk(url, work), lambda schedule: click.echo(f"{schedule['name']}: next at {schedule['next_at']}"))


@schedules.command(
    "list", epilog=closing("phaseline schedules list", "phaseline schedules list -o jsonl", codes=_CODES)
)
@server_options
def list_(shape: Shape, url: str) -> None:
    """Lists the schedules, by name."""
    show(shape, talk(url, lambda client: client.schedules()), _lines)


@schedules.command(epilog=closing("phaseline schedules get nightly -o json", codes=_CODES))
@click.argument("name")
@server_options
def get(name: str, shape: Shape, url: str) -> None:
    """Shows a schedule, and what was done with it and by it."""
    show(shape, talk(url, lambda client: client.schedule(name)), _card)


def _changing(name: str, text: str) -> click.Command:
    async def work(client: "Client", schedule: str, reason: str | None) -> dict[str, Any]:
        changed: dict[str, Any] = await getattr(client, f"{name}_schedule")(schedule, reason)
        return changed

    @click.command(name, help=text, epilog=closing(f"phaseline schedules {name} nightly", codes=_CODES))
    @click.argument("schedule", metavar="NAME")
    @both(_why, server_options)
    def change(schedule: str, reason: str | None, shape: Shape, url: str) -> None:
        show(
            shape,
            talk(url, lambda client: work(client, schedule, reason)),
            lambda it: _lines([it], gone=name == "delete"),
        )

    return change


schedules.add_command(_changing("pause", "Makes no jobs until the schedule is resumed."))
schedules.add_command(_changing("resume", "Goes on with the next tick; what was missed meanwhile is not made up."))
schedules.add_command(_changing("delete", "Removes a schedule. The jobs it made stay."))


def _lines(found: list[dict[str, Any]], *, gone: bool = False) -> None:
    for it in found:
        state = "deleted" if gone else "paused" if it["paused"] else f"next {it['next_at']}"
        when = f"{it['cron']}  {it['timezone']}"
        click.echo(f"{it['name']}  {it['job']['engine']}  {when}  {state}  last {it['last_at'] or 'never'}")
    if not found:
        click.echo("there is no schedule", err=True)


def _card(it: dict[str, Any]) -> None:
    _lines([it])
    for act in it["acts"]:
        click.echo(plain(f"  {act['at']}  {act['act']}  {act['actor']}  {act.get('detail', '')}").rstrip())
