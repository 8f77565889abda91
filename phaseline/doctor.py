"""`phaseline doctor`: looks at everything an installation needs and names the cure of what is wrong. Changes nothing."""

import asyncio
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from events.errors import PhaselineError
from phaseline import archives, database, doctor_database, doctor_machine, doctor_rabbit, oidc
from phaseline.client import Client
from phaseline.client_errors import ClientError
from phaseline.findings import Finding, failed, ok, warning
from phaseline.settings import Settings
from phaseline.spine import rabbit_settings

WITHIN_S = 20.0  # for each server: a frozen one is told as one that does not answer


async def examined(settings: Settings, gateway_url: str | None) -> list[Finding]:
    """Every finding, in the order a person would look: machine, database, RabbitMQ, gateway."""
    found = doctor_machine.examined(settings)
    looked = await _database(settings)
    found += looked.findings
    if settings.rabbitmq_url:
        found += await _rabbitmq(settings, settings.rabbitmq_url, looked.engines)
    if settings.oidc_issuer:
        found.append(await oidc.examined(settings))
    if settings.archive or settings.retention:
        found.append(await archives.examined(settings))
    if gateway_url:
        found += await _gateway(gateway_url)
    return found


async def _database(settings: Settings) -> doctor_database.Looked:
    if missing := doctor_database.missing_file(settings):
        return doctor_database.Looked([missing], [])
    try:
        async with asyncio.timeout(WITHIN_S):
            return await database.on_connection(settings, doctor_database.looked)
    except (PhaselineError, OSError, SQLAlchemyError) as away:
        return doctor_database.Looked([doctor_database.away(settings, _first_line(away))], [])


async def _rabbitmq(settings: Settings, url: str, engines: Sequence[str]) -> list[Finding]:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await doctor_rabbit.examined(url, engines, rabbit_settings(settings))
    except (PhaselineError, OSError, ValueError) as away:
        return [
            failed(
                "rabbitmq",
                _first_line(away),
                "start RabbitMQ, or correct PHASELINE_RABBITMQ_URL; until then jobs run, but are seen a little later",
            )
        ]


async def _gateway(url: str) -> list[Finding]:
    try:
        async with Client(url, timeout_s=5.0) as client:
            answer = await client.ready()
    except ClientError as problem:
        cure = "start `phaseline gateway` or `phaseline up`, or say where one is with --url; its log says what it lacks"
        return [failed("gateway", str(problem), cure)]
    if not answer["bus"]["connected"]:
        cure = "see that RabbitMQ runs and that the gateway's PHASELINE_RABBITMQ_URL is right"
        return [warning("gateway", f"{url} is ready but without RabbitMQ", cure)]
    return [ok("gateway", f"{url} is ready")]


def _first_line(failure: BaseException) -> str:
    return str(failure).partition("\n")[0] or f"nothing within {WITHIN_S:g} s"
