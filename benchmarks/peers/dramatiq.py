"""dramatiq on RabbitMQ: one worker process of eight threads, its default for a process; confirms on, no results."""

import asyncio
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peers.driving import RABBITMQ_URL, Driven, drive, tell

broker = RabbitmqBroker(url=RABBITMQ_URL, confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="telling")
def telling() -> None:
    """Says that it runs."""
    tell()


class DramatiqPeer(Driven):
    """Its calls block; one thread submits, as a web process would."""

    name = "dramatiq"
    keeps_state = False
    arguments = ("-m", "dramatiq", "benchmarks.peers.dramatiq", "--processes", "1", "--threads", "8")

    async def submit(self, kind: str) -> None:
        del kind
        await asyncio.to_thread(telling.send)

    async def submit_many(self, kind: str, jobs: int) -> None:
        del kind

        def submit() -> None:
            for _ in range(jobs):
                telling.send()

        await asyncio.to_thread(submit)


if __name__ == "__main__":
    sys.exit(asyncio.run(drive(DramatiqPeer())))
