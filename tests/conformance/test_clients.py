"""One set of scenarios, as data, for the Python and the JavaScript client: the same faults, the same expected sequences.

`plays.json`: what a server nobody runs might send, frame by frame. `runs.json`: real jobs on a real gateway behind a line
that breaks. `calls.json`: calls over that line. The fields are read here and in `judge.py`.
"""

import asyncio
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import pytest
import pytest_asyncio

from tests.cli.scripted import JOB, scripted
from tests.conformance.judge import BOUND_S, HERE, Driver, Followed, Scenario, driver, play, scenarios
from tests.installation import Api, Installation, api, embedded, running
from tests.integration.conftest import ENVIRONMENT
from tests.node import installed
from tests.proxy import DOWN, Proxy, proxy_to

JAVASCRIPT = HERE.parents[1] / "clients" / "js"
# Over server-sent events it is the same client behind another pipe, which the JavaScript tests know too.
CLIENTS = ["python", "javascript", pytest.param("javascript over sse", marks=pytest.mark.slow)]
KNOCKS = 3  # of a client on a line that is cut, until it is healed

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def node_modules() -> None:
    installed(JAVASCRIPT)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLIENTS)
async def client(request: pytest.FixtureRequest, node_modules: None) -> AsyncIterator[Driver]:
    """Each client in turn."""
    if request.param == "python":
        command = [sys.executable, str(HERE / "driver.py")]
    else:
        command = [shutil.which("node") or "node", str(JAVASCRIPT / "test" / "conformance.js")]
    async with driver(command, ["sse"] if request.param.endswith("sse") else None) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phaseline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with running(embedded(tmp_path_factory.mktemp("conformance"), **ENVIRONMENT)) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(phaseline: Installation) -> AsyncIterator[Api]:
    async with api(phaseline.url) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def line(phaseline: Installation) -> AsyncIterator[Proxy]:
    async with proxy_to(phaseline.url) as made:
        yield made


def each(name: str) -> list[Any]:
    """The scenarios of a file as parameters, each named by its promise."""
    found = scenarios(name)
    assert found
    return [pytest.param(one, id=one["promise"], marks=[pytest.mark.slow] if one.get("slow") else []) for one in found]


@pytest.mark.parametrize("scenario", each("plays"))
@pytest.mark.parametrize("client", ["python", "javascript"], indirect=True)  # the frames are those of a WebSocket
async def test_what_a_server_sends_frame_by_frame_gives_the_sequences_expected(client: Driver, scenario: Scenario):
    expect = scenario["expect"]

    async def handle(seq: int) -> bool:
        return seq != scenario.get("leave_at")

    asked = {"do": "follow", "job": JOB} | {name: scenario[name] for name in ("after", "epoch") if name in scenario}
    async with scripted(*map(play, scenario["plays"])) as server:
        found = await client.run(server.url, asked, handle)
    queries = [{name: value for name, value in query.items() if name != "batch"} for query in server.queries]
    assert queries == expect["asked"]
    assert found.failed == expect.get("failed")
    assert found.resets == expect.get("resets", [])
    if "events" in expect:
        assert found.events == [tuple(one) for one in expect["events"]]
    else:
        assert found.seqs == expect["seqs"]
    for name, heard in {"status": "status", "epoch": "epoch", "position": "after"}.items():
        if name in expect:
            assert found.end[heard] == expect[name], name
    if "connections" in expect:
        # What is shown once the follow is over is each library's own affair.
        assert found.connections[: len(expect["connections"])] == expect["connections"]
        assert found.connections[len(expect["connections"]) :] in ([], ["waiting"])


@pytest.mark.parametrize("scenario", each("runs"))
async def test_a_job_behind_a_line_that_breaks_is_seen_whole(
    client: Driver, phaseline: Installation, http: Api, line: Proxy, scenario: Scenario
):
    async with Stage(phaseline, http, line) as stage:
        job_id = await stage.job(scenario)
        stage.set_up(scenario.get("line", {}))
        found = await stage.follow(client, job_id, scenario)
        made = line.connections
    expect = scenario["expect"]
    if "failed" in expect:
        assert found.failed in expect["failed"]
        return
    assert found.failed is None
    recorded = [(event["seq"], event["type"]) for event in await http.events(job_id)]
    head = recorded[-1][0]
    first = head if expect["from"] == "head" else expect["from"]
    assert found.events == recorded[first - 1 :]
    assert [head if seq == "head" else seq for seq in expect.get("resets", [])] == found.resets
    assert found.end["status"] == expect["status"]
    assert found.end["after"] == head
    assert made >= expect.get("connections_min", 1)
    types = [kind for _, kind in found.events]
    if "says" in expect:
        assert _in_short(types) == expect["says"]
    assert expect.get("includes", types[-1]) in types


