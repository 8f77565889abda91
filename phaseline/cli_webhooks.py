"""Commands for completion webhooks. They work on the database itself, as `phaseline keys` does."""

import asyncio
import json
from typing import Any

import click

from events.acts import By
from events.clock import rfc3339
from events.keys import DEFAULT_TENANT
from phaseline.cli_acts import who_and_why
from phaseline.cli_keys import tenant_name
from phaseline.cli_options import Failure, both, closing, settings_of
from phaseline.cli_server import ON_DATABASE, data_dir_option, database_url_option

_CODES = "\b\nExit codes: 0 done, 1 error, 2 usage.\n"
_database = both(database_url_option, data_dir_option)
_tenant = click.option("--tenant", default=DEFAULT_TENANT, show_default=True, callback=tenant_name, help="Whose.")


@click.group()
def webhooks() -> None:
    """Says where the ends of jobs are told, and with what those messages are signed.

    Signed after Standard Webhooks (https://www.standardwebhooks.com): its libraries check them.
    """


@webhooks.command(
    "set",
    epilog=closing(
        "phaseline webhooks set                                        jobs name their own URL",
        f"phaseline webhooks set --tenant acme --url https://acme.example/hook {ON_DATABASE}",
        codes=_CODES,
    ),
)
@_tenant
@click.option("--url", help="For jobs that name none; without it they are told to nobody.")
@who_and_why
@_database
def set_(tenant: str, url: str | None, actor: str, reason: str | None, **given: Any) -> None:
    """Gives a tenant webhooks and prints the secret that signs them. Again: changes the URL; the secret stays.
    An administrative act, as rotating and removing: who did it and why stands in the audit."""
    settings = settings_of(given)
    from phaseline import compose

    endpoint = compose.webhooks_set(settings, tenant, url, By(actor, None, reason))
    click.echo(endpoint.secret)
    click.echo(f"webhooks of tenant {tenant} go to {endpoint.url or 'the URL each job names'}", err=True)


@webhooks.command(epilog=closing(f"phaseline webhooks rotate --tenant acme {ON_DATABASE}", codes=_CODES))
@_tenant
@who_and_why
@_database
def rotate(tenant: str, actor: str, reason: str | None, **given: Any) -> None:
    """Makes a new secret and prints it. For 24 hours the one before signs too: receivers may take either."""
    settings = settings_of(given)
    from phaseline import database

    endpoint = asyncio.run(database.rotate_webhooks(settings, tenant, By(actor, None, reason)))
    if endpoint is None:
        raise _has_none(tenant)
    click.echo(endpoint.secret)


@webhooks.command("list", epilog=closing("phaseline webhooks list --json", codes=_CODES))
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
@_database
def list_(as_json: bool, **given: Any) -> None:
    """Lists the tenants that have webhooks, and where they go. Secrets are not shown."""
    settings = settings_of(given)
    from phaseline import database

    found = [
        {"tenant": one.tenant, "url": one.url, "changed_at": rfc3339(one.changed_at)}
        for one in asyncio.run(database.list_webhooks(settings))
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found:
        click.echo(f"{one['tenant']}  {one['url'] or 'as jobs say'}  changed {one['changed_at']}")
    if not found:
        click.echo("no tenant has webhooks: `phaseline webhooks set` gives it some", err=True)


@webhooks.command(epilog=closing(f"phaseline webhooks remove --tenant acme {ON_DATABASE}", codes=_CODES))
@_tenant
@who_and_why
@_database
def remove(tenant: str, actor: str, reason: str | None, **given: Any) -> None:
    """Ends a tenant's webhooks. What is still owed is given up."""
    settings = settings_of(given)
    from phaseline import database

    if not asyncio.run(database.remove_webhooks(settings, tenant, By(actor, None, reason))):
        raise _has_none(tenant)
    click.echo(f"tenant {tenant} has no webhooks any more")


def _has_none(tenant: str) -> Failure:
    return Failure(f"tenant {tenant} has no webhooks; `phaseline webhooks list` shows who has")
