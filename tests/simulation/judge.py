"""What must hold after a run: `phaseline verify` over the simulated servers and what clients saw, and what only a
simulator can know: that everything acknowledged is there once, and everything an engine said, counted."""

import re
from collections import Counter

from events.catalog import TERMINAL
from events.cloudevents import event_id
from events.errors import PhaselineError
from events.record import Recorded
from events.values import decode
from phaseline.verify import verify
from tests.simulation.bus import SimBus
from tests.simulation.clients import Memory
from tests.simulation.log import SimLog
from tests.simulation.world import World

COPY_S = 60.0  # after everything is healed


async def judge(world: World, memory: Memory) -> None:
    """Tells the world of everything that is wrong. Every job has ended, the sweepers still run."""
    log, bus = SimLog(world.database), SimBus(world.broker)
    await log.open()
    await bus.open()
    try:
        await verify(log, bus, memory.recordings, settled=True, copy_wait_s=COPY_S)
    except PhaselineError as broken:
        world.wrong(f"{type(broken).__name__}: {broken}")
    finally:
        await bus.close()
        await log.close()
    for job_id, events in world.database.events.items():
        for problem in _counted(events):
            world.wrong(f"job {job_id[-4:]}: {problem}")
    _submits(world, memory)


def _counted(events: list[Recorded]) -> list[str]:
    """What a scripted engine said is numbered: within an attempt nothing is missing, doubled or out of order."""
    problems = []
    said = 0
    for row in events:
        if row.type == "started":
            said = 0
        if (number := _number(row)) is not None:
            said += 1
            if number != (row.attempt, said):
                problems.append(f"{row.seq} ({row.type}) says {number}, expected {(row.attempt, said)}")
        if (in_all := _said_in_all(row)) is not None and in_all != said:
            problems.append(f"{row.seq} ({row.type}): the engine had said {in_all} things, recorded are {said}")
    openings, ends = 1 + sum(row.type == "reopened" for row in events), sum(row.type in TERMINAL for row in events)
    if openings != ends:
        problems.append(f"{ends} terminal events in {openings} openings")
    return problems


def _number(row: Recorded) -> tuple[int, int] | None:
    held = {"log": "fields", "partial": "value", "checkpoint": "output"}.get(row.type)
    value = decode(row.data).get(held) if held else None
    if row.attempt == 0 or not isinstance(value, dict):
        return None  # the checkpoints of a rerun were counted elsewhere
    return value["a"], value["n"]


def _said_in_all(row: Recorded) -> int | None:
    fields = decode(row.data)
    if row.type == "complete" and isinstance(fields.get("results"), dict):
        return int(fields["results"]["n"])
    message = {"retry": fields.get("error", {}), "error": fields}.get(row.type, {})
    if isinstance(message, dict) and (found := re.fullmatch(r"failed after (\d+)", message.get("message", ""))):
        return int(found[1])
    return None


def _submits(world: World, memory: Memory) -> None:
    """Everything acknowledged is there, once; what was asked for with a key is there at most once."""
    marks = Counter(tag for row in world.database.rows.values() if row.rerun_of is None for tag in row.tags)
    for asked in memory.asked:
        if asked.job_id and asked.job_id not in world.database.rows:
            world.wrong(f"job {asked.job_id} was acknowledged and does not exist")
        if asked.mark and asked.job_id and marks[asked.mark] != 1:
            world.wrong(f"{asked.mark} was acknowledged and exists {marks[asked.mark]} times")
        if asked.mark and marks[asked.mark] > (1 if asked.key else asked.sent):
            world.wrong(f"{asked.mark} was asked for {asked.sent} times and exists {marks[asked.mark]} times")


def copied(world: World) -> bool:
    """Whether the copy holds every event by now."""
    names = {name for name, _ in world.broker.copy or ()}
    return all(event_id(row) in names for rows in world.database.events.values() for row in rows)