@pytest.mark.parametrize("scenario", each("calls"))
@pytest.mark.parametrize("client", ["python", "javascript"], indirect=True)
async def test_a_call_over_a_line_that_breaks_ends_as_expected(
    client: Driver, phaseline: Installation, http: Api, line: Proxy, scenario: Scenario
):
    expect, tag = scenario["expect"], uuid.uuid4().hex
    async with Stage(phaseline, http, line) as stage:
        job_id = await stage.job({"ended": True, **scenario})
        stage.set_up(scenario.get("line", {}))
        asked = scenario["call"] | {"job": job_id, "with": {"tags": [tag], **scenario["call"].get("with", {})}}
        found = await client.run(line.url, asked)
        made = line.connections
    assert found.failed == expect.get("failed")
    for name, value in expect.get("end", {}).items():
        assert found.end[name] == (job_id if value == "JOB" else value)
    if "events_from" in expect:
        assert found.end == list(range(expect["events_from"], len(await http.events(job_id)) + 1))
    assert made >= expect.get("connections_min", 0)
    if "jobs" in expect:
        assert len((await http.get(f"/api/v1/jobs?tag={tag}"))["jobs"]) == expect["jobs"]


class Stage:
    """Does to the server and the line what a scenario says, and waits for what it began."""

    def __init__(self, phaseline: Installation, http: Api, line: Proxy) -> None:
        self._phaseline = phaseline
        self._http = http
        self._line = line
        self._begun = asyncio.TaskGroup()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(asyncio.timeout(2 * BOUND_S))
        await self._open.enter_async_context(self._begun)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.heal()
        await self._open.__aexit__(kind, error, trace)

    async def job(self, scenario: Scenario) -> str:
        """The job of a scenario, submitted without detours; an id nobody has when it has none."""
        if "job" not in scenario:
            return "01a20cae-f0fd-7c5c-90af-8d1914daffc9"
        job_id = await self._http.submit("countdown", **scenario["job"])
        if scenario.get("ended"):
            await self._end(job_id)
        if scenario.get("first") == "retry":
            await self._http.post(f"/api/v1/jobs/{job_id}/retry", {}, 202)
        return job_id

    def set_up(self, line: dict[str, Any]) -> None:
        """How the line is from the beginning."""
        match line:
            case {"cut_at": counts}:
                self._line.cut_at(*counts)
            case {"limit": bytes_per_s}:
                self._line.limit(bytes_per_s, DOWN)
            case {"delay": seconds}:
                self._line.delay(seconds)
            case {"away": knocks}:
                self._line.cut()
                self._begin_back_after(knocks)
            case _:
                assert not line, line

    async def follow(self, client: Driver, job_id: str, scenario: Scenario) -> Followed:
        """To the end; twice, when the scenario's first reader leaves."""
        position = {name: scenario[name] for name in ("after", "epoch") if name in scenario}
        asked = {"do": "follow", "job": job_id} | position

        async def handle(seq: int) -> bool:
            if what := scenario.get("when", {}).get(str(seq)):
                await self._do(what, job_id)
            return seq != scenario.get("leave_at")

        first = await client.run(self._line.url, asked, handle)
        if "leave_at" not in scenario:
            return first
        assert first.end["after"] == scenario["leave_at"] - 1
        if scenario.get("between") == "restore":
            await self._restore()
        asked |= {"after": first.end["after"], "epoch": first.end["epoch"]}
        then = await client.run(self._line.url, asked)
        if again := scenario["expect"].get("again"):
            assert then.events[0] == first.events.pop()
            assert then.events[0][0] == again
            then.events[:0] = first.events
        return then

    async def _do(self, what: str, job_id: str) -> None:
        match what:
            case "cut":
                self._line.cut()
                self._line.heal()
            case "reset":
                self._line.reset()
            case "away":
                self._line.cut()
                self._begin_back_after(KNOCKS)
            case "stall":
                self._line.stall(DOWN)
                self._begun.create_task(self._flowing_again(job_id))
            case "cancel":
                await self._http.post(f"/api/v1/jobs/{job_id}/cancel", {}, 200)
            case "kill":
                await self._phaseline.kill()
                self._begun.create_task(self._phaseline.start())
            case _:
                raise ValueError(what)

    def _begin_back_after(self, knocks: int) -> None:
        # Bytes that never come would hold the scenario up: a line that stays away is healed by its end.
        if knocks < 1000:
            self._begun.create_task(self._back_after(self._line.connections + knocks))

    async def _back_after(self, connections: int) -> None:
        while self._line.connections < connections:  # noqa: ASYNC110 a proxy has no signal for it; the stage is bounded
            await asyncio.sleep(0.01)
        self._line.heal()

    async def _flowing_again(self, job_id: str) -> None:
        await self._end(job_id)
        self._line.heal()

    async def _end(self, job_id: str) -> None:
        while (await self._http.get(f"/api/v1/jobs/{job_id}"))["finished_at"] is None:  # noqa: ASYNC110 bounded by the stage
            await asyncio.sleep(0.02)

    async def _restore(self) -> None:
        await self._phaseline.stop()
        command = (sys.executable, "-m", "phaseline", "db", "restored")
        restoring = await asyncio.create_subprocess_exec(*command, env=self._phaseline.environment)
        assert await restoring.wait() == 0
        await self._phaseline.start()


def _in_short(types: list[str]) -> list[str]:
    """Without progress, whose number varies, and with neighbours of one type as one."""
    told = [kind for kind in types if kind != "progress"]
    return [kind for place, kind in enumerate(told) if place == 0 or told[place - 1] != kind]
