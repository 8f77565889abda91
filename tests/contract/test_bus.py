"""What the port `events/bus.py` promises, once, over every adapter; then what only RabbitMQ can do to us."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aio_pika
import pytest

from events import rabbit_link, rabbit_publish
from events.bus import HINT_BYTES_MAX, INLINE_BYTES_MAX, Bus, Hint, Ticket, Tickets
from events.bus_memory import MemoryBus
from events.bus_rabbit import RabbitBus
from events.catalog import Progress
from events.cloudevents import cloudevent, event_id
from events.errors import BusUnavailable
from events.rabbit_topology import (
    CONTROL_ARGUMENTS,
    COPY_STREAM,
    EVENTS_EXCHANGE,
    TICKET_ARGUMENTS,
    RabbitSettings,
    fresh_queue,
    ticket_queue,
)
from events.record import Recorded, encode_event, job_id_of, seq_of
from tests.servers import RabbitServer
from tests.simulation.bus import Broker, SimBus

JOB = "0199aaaa-0000-7000-8000-00000000000{}"
WITHIN_S = 10.0  # everything here takes milliseconds; a server that comes back takes 2 s
QUIET_S = 0.2  # how long nothing must come for "nothing comes"
ENGINE, OTHER = "fpl", "countdown"


def line(seq: int, *, job: int = 1, size: int = 0) -> bytes:
    return f'{{"job_id":"{JOB.format(job)}","seq":{seq},"type":"log","message":"{"m" * size}"}}'.encode()


def recorded(seq: int) -> Recorded:
    data = encode_event(Progress(progress=float(seq % 100), phase="collecting_data"))
    return Recorded(JOB.format(1), seq, "progress", 1, 1, "engine", "default", 1_764_000_000_000 + seq, f"c{seq}", data)


class Heard:
    """What a listener was told, and a way to wait for more."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.words: list[bytes] = []
        self.bound = 0
        self._news = asyncio.Event()

    def on_hint(self, hint: Hint) -> None:
        self.hints.append(hint)
        self._news.set()

    def on_words(self, words: bytes) -> None:
        self.words.append(words)
        self._news.set()

    def on_bound(self) -> None:
        self.bound += 1
        self._news.set()

    @property
    def lines(self) -> list[bytes]:
        return [line for hint in self.hints for line in hint.lines]

    async def until(self, told: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not told():
                self._news.clear()
                await self._news.wait()

    async def until_bound(self, times: int = 1) -> None:
        await self.until(lambda: self.bound >= times)


async def until(true: Callable[[], object]) -> None:
    """For what tells nobody when it changes."""
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.01)


