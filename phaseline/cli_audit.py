"""`phaseline audit`: whether stored events are those that were written; who did what."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from phaseline.cli_options import (
    ERROR,
    OK,
    TIMEOUT,
    UNREAD,
    both,
    closing,
    command,
    exit_with,
    refuse_lonely_timeout,
    settings_of,
    talk,
    timeout_option,
    url_option,
)
from phaseline.cli_server import data_dir_option, database_url_option
from phaseline.client_errors import TimedOut

if TYPE_CHECKING:
    from events.audit import Report
    from phaseline.client import Client

_CODES = "\b\nExit codes: 0 {}, 1 {} or an error, 2 usage.\n"
_PEOPLE = ("user:", "key:")
_job = click.option("--job", "job_id", type=click.UUID, metavar="JOB", help="This job only.")


@click.group()
def audit() -> None:
    """Finds what was changed in the log, exports it, and shows who did what."""


@audit.command(
    epilog=closing(
        "phaseline audit verify",
        "phaseline audit verify --anchors /mnt/anchors --public-key BASE64 -o json | jq .findings",
        codes="\b\nExit codes: 0 nothing is wrong, 1 something is or an error, 2 usage,\n"
        "6 nothing is wrong in what was read, and archived jobs were not read.\n",
    )
)
@_job
@click.option(
    "--anchors",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of anchors that were carried off this machine.",
)
@click.option("--public-key", metavar="BASE64", help="The key that signed them, as `phaseline audit key` printed it.")
@click.option(
    "-o",
    "--output",
    "shape",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text for people; json: one document.",
)
@both(database_url_option, data_dir_option)
def verify(
    job_id: Any,
    folder: Path | None,
    public_key: str | None,
    shape: Literal["text", "json"],
    **given: Any,
) -> None:
    """Holds every stored event against its seal, and names each that was changed, removed, cut off, added or moved; and every
    API key against the acts that tell of it.

    Reads only; servers may be up. What no seal covers yet is said, with its age. Without --anchors, somebody who owns the
    database could have computed everything anew; with them, nothing before the newest anchor. Archived jobs are read where
    PHASELINE_ARCHIVE says; without it they are held against the acts that tell of them alone, and counted.
    """
    if (folder is None) != (public_key is None):
        raise click.UsageError("--anchors and --public-key go together")
    settings = settings_of(given)
    from phaseline import audit_run

    told = str(job_id) if job_id else None
    report = asyncio.run(
        audit_run.verify(settings, job_id=told, folder=folder, public_key=public_key, progress=_checked)
    )
    if shape == "json":
        click.echo(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        for finding in report.findings:
            click.echo(finding)
        click.echo(_summary(report))
    exit_with(ERROR if report.findings else UNREAD if report.unread else OK)


@audit.command(
    epilog=closing(
        "phaseline audit export /mnt/audit/2026-11",
        codes="\b\nExit codes: 0 everything is written, the manifest last, 1 not everything is or an error, 2 usage,\n"
        "6 what could be read is written, and archived jobs were not read.\n",
    )
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_job
@both(database_url_option, data_dir_option)
def export(folder: Path, job_id: Any, **given: Any) -> None:
    """Writes every event with its exact data, and the seals, as NDJSON into an empty FOLDER, with a manifest."""
    settings = settings_of(given)
    from phaseline import audit_run

    told = str(job_id) if job_id else None
    manifest = asyncio.run(audit_run.export(settings, folder, job_id=told, progress=_exported))
    for name, file in manifest["files"].items():
        click.echo(f"{folder / name}: {file['lines']} lines, {file['bytes']} bytes, SHA-256 {file['sha256']}")
    if manifest["unread"]:
        click.echo(
            f"{manifest['unread']} jobs are in an archive and THEIR EVENTS ARE NOT WRITTEN: PHASELINE_ARCHIVE says where it is",
            err=True,
        )
    exit_with(UNREAD if manifest["unread"] else OK)


@audit.command(
    epilog=closing(
        "phaseline audit key /etc/phaseline/anchor.pem",
        codes=_CODES.format("made, or there already", "the file is no such key"),
    )
)
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def key(path: Path) -> None:
    """Makes the key that signs anchors (Ed25519) in the file PATH and prints its public key.

    The file is for the processes that anchor (PHASELINE_ANCHOR_KEY_FILE), the public key for whoever verifies. Of a file
    that is there already the public key is printed and nothing is changed.
    """
    from phaseline import anchors

    if path.exists():
        click.echo(anchors.public_text(anchors.private_key(path).public_key()))
    else:
        click.echo(anchors.new_key(path))


@audit.command(
    epilog=closing(
        "phaseline audit anchor --anchors-dir /mnt/anchors --anchor-key-file anchor.pem",
        codes=_CODES.format("written", "nothing to anchor"),
    )
)
@click.option(
    "--anchors-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="PHASELINE_ANCHORS_DIR",
    show_envvar=True,
    help="Folder to write it into.",
)
@click.option(
    "--anchor-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="PHASELINE_ANCHOR_KEY_FILE",
    show_envvar=True,
    help="The private key, as `phaseline audit key` made it.",
)
@both(database_url_option, data_dir_option)
def anchor(**given: Any) -> None:
    """Seals what there is and writes its anchor now. Processes with both settings do so by themselves, once an hour."""
    settings = settings_of(given)
    from phaseline import audit_run

    click.echo(str(asyncio.run(audit_run.anchor(settings))))


@audit.command(
    epilog=closing(
        "phaseline audit tail                          what people and keys have done",
        "phaseline audit tail --after now --follow     what they do from here on",
        "phaseline audit tail --all -o jsonl",
    )
)
@click.option(
    "--after", "cursor", metavar="CURSOR", help="Go on behind this one; `now` is the end. Default: the start."
)
@click.option("--follow", is_flag=True, help="And then what comes, until Ctrl-C or --timeout.")
@click.option("--all", "everything", is_flag=True, help="What workers and the system did, too.")
@click.option(
    "-o",
    "--output",
    "shape",
    type=click.Choice(["text", "jsonl"]),
    default="text",
    show_default=True,
    help="text: when, who, from where, what, why; jsonl: one event a line.",
)
@both(timeout_option, url_option)
def tail(cursor: str | None, follow: bool, everything: bool, shape: str, timeout_s: float | None, url: str) -> None:
    """Shows what people and keys have done: when, who, from where, what, to which job, and why."""
    refuse_lonely_timeout(follow=follow, timeout_s=timeout_s)

    async def work(client: "Client") -> int:
        await client.stats()  # a server that was never there is told at once, not waited for
        feed = client.feed(cursor, follow=follow, timeout_s=timeout_s)
        try:
            async for event in feed:
                if everything or event["actor"].startswith(_PEOPLE):
                    click.echo(json.dumps(event, ensure_ascii=False) if shape == "jsonl" else line(event))
        except TimedOut:
            return TIMEOUT
        finally:
            if feed.cursor is not None:
                click.echo(f"Go on with: {command('audit', 'tail', '--after', feed.cursor, url=url)}", err=True)
        return OK

    exit_with(talk(url, work))


def line(event: Mapping[str, Any]) -> str:
    """One event as a line of an audit: when, who, from where, what, to which job, why."""
    from phaseline.watched import deed

    if event["type"] == "administered":
        what = deed(event)
    else:
        what = event["type"] + (f" {event['engine']}" if event["type"] == "submitted" else "")
    where = event.get("address") or "-"
    why = event.get("reason")
    said = f"  {json.dumps(why, ensure_ascii=False)}" if why else ""
    return f"{event['timestamp']}  {event['actor']}  {where}  {what}  {event['job_id']} {event['seq']}{said}"


def _checked(report: "Report") -> None:
    click.echo(f"{report.events} events checked, {len(report.findings)} findings", err=True)


def _exported(events: int) -> None:
    click.echo(f"{events} events written", err=True)


def _summary(report: "Report") -> str:
    parts = [
        f"{report.jobs} jobs, {report.acts} acts, {report.events} events, {report.seals} seals, {report.keys} keys"
    ]
    if report.oldest_unsealed_ms is not None:
        parts.append(
            f"{report.unsealed} events not sealed yet, the oldest {report.oldest_unsealed_ms / 1000:.1f} s old"
        )
    if report.erased:
        parts.append(f"{report.erased} events erased")
    if report.untold:
        parts.append(f"{report.untold} erasures that no act tells of")
    if report.archived:
        parts.append(f"{report.archived} jobs read from the archive")
    if report.discarded:
        parts.append(f"{report.discarded} jobs discarded by retention, of which only the chain is left")
    if report.anchors is not None:
        held = f"up to seal {report.anchored_seal}" if report.anchored_seal else "none"
        parts.append(f"{report.anchors} anchors hold, {held}")
    count = len(report.findings) + report.more
    verdict = "nothing is wrong in what was read" if report.unread else "nothing is wrong"
    parts.append(f"{count} findings" if count else verdict)
    if report.unread:
        parts.append(
            f"{report.unread} jobs are in an archive and COULD NOT BE VERIFIED: PHASELINE_ARCHIVE says where it is"
        )
    return "; ".join(parts)
