"""taskiq on taskiq-aio-pika: one worker process, asyncio; a durable quorum queue, its default, and no result backend."""

import asyncio
import sys

from taskiq_aio_pika import AioPikaBroker

from benchmarks.peers.driving import RABBITMQ_URL, Driven, drive, tell

broker = AioPikaBroker(RABBITMQ_URL)


@broker.task(task_name="telling")
async def telling() -> None:
    """Says that it runs."""
    tell()


class TaskiqPeer(Driven):
    """The message is all that is kept: a job has ended when it ran."""

    name = "taskiq"
    keeps_state = False
    arguments = ("-m", "taskiq", "worker", "benchmarks.peers.taskiq:broker", "--workers", "1", "--log-level", "WARNING")

    async def connect(self) -> None:
        await broker.startup()

    async def submit(self, kind: str) -> None:
        del kind
        await telling.kiq()


if __name__ == "__main__":
    sys.exit(asyncio.run(drive(TaskiqPeer())))
