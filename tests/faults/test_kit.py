"""The parts of the fault kit do what they say, so that a test built on them shows something."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import aiohttp
import psutil
import pytest
import pytest_asyncio

from tests.faults.fleet import BOUND_S, alive, until
from tests.installation import Api, Installation, Viewer, api, embedded, running
from tests.integration.conftest import ENVIRONMENT
from tests.proxy import DOWN, proxy_to
from tests.servers import RabbitServer

COUNTED = {"steps": 30, "step_s": 0.02}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with running(embedded(tmp_path_factory.mktemp("kit"), **ENVIRONMENT)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def http(installation: Installation) -> AsyncIterator[Api]:
    async with api(installation.url) as http:
        yield http


async def test_a_frozen_process_answers_nothing_until_it_is_thawed(installation: Installation):
    process = psutil.Process(installation.pid("up"))
    await until(lambda: installation.children("up"), "an engine process")
    installation.freeze("up", children=True)
    family = [process, *installation.children("up")]
    await until(lambda: {one.status() for one in family} == {psutil.STATUS_STOPPED}, "everything stopped")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session:
        with pytest.raises(TimeoutError):
            await session.get(f"{installation.url}/healthz")
    installation.thaw("up")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=BOUND_S)) as session:
        assert (await session.get(f"{installation.url}/healthz")).status == 200


async def test_the_engines_of_a_killed_process_follow_it_and_it_can_be_started_again(installation: Installation):
    await until(lambda: installation.children("up"), "an engine process")
    children = installation.children("up")
    await installation.kill("up")
    await until(lambda: not any(map(alive, children)), "the end of its engine processes")
    await installation.start("up")
    assert psutil.Process(installation.pid("up")).is_running()


async def test_a_restless_viewer_sees_every_event_once(installation: Installation, http: Api):
    job_id = await http.submit("countdown", COUNTED)
    viewer = await Viewer(installation.url, job_id).follow_restlessly(random.Random(1))
    assert len([frame for frame in viewer.frames if frame.get("type") == "hello"]) > 3
    assert viewer.events == await http.events(job_id)


async def test_a_slow_viewer_takes_as_long_as_its_line(installation: Installation, http: Api):
    job_id = await http.submit("countdown", COUNTED)
    await Viewer(installation.url, job_id).follow()
    async with proxy_to(installation.url) as line:
        line.limit(10_000, DOWN)
        began_at = time.monotonic()
        viewer = await Viewer(line.url, job_id).follow()
        took_s = time.monotonic() - began_at
        assert took_s > 0.9 * line.delivered[DOWN] / 10_000 > 0.5
        assert viewer.events == await http.events(job_id)


async def test_a_viewer_that_stops_reading_gets_the_rest_when_it_reads_again(installation: Installation, http: Api):
    async with proxy_to(installation.url) as line, asyncio.TaskGroup() as group:
        viewer = Viewer(line.url, await http.submit("countdown", COUNTED))
        following = group.create_task(viewer.follow())
        await until(lambda: viewer.events, "a first event")
        line.stall(DOWN)
        other = Viewer(installation.url, viewer.job_id)
        await other.follow()  # meanwhile the job ends
        assert len(viewer.events) < len(other.events)
        line.heal()
        await following
        assert viewer.events == await http.events(viewer.job_id)


async def test_under_a_memory_alarm_nothing_is_confirmed(rabbit: RabbitServer):
    url = await asyncio.to_thread(rabbit.create_vhost)
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kit", durable=True)

        async def publish(within_s: float, messages: int = 1) -> None:
            async with asyncio.timeout(within_s):
                for _ in range(messages):
                    await channel.default_exchange.publish(aio_pika.Message(b""), queue.name)

        await publish(BOUND_S)
        await asyncio.to_thread(rabbit.memory_alarm, True)
        try:
            with pytest.raises(TimeoutError):
                await publish(0.5, messages=2)  # the first may pass: it is what makes RabbitMQ stop reading
        finally:
            await asyncio.to_thread(rabbit.memory_alarm, False)
        await publish(BOUND_S)


async def test_queues_are_emptied_and_removed_from_outside_by_prefix(rabbit: RabbitServer):
    url = await asyncio.to_thread(rabbit.create_vhost)
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        kept = await channel.declare_queue("other", durable=True)
        mine = await channel.declare_queue("kit.mine", exclusive=True)
        quorum = await channel.declare_queue("kit.quorum", durable=True, arguments={"x-queue-type": "quorum"})
        stream = await channel.declare_queue("kit.stream", durable=True, arguments={"x-queue-type": "stream"})
        for queue in (kept, mine, quorum):
            await channel.default_exchange.publish(aio_pika.Message(b""), queue.name)
        assert await asyncio.to_thread(rabbit.purge_queues, url, "kit.quorum") == 1
        counts = [(await channel.declare_queue(q.name, passive=True)).declaration_result for q in (kept, mine, quorum)]
        assert [count.message_count for count in counts] == [1, 1, 0]
        assert await asyncio.to_thread(rabbit.delete_queues, url, "kit.") == 3
        await channel.declare_queue("other", passive=True)
        for queue in (mine, quorum, stream):
            lost = await connection.channel()
            with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
                await lost.declare_queue(queue.name, passive=True)


async def test_forked_processes_end_with_a_test_run_that_is_killed(tmp_path: Path):
    """A run that starts a gateway, says which process that is, and waits to be killed."""
    run = (
        "import sys; from pathlib import Path; from tests.forked import Forked, environment\n"
        "urls = dict(PHASELINE_DATABASE_URL='postgresql://127.0.0.1:1/none', PHASELINE_RABBITMQ_URL='amqp://127.0.0.1:1')\n"
        "print(Forked(['worker'], environment(**urls), Path(sys.argv[1])).pid, flush=True); sys.stdin.read()"
    )
    output = tmp_path / "output"
    output.touch()
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", run, str(output)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert victim.stdout is not None
    async with asyncio.timeout(BOUND_S):
        forked = psutil.Process(int(await victim.stdout.readline()))
    await until(lambda: "waiting for the database" in output.read_text(), "a process at work")
    victim.kill()
    await victim.wait()
    await until(lambda: not alive(forked), "its end")
