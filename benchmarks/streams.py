"""What viewers get: how soon, how fast, how many at once."""

import asyncio
import time
from collections.abc import Sequence

import psutil

from benchmarks import floors
from benchmarks.asked import Asked
from benchmarks.bench import Bench, Row, System, an_event
from benchmarks.fill import fill_streams
from benchmarks.measure import FLOOR, Bound, Figure, Results, in_turns
from benchmarks.peering import Peers
from events.batch import Claimed
from tests.builders import a_finish

VIEWERS = 1000
RESULT_BYTES = 80 * 1024
EVENT_BYTES = 230  # of a line of `an_event`, for the bare loop
PACE_S = 0.05  # between two events for a thousand viewers: each is over before the next
WATCHED = 100  # jobs that ten thousand viewers follow
BEHIND = 50  # events missed while a viewer was away


class Live(Row):
    """From the commit, and from before the append, to the bytes at a client of a gateway in another process."""

    async def measure(self, bench: Bench, results: Results) -> None:
        events, shots = bench.size(200, 60), bench.size(40, 15)
        wholes: list[Sequence[float]] = []
        floor_url, table_url = await asyncio.to_thread(bench.new_vhost), await asyncio.to_thread(bench.new_database)
        system = await bench.shared()
        async with (
            Peers(bench, "dbos", "socketio") as peers,
            bench.crowd() as one,
            bench.crowd() as many,
            floors.raw_table(table_url) as table,
            floors.echo(floor_url) as echo,
        ):
            alone, crowded = await system.writer.started(2)
            await _follow(one, system, alone, 1, timed=True)
            await _follow(many, system, crowded, VIEWERS, timed=True)

            async def floor() -> Sequence[float]:
                waits = []
                for _ in range(events):
                    began = time.perf_counter_ns()
                    await table.insert(1)
                    waits.append((await echo.once() - began) / 1e6)
                return waits

            async def ours() -> Sequence[float]:
                waits, whole = await _arrivals(system, one, alone, events, 0.005)
                wholes.append(whole)
                return waits

            async def ours_many() -> Sequence[float]:
                return (await _arrivals(system, many, crowded, shots, PACE_S))[0]

            measures = {"floor": floor, "one": ours, "many": ours_many}
            found = await in_turns(bench.repeats, measures | peers.measures("live", events=events))
        results.add(
            Figure(
                "insert, publish, consume", "ms", found["floor"], FLOOR,
                "drivers alone: one row committed, then there and back through RabbitMQ",
            )
        )  # fmt: skip
        results.add(
            Figure(
                "append → WebSocket, 1 viewer", "ms", wholes, note="from before the append: committed, then seen",
                against=("insert, publish, consume", *peers.titles("live")),
                reach=(Bound("ratio", most=2.5, to="insert, publish, consume"),),
            )
        )  # fmt: skip
        results.add(
            Figure(
                "commit → WebSocket, 1 viewer", "ms", found["one"], reach=(Bound("p50", most=4),),
                note="from just after the commit, in the writing process",
            )
        )  # fmt: skip
        results.add(
            Figure(
                f"commit → WebSocket, {VIEWERS:,} viewers", "ms", found["many"],
                note="every arrival at every viewer counts", reach=(Bound("p50", most=15), Bound("p99", most=40)),
            )
        )  # fmt: skip
        peers.report(results, "live", "write → read, 1 reader", "ms", found)


class FanOut(Row):
    """One job's events to a thousand viewers, as fast as they go."""

    async def measure(self, bench: Bench, results: Results) -> None:
        events = bench.size(200, 60)
        system = await bench.shared()
        async with (
            bench.crowd() as crowd,
            floors.bare_sender(bench) as (bare, bare_url),
            bench.crowd() as bare_crowd,
        ):
            (claimed,) = await system.writer.started(1)
            await _follow(crowd, system, claimed, VIEWERS)
            await bare_crowd.ask("connect", url=bare_url, paths=["/"], each=VIEWERS)
            sent = 0

            async def floor() -> Sequence[float]:
                nonlocal sent
                await bare_crowd.ask("expect", seq=sent + events)
                began = (await bare.ask("send", start=sent + 1, events=events, size=EVENT_BYTES))["began_ns"]
                last = (await bare_crowd.ask("wait"))["last_ns"]
                sent += events
                return [events * VIEWERS / ((last - began) / 1e9)]

            async def ours() -> Sequence[float]:
                head = await _head(system, claimed)
                await crowd.ask("expect", seq=head + events)
                began = time.perf_counter_ns()
                await system.writer.say_many(claimed, events)
                last = (await crowd.ask("wait"))["last_ns"]
                return [events * VIEWERS / ((last - began) / 1e9)]

            found = await in_turns(bench.repeats, {"floor": floor, "ours": ours})
        results.add(
            Figure(
                "bare sends", "messages/s", found["floor"], FLOOR,
                f"an aiohttp server that loops over {VIEWERS:,} sockets with send_str, nothing else",
            )
        )  # fmt: skip
        results.add(
            Figure(
                f"fan-out to {VIEWERS:,} viewers", "messages/s", found["ours"], against=("bare sends",),
                note=f"{events} events, from before the first append to the last viewer's last frame; no batch frames",
                reach=(Bound("ratio", least=0.8, to="bare sends"),),
            )
        )  # fmt: skip