async def until_waiting(bus: Bus, engine: str, count: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await bus.ticket_count(engine) != count:  # noqa: ASYNC110 a question, no event
            await asyncio.sleep(0.01)


async def taken(tickets: Tickets) -> Ticket:
    async with asyncio.timeout(WITHIN_S):
        return await tickets.get()


async def none_comes(tickets: Tickets) -> bool:
    try:
        async with asyncio.timeout(QUIET_S):
            await tickets.get()
    except TimeoutError:
        return True
    return False


@asynccontextmanager
async def opened(url: str, **settings: int | str) -> AsyncIterator[RabbitBus]:
    bus = RabbitBus(url, name="test", settings=RabbitSettings(**settings))  # type: ignore[arg-type]
    await bus.open()
    try:
        await until(lambda: bus.connected)
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def listening(bus: Bus) -> AsyncIterator[Heard]:
    heard = Heard()
    async with bus.tail(heard.on_hint, heard.on_bound):
        await heard.until_bound()
        yield heard


@asynccontextmanager
async def plain_channel(url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A client that knows nothing of us."""
    connection = await aio_pika.connect(url)
    async with connection:
        yield await connection.channel()


@pytest.fixture(params=["memory", "rabbitmq", "simulated"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        memory = MemoryBus()
        await memory.open()
        yield memory
        await memory.close()
    elif request.param == "simulated":
        simulated = SimBus(Broker())
        await simulated.open()
        yield simulated
        await simulated.close()
    else:
        async with opened(request.getfixturevalue("rabbit").create_vhost()) as rabbit_bus:
            yield rabbit_bus
    await until(lambda: len(asyncio.all_tasks()) == 1)  # it left nothing behind


@pytest.fixture
def vhost(rabbit: RabbitServer) -> str:
    return rabbit.create_vhost()


# ---- hints


async def test_hints_arrive_whole_in_order_and_with_their_epoch(bus: Bus) -> None:
    async with listening(bus) as heard:
        bus.publish("epoch-1", [line(1), line(2)])
        bus.publish("epoch-1", [line(3)])
        bus.publish("epoch-2", [line(4)])
        await heard.until(lambda: len(heard.lines) == 4)
    assert heard.lines == [line(1), line(2), line(3), line(4)]
    assert [hint.epoch for hint in heard.hints for _ in hint.lines] == ["epoch-1"] * 3 + ["epoch-2"]


async def test_a_burst_arrives_in_order_in_messages_of_bounded_size(bus: Bus) -> None:
    sent = [line(seq, size=2000) for seq in range(1, 1001)]
    async with listening(bus) as heard:
        for start in range(0, 1000, 100):
            bus.publish("e", sent[start : start + 100])
        await heard.until(lambda: len(heard.lines) >= 1000)
    assert heard.lines == sent
    assert max(sum(len(line) + 1 for line in hint.lines) for hint in heard.hints) <= HINT_BYTES_MAX


async def test_a_long_event_travels_as_a_reference_that_can_be_sliced(bus: Bus) -> None:
    long = line(7, size=INLINE_BYTES_MAX)
    async with listening(bus) as heard:
        bus.publish("e", [line(6), long, line(8)])
        await heard.until(lambda: len(heard.lines) == 3)
    reference = heard.lines[1]
    assert json.loads(reference) == {"job_id": JOB.format(1), "seq": 7, "ref": True}
    assert (job_id_of(reference), seq_of(reference)) == (job_id_of(long), seq_of(long))
    assert [heard.lines[0], heard.lines[2]] == [line(6), line(8)]


async def test_every_tail_hears_everything(bus: Bus) -> None:
    async with listening(bus) as one, listening(bus) as two:
        bus.publish("e", [line(1)])
        await one.until(lambda: one.lines)
        await two.until(lambda: two.lines)
    assert one.lines == two.lines == [line(1)]


async def test_nothing_is_replayed_to_a_tail_that_comes_later(bus: Bus) -> None:
    async with listening(bus) as early:
        bus.publish("e", [line(1)])
        await early.until(lambda: early.lines)
        async with listening(bus) as late:
            bus.publish("e", [line(2)])
            await late.until(lambda: late.lines)
    assert late.lines == [line(2)]


async def test_listeners_are_not_called_inside_publish(bus: Bus) -> None:
    async with listening(bus) as heard:
        bus.publish("e", [line(1)])
        assert heard.hints == []
        await heard.until(lambda: heard.hints)


async def test_a_listener_that_raises_harms_nobody(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    told = Heard()

    def broken(hint: Hint) -> None:
        told.on_hint(hint)
        raise ValueError("a listener's mistake")

    async with bus.tail(broken, told.on_bound), listening(bus) as heard:
        await told.until_bound()
        bus.publish("e", [line(1)])
        await told.until(lambda: len(told.hints) == 1)
        bus.publish("e", [line(2)])
        await told.until(lambda: len(told.hints) == 2)
        await heard.until(lambda: len(heard.lines) == 2)
    assert "a listener's mistake" in caplog.text


async def test_who_left_the_block_hears_no_more(bus: Bus) -> None:
    async with listening(bus) as still_there:
        async with listening(bus) as heard:
            pass
        bus.publish("e", [line(1)])
        await still_there.until(lambda: still_there.lines)
    assert heard.lines == []


async def test_an_error_in_the_block_comes_out_as_it_is(bus: Bus) -> None:
    with pytest.raises(KeyError):
        async with listening(bus):
            raise KeyError


# ---- tickets


async def test_a_worker_gets_the_tickets_of_its_engines_only(bus: Bus) -> None:
    bus.publish_tickets(OTHER, 1)
    bus.publish_tickets(ENGINE, 2)
    async with bus.tickets([ENGINE]) as tickets:
        for _ in range(2):
            ticket = await taken(tickets)
            assert ticket.engine == ENGINE
            await ticket.ack()
        assert await none_comes(tickets)
    assert await bus.ticket_count(OTHER) == 1


async def test_one_ticket_an_engine_is_out_until_its_ack(bus: Bus) -> None:
    bus.publish_tickets(ENGINE, 2)
    bus.publish_tickets(OTHER, 1)
    async with bus.tickets([ENGINE, OTHER]) as tickets:
        held = [await taken(tickets), await taken(tickets)]
        assert {ticket.engine for ticket in held} == {ENGINE, OTHER}
        assert await none_comes(tickets)
        for ticket in held:
            await ticket.ack()
        assert (await taken(tickets)).engine == ENGINE


async def test_the_number_of_waiting_tickets_is_known(bus: Bus) -> None:
    assert await bus.ticket_count(ENGINE) == 0
    bus.publish_tickets(ENGINE, 3)
    await until_waiting(bus, ENGINE, 3)


async def test_a_paused_worker_takes_nothing_and_goes_on_when_resumed(bus: Bus) -> None:
    bus.publish_tickets(ENGINE, 3)
    async with bus.tickets([ENGINE]) as tickets:
        ticket = await taken(tickets)
        await tickets.pause()
        await ticket.ack()
        assert await none_comes(tickets)
        assert await bus.ticket_count(ENGINE) == 2
        await tickets.resume()
        assert (await taken(tickets)).engine == ENGINE


async def test_what_a_paused_worker_had_not_taken_goes_to_another(bus: Bus) -> None:
    async with bus.tickets([ENGINE]) as full:
        bus.publish_tickets(ENGINE, 1)
        await until_waiting(bus, ENGINE, 1 if bus.name == "memory" else 0)  # RabbitMQ hands it over beforehand
        await full.pause()
        async with bus.tickets([ENGINE]) as free:
            await (await taken(free)).ack()


async def test_a_get_that_is_given_up_loses_no_ticket(bus: Bus) -> None:
    async with bus.tickets([ENGINE]) as tickets:
        assert await none_comes(tickets)
        bus.publish_tickets(ENGINE, 1)
        assert (await taken(tickets)).engine == ENGINE


async def test_an_ack_may_come_twice_or_too_late(bus: Bus) -> None:
    async with bus.tickets([ENGINE]) as tickets:
        bus.publish_tickets(ENGINE, 2)
        first = await taken(tickets)
        await first.ack()
        await first.ack()
        second = await taken(tickets)
    await second.ack()


# ---- control


async def test_control_words_reach_their_worker_only(bus: Bus) -> None:
    mine, other = Heard(), Heard()
    async with bus.controls("w1", mine.on_words), bus.controls("w2", other.on_words):
        # A worker's queue appears in its own time and says nothing: talk until it listens.
        async with asyncio.timeout(WITHIN_S):
            while not (mine.words and other.words):
                bus.send_control("w1", b"for w1")
                bus.send_control("w2", b"for w2")
                bus.send_control("w3", b"for nobody")
                await asyncio.sleep(0.01)
    assert (set(mine.words), set(other.words)) == ({b"for w1"}, {b"for w2"})


# ---- life


async def test_after_close_nothing_raises_and_closing_again_is_fine(bus: Bus) -> None:
    async with listening(bus), bus.tickets([ENGINE]), bus.controls("w", lambda _: None):
        await bus.close()
        await bus.close()
    bus.publish("e", [line(1)])
    bus.publish_tickets(ENGINE, 1)
    bus.send_control("w", b"")


# ---- the bus in memory


async def test_a_listener_too_slow_for_its_queue_loses_the_oldest() -> None:
    bus = MemoryBus(hints_waiting_max=3)
    async with listening(bus) as heard:
        for seq in range(1, 6):
            bus.publish("e", [line(seq)])
        await heard.until(lambda: heard.hints)
    assert heard.lines == [line(3), line(4), line(5)]


async def test_a_listener_that_publishes_does_not_keep_the_loop() -> None:
    bus = MemoryBus()
    heard = Heard()

    def echo(hint: Hint) -> None:
        heard.on_hint(hint)
        bus.publish(hint.epoch, hint.lines)

    async with bus.tail(echo, heard.on_bound):
        bus.publish("e", [line(1)])
        await heard.until(lambda: len(heard.hints) > 10)


async def test_the_bus_in_memory_keeps_no_copy() -> None:
    bus = MemoryBus()
    assert not bus.keeps_copy
    with pytest.raises(BusUnavailable):
        await bus.copy_exists()
    with pytest.raises(BusUnavailable):
        await bus.make_copy()
    with pytest.raises(BusUnavailable):
        await bus.append_copy([])
    with pytest.raises(BusUnavailable):
        _ = [message async for message in bus.read_copy()]


# ---- RabbitMQ: the copy


async def test_the_copy_is_readable_by_whoever_knows_cloudevents(vhost: str) -> None:
    events = [recorded(seq) for seq in range(1, 301)]
    async with opened(vhost) as bus:
        assert not await bus.copy_exists()
        await bus.make_copy()
        assert await bus.copy_exists()
        await bus.append_copy([(event_id(event), cloudevent(event)) for event in events])

    async with plain_channel(vhost) as channel:
        await channel.set_qos(prefetch_count=50)
        stream = await channel.get_queue(COPY_STREAM)
        read: list[dict[str, object]] = []
        async with asyncio.timeout(WITHIN_S), stream.iterator(arguments={"x-stream-offset": "first"}) as messages:
            async for message in messages:
                assert message.content_type == "application/cloudevents+json"
                event = json.loads(message.body)
                assert {"specversion", "id", "source", "type"} <= event.keys()
                assert event["specversion"] == "1.0"
                assert message.message_id == event["id"]
                read.append(event)
                await message.ack()
                if len(read) == 300:
                    break
    assert [event["id"] for event in read] == [event_id(event) for event in events]
    assert [event["data"] for event in read] == [json.loads(event.data) for event in events]


async def test_reading_the_copy_ends_with_what_was_there(vhost: str) -> None:
    async with opened(vhost) as bus:
        await bus.make_copy()
        assert [message async for message in bus.read_copy()] == []
        bodies = [b'{"n":%d}' % n for n in range(250)]
        await bus.append_copy([(f"id.{n}", body) for n, body in enumerate(bodies)])
        assert [message async for message in bus.read_copy()] == bodies
        assert await bus.copy_start() == 0


async def test_events_no_stream_took_are_not_taken_for_copied(vhost: str) -> None:
    async with opened(vhost) as bus:
        with pytest.raises(BusUnavailable, match="NO_ROUTE"):
            await bus.append_copy([("id", b"{}")])
        with pytest.raises(BusUnavailable):
            _ = [message async for message in bus.read_copy()]
        await bus.make_copy()
        await bus.append_copy([("id", b"{}")])


# ---- RabbitMQ: what is declared

# `queue_arguments` of capabilities() in rabbit_classic_queue, rabbit_quorum_queue and rabbit_stream_queue of 4.x,
# without those that 4.3 refuses or ignores (x-queue-mode, x-queue-version, x-queue-master-locator, x-max-in-memory-*).
ACCEPTED_BY_4 = {
    "classic": {
        "x-expires", "x-message-ttl", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-max-length",
        "x-max-length-bytes", "x-max-priority", "x-overflow", "x-single-active-consumer", "x-queue-type",
        "x-queue-leader-locator",
    },
    "quorum": {
        "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy", "x-expires", "x-max-length",
        "x-max-length-bytes", "x-overflow", "x-single-active-consumer", "x-queue-type", "x-quorum-initial-group-size",
        "x-delivery-limit", "x-message-ttl", "x-queue-leader-locator",
    },
    "stream": {
        "x-max-length-bytes", "x-queue-type", "x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size",
        "x-queue-leader-locator",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [RabbitSettings().tail, RabbitSettings().copy, *TICKET_ARGUMENTS.values(), CONTROL_ARGUMENTS]
)
def test_every_declared_argument_is_accepted_by_rabbitmq_4(arguments: dict[str, object]) -> None:
    assert arguments.keys() <= ACCEPTED_BY_4[str(arguments.get("x-queue-type", "classic"))]


async def test_a_queue_declared_otherwise_is_used_as_it_is(vhost: str) -> None:
    async with plain_channel(vhost) as channel:
        await channel.declare_exchange(EVENTS_EXCHANGE, "topic", durable=False)
        await channel.declare_queue(ticket_queue(ENGINE), durable=True, arguments={"x-max-length": 5})
        await channel.declare_queue(COPY_STREAM, durable=True, arguments={"x-queue-type": "stream"})
    async with opened(vhost) as bus, listening(bus) as heard, bus.tickets([ENGINE]) as tickets:
        bus.publish("e", [line(1)])
        await heard.until(lambda: heard.lines)
        bus.publish_tickets(ENGINE, 1)
        await (await taken(tickets)).ack()
        await bus.make_copy()
        await bus.append_copy([("id", b"{}")])


async def test_a_gateway_that_stands_still_costs_rabbitmq_a_bounded_queue_of_the_newest(vhost: str) -> None:
    async with opened(vhost, tail_bytes_max=100_000) as bus, plain_channel(vhost) as channel, listening(bus) as heard:
        queue = await fresh_queue(channel, "standing.still", RabbitSettings(tail_bytes_max=100_000).tail)
        await queue.bind(EVENTS_EXCHANGE, "p.#")
        for seq in range(1, 21):
            bus.publish("e", [line(seq, size=50_000)])
            await heard.until(lambda seq=seq: len(heard.lines) == seq)  # type: ignore[misc]
        message = await queue.get()
        assert seq_of(message.body) >= 19


async def test_partitions_keep_each_jobs_order(vhost: str) -> None:
    async with opened(vhost, partitions=4) as bus, listening(bus) as heard:
        bus.publish("e", [line(seq, job=job) for seq in range(1, 21) for job in range(8)])
        await heard.until(lambda: len(heard.lines) == 160)
    for job in range(8):
        assert [seq_of(one) for one in heard.lines if job_id_of(one) == JOB.format(job)] == list(range(1, 21))


# ---- RabbitMQ: what can go wrong


async def test_without_rabbitmq_nothing_waits_and_nothing_raises_but_the_copy() -> None:
    bus = RabbitBus("amqp://guest:guest@127.0.0.1:9/", name="test")
    began = time.monotonic()
    await bus.open()
    heard = Heard()
    async with bus.tail(heard.on_hint, heard.on_bound), bus.tickets([ENGINE]) as tickets, bus.controls("w", print):
        for seq in range(10_000):
            bus.publish("e", [line(seq)])
            bus.publish_tickets(ENGINE, 1)
            bus.send_control("w", b"")
        await tickets.pause()
        await tickets.resume()
        assert not bus.connected
        assert await bus.ticket_count(ENGINE) is None
        with pytest.raises(BusUnavailable):
            await bus.copy_exists()
        with pytest.raises(BusUnavailable):
            await bus.append_copy([("id", b"{}")])
    await bus.close()
    assert time.monotonic() - began < rabbit_link.CALL_S


async def test_a_url_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="amqp://"):
        RabbitBus("localhost:5672", name="test")


@pytest.mark.parametrize(("tickets", "kept"), [("classic", 0), ("quorum", 2)])
async def test_after_a_restart_of_rabbitmq_everything_goes_on(
    rabbit: RabbitServer, vhost: str, tickets: str, kept: int
) -> None:
    async with opened(vhost, tickets=tickets) as bus:
        bus.publish_tickets(ENGINE, 2)
        await until_waiting(bus, ENGINE, 2)
        await bus.make_copy()
        await bus.append_copy([("id.1", b"1")])
        controlled = Heard()
        async with listening(bus) as heard, bus.controls("w", controlled.on_words):
            await asyncio.to_thread(rabbit.stop)
            await until(lambda: not bus.connected)
            bus.publish("e", [line(1)])
            with pytest.raises(BusUnavailable):
                await bus.append_copy([("id.2", b"2")])
            await asyncio.to_thread(rabbit.start)
            await heard.until_bound(2)
            await until(lambda: bus.connected)
            bus.publish("e", [line(2)])
            await heard.until(lambda: heard.lines)
            async with asyncio.timeout(WITHIN_S):
                while not controlled.words:
                    bus.send_control("w", b"stop")
                    await asyncio.sleep(0.01)
        assert heard.lines == [line(2)]
        assert await bus.ticket_count(ENGINE) == kept  # what is lost, the sweeper announces again
        bus.publish_tickets(ENGINE, 2 - kept)
        async with bus.tickets([ENGINE]) as arriving:
            await (await taken(arriving)).ack()
            await (await taken(arriving)).ack()
        assert [message async for message in bus.read_copy()] == [b"1"]


async def test_tickets_are_taken_again_after_a_lost_connection(rabbit: RabbitServer, vhost: str) -> None:
    async with opened(vhost) as bus, bus.tickets([ENGINE]) as tickets:
        bus.publish_tickets(ENGINE, 1)
        lost = await taken(tickets)
        session = bus._consuming.session  # now: soon there is another, which nobody loses
        assert session is not None
        await asyncio.to_thread(rabbit.evaluate, close_connections(vhost))
        async with asyncio.timeout(WITHIN_S):
            await session.lost.wait()
        await lost.ack()  # on a channel that is gone
        again = await taken(tickets)  # RabbitMQ had not got the ack
        await again.ack()
        await until_waiting(bus, ENGINE, 0)


async def test_a_paused_worker_stays_paused_over_a_lost_connection(rabbit: RabbitServer, vhost: str) -> None:
    async with opened(vhost) as bus, listening(bus) as heard, bus.tickets([ENGINE]) as tickets:
        await tickets.pause()
        await asyncio.to_thread(rabbit.evaluate, close_connections(vhost))
        await heard.until_bound(2)
        await until(lambda: bus.connected)
        bus.publish_tickets(ENGINE, 1)
        await until_waiting(bus, ENGINE, 1)
        assert await none_comes(tickets)
        await tickets.resume()
        await (await taken(tickets)).ack()


async def test_a_worker_whose_channel_answers_no_more_takes_tickets_on_another(
    rabbit: RabbitServer, vhost: str
) -> None:
    """As one does that waits for a queue without a leader: its connection lives, its goodbyes are not answered."""
    of_vhost = f'<<"{urlsplit(vhost).path.removeprefix("/")}">>'
    consuming = (
        "[P || P <- rabbit_channel:list(), I <- [rabbit_channel:info(P, [vhost, consumer_count])], "
        f"proplists:get_value(vhost, I) =:= {of_vhost}, proplists:get_value(consumer_count, I) > 0]"
    )
    async with opened(vhost) as bus, bus.tickets([ENGINE]) as tickets:
        bus.publish_tickets(ENGINE, 1)
        await (await taken(tickets)).ack()
        frozen = await asyncio.to_thread(
            rabbit.evaluate, f"[begin sys:suspend(P), pid_to_list(P) end || P <- {consuming}]."
        )
        assert frozen.count("<") == 1
        try:
            await tickets.pause()
            await tickets.resume()
            bus.publish_tickets(ENGINE, 2)  # the frozen consumer may still be given one
            await (await taken(tickets)).ack()
        finally:
            await asyncio.to_thread(rabbit.evaluate, f"[sys:resume(list_to_pid(P)) || P <- {frozen.strip()}].")
        await (await taken(tickets)).ack()  # what the frozen one was given
        assert bus.connected


async def test_a_queue_deleted_from_outside_is_made_anew(rabbit: RabbitServer, vhost: str) -> None:
    async with opened(vhost) as bus, listening(bus) as heard, bus.tickets([ENGINE]) as tickets:
        bus.publish_tickets(ENGINE, 1)
        await (await taken(tickets)).ack()
        await asyncio.to_thread(rabbit.evaluate, delete_queues(vhost))
        await heard.until_bound(2)
        async with asyncio.timeout(WITHIN_S):
            while not heard.lines:  # RabbitMQ may end the connection for what happened to its queues: lost, as any may
                bus.publish("e", [line(1)])
                await asyncio.sleep(0.05)
            # It nacks what reaches a quorum queue while it is being made again (seen once in ten).
            bus.publish_tickets(ENGINE, 1)
            while await none_comes(tickets):
                bus.publish_tickets(ENGINE, 1)


async def test_a_ticket_for_a_deleted_queue_makes_it_anew(vhost: str) -> None:
    async with opened(vhost) as bus, plain_channel(vhost) as channel:
        bus.publish_tickets(ENGINE, 1)
        await until_waiting(bus, ENGINE, 1)
        await channel.queue_delete(ticket_queue(ENGINE))
        bus.publish_tickets(ENGINE, 2)
        async with asyncio.timeout(WITHIN_S):
            while not await bus.ticket_count(ENGINE):  # a nack as above loses them; the sweeper asks again
                bus.publish_tickets(ENGINE, 1)
                await asyncio.sleep(0.05)


async def test_a_deleted_exchange_is_made_anew(vhost: str) -> None:
    async with opened(vhost) as bus, plain_channel(vhost) as channel, listening(bus) as heard:
        await channel.exchange_delete(EVENTS_EXCHANGE)
        bus.publish("e", [line(1)])  # RabbitMQ closes the channel for it
        async with asyncio.timeout(WITHIN_S), listening(bus) as fresh:
            while not fresh.lines:
                bus.publish("e", [line(2)])
                await asyncio.sleep(0.05)
    assert heard.bound == 1


async def test_a_frozen_rabbitmq_costs_a_deadline_not_the_publisher(
    rabbit: RabbitServer, vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rabbit_link, rabbit_publish):
        monkeypatch.setattr(module, "CALL_S", 0.5)
    async with opened(vhost) as bus, listening(bus) as heard:
        rabbit.pause()
        try:
            began = time.monotonic()
            while bus.connected:
                before = time.monotonic()
                bus.publish("e", [line(1, size=60_000)] * 4)
                assert time.monotonic() - before < 0.5
                await asyncio.sleep(0.01)
                assert time.monotonic() - began < WITHIN_S
            assert await bus.ticket_count(ENGINE) is None
        finally:
            rabbit.resume()
        await until(lambda: bus.connected)
        async with asyncio.timeout(WITHIN_S):
            while line(2) not in heard.lines:
                bus.publish("e", [line(2)])
                await asyncio.sleep(0.01)


async def test_closing_ends_even_when_rabbitmq_is_frozen(rabbit: RabbitServer, vhost: str) -> None:
    async with opened(vhost) as bus, listening(bus), bus.tickets([ENGINE]) as tickets:
        bus.publish_tickets(ENGINE, 1)
        await (await taken(tickets)).ack()
        rabbit.pause()
        try:
            bus.publish("e", [line(1, size=60_000)] * 100)
            began = time.monotonic()
            await bus.close()
            assert time.monotonic() - began < 5.0
        finally:
            rabbit.resume()


def close_connections(vhost: str) -> str:
    name = urlsplit(vhost).path[1:]
    return (
        f'[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections(), '
        f'[{{vhost, <<"{name}">>}}] =:= rabbit_networking:connection_info(P, [vhost])].'
    )


def delete_queues(vhost: str) -> str:
    name = urlsplit(vhost).path[1:]
    return f'[rabbit_amqqueue:delete(Q, false, false, <<"test">>) || Q <- rabbit_amqqueue:list(<<"{name}">>)].'
