"""Commands that run a server or look after its database. Every setting is also an environment variable."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from phaseline import cli_acts
from phaseline.cli_options import ERROR, OK, Failure, both, closing, exit_with, settings_of, styled

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="PHASELINE_DATA_DIR",
    show_envvar=True,
    help="Folder of the embedded database; default .data/phaseline.",
)
database_url_option = click.option(
    "--database-url",
    envvar="PHASELINE_DATABASE_URL",
    show_envvar=True,
    help="postgresql://user:password@host/db; without it SQLite in the data directory.",
)
_rabbitmq_url = click.option(
    "--rabbitmq-url",
    envvar="PHASELINE_RABBITMQ_URL",
    show_envvar=True,
    help="amqp://user:password@host/; without it the bus is inside the process.",
)
_address = both(
    click.option("--host", envvar="PHASELINE_HOST", show_envvar=True, help="Address to listen on; default 127.0.0.1."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        envvar="PHASELINE_PORT",
        show_envvar=True,
        help="Port to listen on; default 8000; 0 picks a free one.",
    ),
)
_slots = click.option(
    "--slots",
    type=click.IntRange(1, 256),
    envvar="PHASELINE_SLOTS",
    show_envvar=True,
    help="Engines run at once; default one a core, at least 2.",
)
ON_DATABASE = "--database-url postgresql://app@db/phaseline"
_ON_SERVERS = f"{ON_DATABASE} --rabbitmq-url amqp://app@mq/"
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}
_SERVER_CODES = "\b\nExit codes: 0 ended in order (SIGTERM or Ctrl-C), 1 error, 2 usage.\n"


@click.command(epilog=closing("phaseline up", "phaseline up --port 0 --data-dir /tmp/try", codes=_SERVER_CODES))
@both(_address, data_dir_option, _slots)
def up(**given: Any) -> None:
    """Runs everything in one process: gateway, worker, SQLite, an in-process bus. Data stays between runs.

    The first line printed is the URL, once it answers. SIGTERM ends it in order; a second one ends it now.
    """
    settings = settings_of(given)
    from phaseline import compose

    exit_with(compose.run_up(settings, on_ready=click.echo))


@click.command(epilog=closing(f"phaseline gateway {_ON_SERVERS} --port 8000", codes=_SERVER_CODES))
@both(_address, database_url_option, _rabbitmq_url, data_dir_option)
def gateway(**given: Any) -> None:
    """Runs a gateway: HTTP, WebSocket, SSE and the web pages. Any number may run on one database."""
    settings = settings_of(given)
    from phaseline import compose

    exit_with(compose.run_gateway(settings, on_ready=click.echo))


@click.command(epilog=closing(f"phaseline worker {_ON_SERVERS} --slots 4", codes=_SERVER_CODES))
@both(_slots, database_url_option, _rabbitmq_url, data_dir_option)
def worker(**given: Any) -> None:
    """Runs a worker: claims due jobs and runs their engines in child processes. Any number may run.

    SIGTERM stops taking work and releases what does not end in time; a second one ends it now.
    """
    settings = settings_of(given)
    from phaseline import compose

    exit_with(compose.run_worker(settings))


@click.group()
def db() -> None:
    """Looks after the database."""


@db.command(epilog=closing(f"phaseline db migrate {ON_DATABASE}"))
@both(database_url_option, data_dir_option)
def migrate(**given: Any) -> None:
    """Brings the schema to what this version needs. Alone, under a lock; nothing to do is fine."""
    settings = settings_of(given)
    from phaseline import compose

    compose.db_migrate(settings)
    click.echo("the schema is up to date")


@db.command(epilog=closing(f"phaseline db restored --reason 'the backup of 03:00' {_ON_SERVERS}"))
@cli_acts.who_and_why
@both(database_url_option, _rabbitmq_url, data_dir_option)
def restored(actor: str, reason: str | None, **given: Any) -> None:
    """Says that the log was restored from a backup, or failed over to a replica that lagged behind.

    What came after the backup is gone, and its sequences will be used again: the log gets a new epoch, viewers are sent
    away and told with `reset` to drop what they have, and the RabbitMQ stream is made anew from the log. Gateways and
    workers may be running; `phaseline up` may not. An administrative act, in every tenant's audit.
    """
    settings = settings_of(given)
    from events.acts import By
    from phaseline import compose

    click.echo(f"the log's epoch is {compose.db_restored(settings, By(actor, None, reason))} now")


@db.command(
    epilog=closing(
        "phaseline db check --data-dir .data/phaseline",
        codes="\b\nExit codes: 0 all rows equal their events, 1 some differ, 2 usage.\n",
    )
)
@both(database_url_option, data_dir_option)
def check(**given: Any) -> None:
    """Compares every job's row with the fold of its events and prints each difference."""
    settings = settings_of(given)
    from phaseline import database

    differences = asyncio.run(database.check(settings))
    for difference in differences:
        click.echo(difference)
    if differences:
        raise Failure(f"{len(differences)} differences; `phaseline db rebuild` rewrites the rows from the events")
    click.echo("every job equals the fold of its events")


