"""Commands that run a server or look after its database. Every setting is also an environment variable."""

from pathlib import Path
from typing import Any

import click

from phaseline.cli_options import EXIT_CODES, Failure, both, exit_with, settings_of

_data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="PHASELINE_DATA_DIR",
    show_envvar=True,
    help="Folder of the embedded database; default .data/phaseline.",
)
_database_url = click.option(
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
_SERVER_CODES = "\b\nExit codes: 0 ended in order (SIGTERM or Ctrl-C), 1 error, 2 usage.\n"


@click.command(epilog=f"\b\nExample:\n  phaseline up --port 0 --data-dir /tmp/try\n\n{_SERVER_CODES}")
@both(_address, _data_dir, _slots)
def up(**given: Any) -> None:
    """Runs everything in one process: gateway, worker, SQLite, an in-process bus. Data stays between runs.

    The first line printed is the URL, once it answers. SIGTERM ends it in order; a second one ends it now.
    """
    settings = settings_of(given)
    from phaseline import compose

    exit_with(compose.run_up(settings, on_ready=click.echo))


@click.command(epilog=_SERVER_CODES)
@both(_address, _database_url, _rabbitmq_url, _data_dir)
def gateway(**given: Any) -> None:
    """Runs a gateway: HTTP, WebSocket, SSE and the web pages. Any number may run on one database."""
    settings = settings_of(given)
    from phaseline import compose

    exit_with(compose.run_gateway(settings, on_ready=click.echo))


@click.command(epilog=_SERVER_CODES)
@both(_slots, _database_url, _rabbitmq_url, _data_dir)
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


@db.command(epilog=EXIT_CODES)
@both(_database_url, _data_dir)
def migrate(**given: Any) -> None:
    """Brings the schema to what this version needs. Alone, under a lock; nothing to do is fine."""
    settings = settings_of(given)
    from phaseline import compose

    compose.db_migrate(settings)
    click.echo("the schema is up to date")


@db.command(epilog="\b\nExit codes: 0 all rows equal their events, 1 some differ, 2 usage.\n")
@both(_database_url, _data_dir)
def check(**given: Any) -> None:
    """Compares every job's row with the fold of its events and prints each difference."""
    settings = settings_of(given)
    from phaseline import compose

    differences = compose.db_check(settings)
    for difference in differences:
        click.echo(difference)
    if differences:
        raise Failure(f"{len(differences)} differences; `phaseline db rebuild` rewrites the rows from the events")
    click.echo("every job equals the fold of its events")


@db.command(epilog=EXIT_CODES)
@both(_database_url, _data_dir)
def rebuild(**given: Any) -> None:
    """Rewrites every row that differs from its events. The events are the truth and stay as they are."""
    settings = settings_of(given)
    from phaseline import compose

    click.echo(f"{compose.db_rebuild(settings)} rows rewritten")
