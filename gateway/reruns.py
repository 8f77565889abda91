"""Rerun: a new job from an old one, reusing what its phases recorded before a given phase."""

from aiohttp import web

from events.catalog import Checkpoint, Submitted
from events.errors import UnknownJob
from events.log import Log
from gateway.bodies import asked, checked, read_object
from gateway.deps import DEPS, ENGINES
from gateway.engines import KnownEngine
from gateway.jobs import made, row_of
from gateway.problems import invalid
from gateway.schemas import RerunBody
from gateway.submissions import Draft, accept, replayed


async def rerun(request: web.Request) -> web.Response:
    """`POST /api/v1/jobs/{id}/rerun`. A phase before `from_phase` that recorded nothing is computed again."""
    plain = await read_object(request, optional=True)
    ask = asked(request, plain)
    if earlier := await replayed(request, ask):  # found before anything is checked again
        return made(request, earlier, "replayed", sent=False)
    engine, draft = await again(request, (await row_of(request)).job.id, checked(RerunBody, plain))
    return made(request, *await accept(request, engine, draft, ask), sent=False)


async def again(request: web.Request, source_id: str, body: RerunBody) -> tuple[KnownEngine, Draft]:
    """A new job to be made from this one of the tenant's, with its unique key: refused while another job has that."""
    log = request.app[DEPS].log
    source = await _submitted(log, source_id)
    engine = await request.app[ENGINES].get(source.engine)
    before = _phases_before(engine, body.from_phase)
    job_id = request.app[DEPS].committer.new_job_id()
    draft = Draft(
        params=source.params if body.params is None else body.params,
        priority=source.priority,
        max_attempts=source.max_attempts,
        max_losses=source.max_losses,
        timeouts=source.timeouts,
        tags=source.tags,
        unique_key=source.unique_key,
        unique_mode="refuse",
        webhook=source.webhook,
        concurrency=source.concurrency,
        rerun_of=source_id,
        from_phase=body.from_phase,
        reused=tuple(_moved(checkpoint, job_id) for checkpoint in await _reusable(log, source_id, before)),
        job_id=job_id,
    )
    return engine, draft


def _phases_before(engine: KnownEngine, from_phase: str | None) -> tuple[str, ...]:
    names = tuple(phase.name for phase in engine.phases)
    if from_phase is None:
        return ()
    if from_phase not in names:
        message = f"{from_phase!r} is no phase of {engine.row.name}; its phases are {', '.join(names)}"
        raise invalid([("from_phase", message)])
    return names[: names.index(from_phase)]


def _moved(checkpoint: Checkpoint, job_id: str) -> Checkpoint:
    """The checkpoint as the new job's own: its bytes are copied, so their address names the new job too."""
    ref = checkpoint.output_ref
    if ref is None:
        return checkpoint
    url = f"/api/v1/jobs/{job_id}/artifacts/{ref.sha256}"
    return checkpoint.model_copy(update={"output_ref": ref.model_copy(update={"url": url})})


async def _submitted(log: Log, job_id: str) -> Submitted:
    page = await log.read(job_id, 0, limit=1)
    event = page[0].event() if page else None
    if not isinstance(event, Submitted):
        raise UnknownJob
    return event


async def _reusable(log: Log, job_id: str, phases: tuple[str, ...]) -> tuple[Checkpoint, ...]:
    """Large outputs of an archived job are not at hand for a new one: those phases are computed again."""
    found = await _recorded(log, job_id, phases)
    if any(checkpoint.output_ref for checkpoint in found) and await log.archived([job_id]):
        return tuple(checkpoint for checkpoint in found if checkpoint.output_ref is None)
    return found


async def _recorded(log: Log, job_id: str, phases: tuple[str, ...]) -> tuple[Checkpoint, ...]:
    """The last checkpoint of each of these phases, in the order of the phases."""
    found: dict[str, Checkpoint] = {}
    for recorded in await log.checkpoints(job_id) if phases else []:
        event = recorded.event()
        assert isinstance(event, Checkpoint)
        found[event.phase] = event
    return tuple(found[name] for name in phases if name in found)