class Large(Row):
    """A large result to a thousand viewers."""

    async def measure(self, bench: Bench, results: Results) -> None:
        reads: list[float] = []
        system = await bench.shared()
        async with bench.crowd() as crowd, floors.bare_sender(bench) as (bare, bare_url):

            async def ours() -> Sequence[float]:
                (claimed,) = await system.writer.started(1)
                await _follow(crowd, system, claimed, VIEWERS)
                head, before = await _head(system, claimed), await _log_reads(system)
                await crowd.ask("expect", seq=head + 1)
                system.writer.noting = True
                await system.writer.committer.execute(claimed.job.id, a_finish(claimed, "x" * RESULT_BYTES))
                last = (await crowd.ask("wait"))["last_ns"]
                reads.append(await _log_reads(system) - before)
                await crowd.ask("drop")
                return [(last - system.writer.committed_ns[claimed.job.id, head + 1]) / 1e6]

            async def floor() -> Sequence[float]:
                await crowd.ask("connect", url=bare_url, paths=["/"], each=VIEWERS)
                await crowd.ask("expect", seq=1)
                began = (await bare.ask("send", start=1, events=1, size=RESULT_BYTES))["began_ns"]
                last = (await crowd.ask("wait"))["last_ns"]
                await crowd.ask("drop")
                return [(last - began) / 1e6]

            found = await in_turns(bench.repeats, {"floor": floor, "ours": ours})
        results.add(Figure("bare sends, last of 1,000", "ms", found["floor"], FLOOR, "an aiohttp loop with send_str"))
        results.add(
            Figure(
                "80 KB result, last of 1,000", "ms", found["ours"], against=("bare sends, last of 1,000",),
                note="from the commit to the last viewer's last byte", reach=(Bound("p50", most=1000),),
            )
        )  # fmt: skip
        results.add(
            Figure(
                "log reads for all viewers", "reads", [[read] for read in reads], reach=(Bound("p50", most=1),),
                note="the result is read and encoded once, then shared",
            )
        )  # fmt: skip


class Replay(Row):
    """A late viewer reads a long stream from its start."""

    async def measure(self, bench: Bench, results: Results) -> None:
        events = bench.size(100_000, 20_000)
        firsts: list[list[float]] = []
        system = await bench.shared()
        async with Peers(bench, "dbos") as peers, bench.crowd() as crowd:
            url = str(system.settings.database_url)
            streams = await fill_streams(system.writer, url, 2 * bench.repeats, events)
            turn = iter(streams)

            async def once(query: str) -> Sequence[float]:
                path = system.path(next(turn), f"after=0{query}")
                found = await crowd.ask("replay", url=system.installation.url, path=path, events=events)
                firsts.append([found["first_ms"]])
                return [events / found["seconds"]]

            async def floor() -> Sequence[float]:
                return await floors.page_reads(url, streams[0])

            async def batched() -> Sequence[float]:
                return await once("&batch=1")

            async def plain() -> Sequence[float]:
                return await once("")

            measures = {"floor": floor, "batched": batched, "plain": plain}
            found = await in_turns(bench.repeats, measures | peers.measures("replay", events=bench.size(10_000, 2_000)))
        each = f"{events:,} events, each time a stream nobody read before, one viewer"
        results.add(Figure("raw page reads", "events/s", found["floor"], FLOOR, "asyncpg, pages of 500 rows"))
        results.add(
            Figure(
                "replay with batch=1", "events/s", found["batched"], note=each, reach=(Bound("p50", least=100_000),),
                against=("raw page reads", *peers.titles("replay")),
            )
        )  # fmt: skip
        results.add(
            Figure(
                "replay, a frame an event", "events/s", found["plain"], note=each, reach=(Bound("p50", least=40_000),),
                against=("raw page reads", *peers.titles("replay")),
            )
        )  # fmt: skip
        results.add(
            Figure(
                "first event of a replay", "ms", firsts, note="from before the connect", reach=(Bound("p50", most=20),)
            )
        )
        peers.report(results, "replay", "read_stream", "events/s", found)