@db.command(epilog=closing(f"phaseline db rebuild {ON_DATABASE}"))
@both(database_url_option, data_dir_option)
def rebuild(**given: Any) -> None:
    """Rewrites every row that differs from its events. The events are the truth and stay as they are."""
    settings = settings_of(given)
    from phaseline import database

    click.echo(f"{asyncio.run(database.rebuild(settings))} rows rewritten")


@db.command(
    epilog=closing(
        f"phaseline db erase JOB --reason 'asked by the customer' --by user:ada {ON_DATABASE}",
        codes="\b\nExit codes: 0 erased, 1 no such job, it has not ended, or an error, 2 usage.\n",
    )
)
@click.argument("job", type=click.UUID)
@click.option("--reason", required=True, help="Why, for whoever reads the audit.")
@click.option("--by", "actor", required=True, help="Who, as in events: user:ada.")
@both(database_url_option, data_dir_option)
def erase(job: Any, reason: str, actor: str, **given: Any) -> None:
    """Erases what a finished JOB was given and what it made: params, outputs, results, values, messages, addresses.

    Who did what when stays, and so do the digests: `phaseline audit verify` goes on to hold. Who erased it and why is
    recorded. As the role that migrates. It cannot be taken back. Jobs rerun from it, or it from them, are named: they may hold
    the same and stay as they are.
    """
    settings = settings_of(given)
    from phaseline import signals
    from phaseline.erase import alike
    from phaseline.erase import erase as erased

    signals.arm(settings)
    click.echo(f"{asyncio.run(erased(settings, str(job), actor=actor, reason=reason))} events erased")
    for other in asyncio.run(alike(settings, str(job))):
        click.echo(f"not erased, and of the same origin by a rerun: {other}", err=True)


@db.command(
    epilog=closing(
        f"POSTGRES_APP_PASSWORD=… phaseline db grant phaseline_app {ON_DATABASE}",
        codes="\b\nExit codes: 0 granted, 1 no such role and no password, or an error, 2 usage.\n",
    )
)
@click.argument("role")
@click.option(
    "--password",
    envvar="POSTGRES_APP_PASSWORD",
    help="To make the role with; better in POSTGRES_APP_PASSWORD, which no list of processes shows.",
)
@both(database_url_option)
def grant(role: str, password: str | None, **given: Any) -> None:
    """Gives ROLE the rights gateways and workers need, and takes any other; makes it, where it is not there.

    Let them log in as it: it owns nothing, so row level security holds it. As the role that migrates, after each `db
    migrate`; PostgreSQL only.
    """
    settings = settings_of(given)
    from phaseline import grants

    made = asyncio.run(grants.grant(settings, role, password))
    click.echo(f"role {role} {'is made and ' if made else ''}has the rights of gateways and workers, and no other")


