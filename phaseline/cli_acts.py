"""Who does an administrative act from the command line, and why, for the event that tells of it."""

import getpass
import os

import click

from phaseline.cli_options import both


def _said(value: str | None, most: int) -> str | None:
    if value is not None and not (0 < len(value) <= most and value.isprintable()):
        raise click.BadParameter(f"1 to {most} printable characters")
    return value


def _actor(_: click.Context, __: click.Parameter, value: str) -> str | None:
    from events.acts import ACTOR_CHARS_MAX

    return _said(value, ACTOR_CHARS_MAX)


def _reason(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from events.acts import REASON_CHARS_MAX

    return _said(value, REASON_CHARS_MAX)


def _system_user() -> str:
    try:
        return f"user:{getpass.getuser()}"
    except (OSError, KeyError):  # no name is known here for whoever runs this
        return f"user:{os.getuid()}"


who_and_why = both(
    click.option(
        "--by",
        "actor",
        default=_system_user,
        callback=_actor,
        show_default="user:, and who runs this",
        help="Who, as in events.",
    ),
    click.option("--reason", callback=_reason, help="Why, for whoever reads the audit."),
)