class Crowded(Row):
    """Very many viewers of one gateway who wait."""

    async def measure(self, bench: Bench, results: Results) -> None:
        viewers, window_s = bench.size(10_000, 1_000), bench.size(15, 5)
        await bench.alone()  # a gateway that served many before has room already
        async with bench.system() as system, bench.crowd() as crowd:
            gateway = system.gateway
            jobs = await system.writer.started(WATCHED)
            before = gateway.memory_info().rss
            paths = [system.path(claimed.job.id, "after=2") for claimed in jobs]
            url = system.installation.url
            took = await crowd.ask("connect", url=url, paths=paths, each=viewers // WATCHED)
            each_kib = (gateway.memory_info().rss - before) / viewers / 1024
            await crowd.ask("heartbeats")
            shares: list[list[float]] = []
            for _ in range(bench.repeats):
                shares.append([await _busy(gateway, window_s)])
            heartbeats = (await crowd.ask("heartbeats"))["heartbeats"]
            each_kib = max(each_kib, (gateway.memory_info().rss - before) / viewers / 1024)
        named = f"{viewers:,} idle viewers"
        results.add(
            Figure(
                f"{named}: memory", "KiB each", [[each_kib]], reach=(Bound("p50", most=20),),
                note=f"growth of the gateway's RSS; they follow {WATCHED} jobs",
            )
        )  # fmt: skip
        seen = heartbeats / viewers
        results.add(
            Figure(
                f"{named}: processor", "% of a core", shares, reach=(Bound("p50", most=25),),
                note=f"heartbeats every 15 s and pings every 20 s; {seen:.1f} heartbeats each in {window_s * bench.repeats} s",
            )
        )  # fmt: skip
        results.add(Figure("connects", "viewers/s", [[viewers / took["seconds"]]], note="upgrade, hello, caught up"))


class Reconnect(Row):
    """Every viewer of a gateway comes back at once, each some events behind."""

    async def measure(self, bench: Bench, results: Results) -> None:
        viewers = bench.size(10_000, 1_000)
        reads: list[list[float]] = []
        again: list[list[float]] = []
        system = await bench.shared()
        async with bench.crowd() as crowd:
            jobs = await system.writer.started(WATCHED)
            url = system.installation.url
            heads = {claimed.job.id: await _head(system, claimed) for claimed in jobs}

            async def back() -> dict[str, float]:
                paths = [system.path(job_id, f"after={head}") for job_id, head in heads.items()]
                answer = await crowd.ask("connect", url=url, paths=paths, each=viewers // WATCHED)
                return {name: answer[name] for name in ("seconds", "events", "again")}

            async def ours() -> Sequence[float]:
                await crowd.ask("drop")
                await _no_viewers(system)
                await asyncio.gather(*(system.writer.say_many(claimed, BEHIND) for claimed in jobs))
                before = await _log_reads(system)
                came = await back()
                reads.append([(await _log_reads(system) - before) / WATCHED])
                again.append([came["again"]])
                assert came["events"] == viewers * BEHIND, came
                heads.update({claimed.job.id: await _head(system, claimed) for claimed in jobs})
                return [came["seconds"]]

            await back()
            found = await in_turns(bench.repeats, {"ours": ours})
        results.add(
            Figure(
                f"{viewers:,} reconnects, each {BEHIND} behind", "s", found["ours"], reach=(Bound("p50", most=15),),
                note=f"all dropped, then all back, 200 upgrades under way at a time, until all caught up; {WATCHED} jobs",
            )
        )  # fmt: skip
        results.add(
            Figure(
                "log reads a job and page", "reads", reads, note="shared by all viewers of the job",
                reach=(Bound("p50", most=1),),
            )
        )  # fmt: skip
        results.add(
            Figure("turned away, came back", "viewers", again, note="503, or a connection lost before it caught up")
        )


async def _follow(crowd: Asked, system: System, claimed: Claimed, count: int, *, timed: bool = False) -> None:
    path = system.path(claimed.job.id, f"after={await _head(system, claimed)}")
    await crowd.ask("connect", url=system.installation.url, paths=[path], each=count, timed=timed)


async def _head(system: System, claimed: Claimed) -> int:
    head = await system.writer.log.head(claimed.job.id)
    assert head is not None
    return head.seq


async def _arrivals(
    system: System, crowd: Asked, claimed: Claimed, events: int, pace_s: float
) -> tuple[list[float], list[float]]:
    """Milliseconds from each commit, and from before each append, to its arrival at each viewer."""
    writer, job_id = system.writer, claimed.job.id
    head = await _head(system, claimed)
    await crowd.ask("arrivals")
    await crowd.ask("expect", seq=head + events)
    writer.noting, before = True, {}
    for seq in range(head + 1, head + events + 1):
        before[seq] = time.perf_counter_ns()
        await writer.say(claimed, an_event(seq))
        await asyncio.sleep(pace_s)
    writer.noting = False
    await crowd.ask("wait")
    found = (await crowd.ask("arrivals"))["arrivals"]
    seen = [(seq, at) for seqs, times in found for seq, at in zip(seqs, times, strict=True)]
    committed = writer.committed_ns
    return [(at - committed[job_id, seq]) / 1e6 for seq, at in seen], [(at - before[seq]) / 1e6 for seq, at in seen]


async def _log_reads(system: System) -> float:
    return await system.metric("phaseline_page_reads_total") + await system.metric("phaseline_repairs_total")


async def _no_viewers(system: System) -> None:
    async with asyncio.timeout(60):
        while await system.metric("phaseline_viewers"):  # noqa: ASYNC110 another process's metric
            await asyncio.sleep(0.1)


async def _busy(process: psutil.Process, seconds: float) -> float:
    """Percent of a core a process uses over a while."""
    before, began = process.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return 100 * used / (time.monotonic() - began)
