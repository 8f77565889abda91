"""What webhooks cost: the same jobs with a webhook at the end of each, sent to a receiver on this machine, and with none."""

import time
from collections.abc import Sequence

from benchmarks.bench import SLOTS, Bench, Row, System
from benchmarks.dispatch import burst
from benchmarks.measure import Figure, Results, in_turns
from events.acts import By
from phaseline import database
from tests.webhooks.receiver import Receiver, receiving, well

WITHOUT = "no-op jobs, no webhook"
SETTINGS = {"PHASELINE_SLOTS": SLOTS, "PHASELINE_WEBHOOK_HTTP": "1", "PHASELINE_WEBHOOK_NETWORKS": "127.0.0.1"}


class Webhooks(Row):
    """Each turn waits until every webhook has come, so that none of them is paid for by the next."""

    async def measure(self, bench: Bench, results: Results) -> None:
        await bench.alone()
        jobs = bench.size(200, 100)
        sent: list[Sequence[float]] = []  # webhooks a second, of each turn

        async with bench.system(**SETTINGS) as bare, bench.system(**SETTINGS) as hooked, receiving(well) as receiver:
            await database.set_webhooks(hooked.settings, "default", receiver.url, By("user:bench"))

            async def without() -> Sequence[float]:
                return [jobs / await burst(bare.http, "noop", jobs)]

            async def owing() -> Sequence[float]:
                rate, webhooks = await _owing(hooked, receiver, jobs)
                sent.append([webhooks])
                return [rate]

            found = await in_turns(bench.repeats, {"without": without, "with": owing})
        results.add(Figure(WITHOUT, "jobs/s", found["without"], note="over HTTP; nothing is owed"))
        results.add(
            Figure(
                "no-op jobs", "jobs/s", found["with"],
                note="up to the last job's end; each owes a webhook, written with its end, and it is sent meanwhile",
                against=(WITHOUT,),
            )
        )  # fmt: skip
        note = (
            "from the first submit until the last one has come; signed; to a receiver in the load generator's process"
        )
        results.add(Figure("webhooks that arrive", "/s", sent, note=note))


async def _owing(system: System, receiver: Receiver, jobs: int) -> tuple[float, float]:
    """Jobs a second, and webhooks a second."""
    before, began = len(receiver.got), time.monotonic()
    took = await burst(system.http, "noop", jobs)
    await receiver.came(before + jobs)
    return jobs / took, jobs / (time.monotonic() - began)
