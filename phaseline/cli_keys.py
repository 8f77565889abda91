"""Commands for API keys. They work on the database itself, as `phaseline db` does: who may reach that may make keys."""

import asyncio
import json
from dataclasses import fields
from typing import Any

import click

from events.acts import By
from events.clock import rfc3339
from events.keys import DEFAULT_TENANT, NAME_CHARS_MAX, SCOPES, TENANT, ApiKey
from events.webhooks import origin_of
from phaseline.cli_acts import who_and_why
from phaseline.cli_options import Failure, both, closing, command, settings_of
from phaseline.cli_server import ON_DATABASE, data_dir_option, database_url_option
from phaseline.plain import plain

_CODES = "\b\nExit codes: 0 done, 1 error, 2 usage.\n"
_database = both(database_url_option, data_dir_option)


_as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")


@click.group()
def keys() -> None:
    """Makes, lists and revokes API keys. From the first key on every request needs one."""


def tenant_name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuses what is no name of a tenant."""
    if value is not None and not TENANT.fullmatch(value):
        raise click.BadParameter("lower-case letters, digits, - and _, at most 63, first a letter or digit")
    return value


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    if len(value) > NAME_CHARS_MAX or not value.isprintable():
        raise click.BadParameter(f"at most {NAME_CHARS_MAX} printable characters")
    return value


@keys.command(
    epilog=closing(
        "phaseline keys create --scope admin --name operator",
        f"phaseline keys create --tenant acme --scope submit --scope read --days 90 {ON_DATABASE}",
        codes=_CODES,
    )
)
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, callback=tenant_name, help="Whose jobs it sees.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What it may do; may be repeated. admin: everything, and what is not of one tenant alone.",
)
@click.option("--name", default="", callback=_name, help="For people: who has it.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True, max=36500), help="It expires after so many days; else never."
)
@_as_json
@who_and_why
@_database
def create(
    tenant: str,
    scopes: tuple[Any, ...],
    name: str,
    days: float | None,
    as_json: bool,
    actor: str,
    reason: str | None,
    **given: Any,
) -> None:
    """Makes a key and prints it, once: only its SHA-256 is stored. Gateways know it within seconds. An administrative act:
    who made it and why stands in the audit."""
    settings = settings_of(given)
    from phaseline import database

    key, text = asyncio.run(database.create_key(settings, tenant, name, scopes, days, By(actor, None, reason)))
    if as_json:
        click.echo(json.dumps(_shown(key) | {"key": text}))
    else:
        click.echo(text)
        click.echo(f"key {key.id} of tenant {key.tenant}: {' '.join(key.scopes)}; it is shown this once", err=True)


@keys.command("list", epilog=closing("phaseline keys list", f"phaseline keys list {ON_DATABASE} --json", codes=_CODES))
@click.option("--tenant", callback=tenant_name, help="Of this tenant only.")
@_as_json
@_database
def list_(tenant: str | None, as_json: bool, **given: Any) -> None:
    """Lists keys: whose, for what, until when, and when they were last used, to the minute or so."""
    settings = settings_of(given)
    from phaseline import database

    found = [_shown(key) for key in asyncio.run(database.list_keys(settings, tenant))]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for key in found:
        ends = f"revoked {key['revoked_at']}" if key["revoked_at"] else f"expires {key['expires_at'] or 'never'}"
        used = f"used {key['used_at'] or 'never'}"
        click.echo(
            plain(f"{key['id']}  {key['tenant']}  {','.join(key['scopes'])}  {ends}  {used}  {key['name']}").rstrip()
        )
    if not found:
        click.echo("there is no key: nobody is asked for one", err=True)


@keys.command(epilog=closing(f"phaseline keys revoke 3f0c9a51d2e47b88 {ON_DATABASE}", codes=_CODES))
@click.argument("key_id")
@who_and_why
@_database
def revoke(key_id: str, actor: str, reason: str | None, **given: Any) -> None:
    """Makes a key good for nothing, for ever. Requests are refused and open streams closed within ten seconds. An
    administrative act. Schedules it made are the tenant's and go on: each is named, with what pauses it."""
    settings = settings_of(given)
    from phaseline import database

    schedules = asyncio.run(database.revoke_key(settings, key_id, By(actor, None, reason)))
    if schedules is None:
        raise Failure(f"there is no key {key_id}; `phaseline keys list` shows those there are")
    click.echo(f"key {key_id} is revoked")
    if schedules:
        click.echo(f"{len(schedules)} schedules it made in tenant {schedules[0].tenant} go on; each is paused by")
    for it in schedules:
        hook = it.job.get("webhook")
        click.echo(
            f"  {command('schedules', 'pause', it.name)}" + (plain(f"  # webhook to {origin_of(hook)}") if hook else "")
        )


def _shown(key: ApiKey) -> dict[str, Any]:
    shown = {field.name: getattr(key, field.name) for field in fields(key) if field.name != "sha256"}
    instants = {name: value and rfc3339(value) for name, value in shown.items() if name.endswith("_at")}
    return shown | {"scopes": list(key.scopes)} | instants
