"""What safety costs: the same jobs with everything that guards them, and with nothing of it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from benchmarks.bench import ENVIRONMENT, SLOTS, Bench, Row, warmed
from benchmarks.dispatch import IDLE_S, rate, start
from benchmarks.measure import Bound, Figure, Results, in_turns
from events.acts import By
from events.keys import SCOPES
from phaseline import database
from phaseline.grants import grant
from phaseline.settings import Settings
from tests.installation import Api, api, on_servers, running

BARE = "unguarded"


class Guards(Row):
    """An API key asked for, a role that row level security holds, limits of clients, seals; against none of them."""

    async def measure(self, bench: Bench, results: Results) -> None:
        await bench.alone()
        jobs = bench.size(40, 15)
        async with _bare(bench) as bare, _guarded(bench) as guarded:

            async def started(http: Api) -> Sequence[float]:
                waits = []
                for _ in range(jobs):
                    await asyncio.sleep(IDLE_S)
                    waits.append(await start(http))
                return waits

            found = await in_turns(
                bench.repeats,
                {
                    "rate bare": await rate(bench, bare, "fivephase"),
                    "rate guarded": await rate(bench, guarded, "fivephase"),
                    "start bare": lambda: started(bare),
                    "start guarded": lambda: started(guarded),
                },
            )
        nothing = "no key, the tables' owner, no limit, nothing sealed, no webhooks"
        everything = "key, role that owns nothing, limits, seals, webhooks looked for"
        for name, unit, kind, least, most in (
            ("five-phase jobs", "jobs/s", "rate", 0.9, None),
            ("idle submit → engine code", "ms", "start", None, 1.1),
        ):
            results.add(Figure(f"{name}, {BARE}", unit, found[f"{kind} bare"], note=nothing))
            reach = (Bound("ratio", least=least, most=most, to=f"{name}, {BARE}"),)
            results.add(
                Figure(name, unit, found[f"{kind} guarded"], note=everything, against=(f"{name}, {BARE}",), reach=reach)
            )


@asynccontextmanager
async def _bare(bench: Bench) -> AsyncIterator[Api]:
    settings = {"PHASELINE_SLOTS": SLOTS, "PHASELINE_SEAL_S": "100000", "PHASELINE_WEBHOOK_PLACES": "0"}
    async with bench.system(**settings) as system:
        yield system.http


@asynccontextmanager
async def _guarded(bench: Bench) -> AsyncIterator[Api]:
    owner_url, rabbit_url = await asyncio.to_thread(bench.new_database), await asyncio.to_thread(bench.new_vhost)
    own = Settings(database_url=owner_url, rabbitmq_url=rabbit_url, data_dir=bench.folder)
    await database.migrate(own)
    role, password, parts = f"bench_{secrets.token_hex(4)}", secrets.token_hex(8), urlsplit(owner_url)
    await grant(own, role, password)
    _, key = await database.create_key(own, "default", "bench", list(SCOPES), None, By("user:bench"))
    url = parts._replace(netloc=f"{role}:{password}@{parts.hostname}:{parts.port}").geturl()
    limits = {
        "PHASELINE_SUBMITS_PER_S": "100000",
        "PHASELINE_READS_PER_S": "100000",
        "PHASELINE_UPGRADES_PER_S": "100000",
        "PHASELINE_BODY_BYTES_PER_S": "1000000000",
    }
    installation = on_servers(url, rabbit_url, **ENVIRONMENT | limits, PHASELINE_SLOTS=SLOTS)
    async with running(installation), api(installation.url) as http:
        http.session.headers["Authorization"] = f"Bearer {key}"
        await warmed(http)
        yield http
        await installation.stop()
    owner = await asyncpg.connect(owner_url)
    await owner.execute(f"DROP OWNED BY {role}")
    await owner.execute(f"DROP ROLE {role}")
    await owner.close()