_HOLD_CODES = "\b\nExit codes: 0 recorded, 1 no such job, or an error, 2 usage.\n"
who_and_why = both(
    click.argument("job", type=click.UUID),
    click.option("--reason", required=True, help="Why, for whoever reads the audit."),
    click.option("--by", "actor", required=True, help="Who, as in events: user:ada."),
)


@db.command(
    epilog=closing(f"phaseline db hold JOB --reason 'case 4711' --by user:ada {ON_DATABASE}", codes=_HOLD_CODES)
)
@both(who_and_why, database_url_option, data_dir_option)
def hold(job: Any, reason: str, actor: str, **given: Any) -> None:
    """Holds JOB: nothing of it may go until it is let go, an erasure is refused. Recorded for ever."""
    settings = settings_of(given)
    from phaseline import database

    asyncio.run(database.hold(settings, str(job), held=True, actor=actor, reason=reason))
    click.echo(f"job {job} is held")


@db.command(
    epilog=closing(f"phaseline db unhold JOB --reason 'case closed' --by user:ada {ON_DATABASE}", codes=_HOLD_CODES)
)
@both(who_and_why, database_url_option, data_dir_option)
def unhold(job: Any, reason: str, actor: str, **given: Any) -> None:
    """Lets JOB go that was held. Recorded for ever."""
    settings = settings_of(given)
    from phaseline import database

    asyncio.run(database.hold(settings, str(job), held=False, actor=actor, reason=reason))
    click.echo(f"job {job} is held no more")


@click.command(
    epilog="""\b
Examples:
  phaseline verify                                       everything so far; the run may go on
  phaseline verify --settled --recording viewer.ndjson   after a run, with what a client saw

\b
Exit codes: 0 no violation, 1 a violation or an error, 2 usage.
"""
)
@click.option("--settled", is_flag=True, help="Nothing goes on any more: every job must have its terminal event.")
@click.option(
    "--recording",
    "recordings",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What a client received, as `phaseline follow --record FILE` writes it; may be repeated.",
)
@both(database_url_option, _rabbitmq_url, data_dir_option)
def verify(settled: bool, recordings: tuple[Path, ...], **given: Any) -> None:
    """Holds a run against what is promised of it, and prints the first violation with its events.

    Checked are every job's stream (sequences, attempts, terminal events, commands recorded once), its row, idempotency
    keys, with --rabbitmq-url the RabbitMQ stream, and what clients recorded. Reads only; servers may be up.
    """
    settings = settings_of(given)
    from phaseline import compose

    click.echo(f"{compose.verify_run(settings, recordings, settled=settled)}: no violation")


@click.command(
    epilog=closing(
        "phaseline doctor                                           what `phaseline up` uses here",
        f"phaseline doctor {_ON_SERVERS}",
        "phaseline doctor --url http://127.0.0.1:8000 --json | jq '.[] | select(.state != \"ok\")'",
        codes="\b\nExit codes: 0 nothing failed (there may be warnings), 1 something failed, 2 usage.\n",
    )
)
@click.option("--url", envvar="PHASELINE_URL", show_envvar=True, help="Look at the gateway there too.")
@click.option("--json", "as_json", is_flag=True, help="One document, a list of findings, instead of lines.")
@both(database_url_option, _rabbitmq_url, data_dir_option)
def doctor(url: str | None, as_json: bool, **given: Any) -> None:
    """Looks at everything this installation needs and names the cure of what is wrong. Changes nothing.

    Database: version, schema revision, rights, row level security, append-only, partitions, durable commits, its clock,
    workers. RabbitMQ: rights, and every queue's arguments against those declared. This machine: open files, engines, room
    for the embedded database. Where they are set: the archive, the issuer of tokens. With --url a gateway. Takes the settings that gateways and workers are started with.
    """
    settings = settings_of(given)
    from phaseline.doctor import examined

    found = asyncio.run(examined(settings, url))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    else:
        for one in found:
            click.echo(f"{styled(one.state.ljust(7), fg=_COLOURS[one.state])}  {one.check}: {one.detail}")
            if one.cure:
                click.echo(f"         {one.cure}")
    exit_with(ERROR if any(one.state == "failed" for one in found) else OK)
