"""What earlier attempts recorded, for an engine that starts again."""

from typing import Any

from events.catalog import Checkpoint
from events.job import Job
from events.log import Log
from events.values import decode


async def recorded_outputs(log: Log, job: Job) -> dict[str, Any]:
    """The outputs of the job's recorded phases, the newest of each. Raises `LogUnavailable`.

    An output whose stored bytes are gone is left out: its phase is computed again.
    """
    checkpoints: dict[str, Checkpoint] = {}
    wanted = set(decode(job.recorded_phases))
    for recorded in await log.checkpoints(job.id) if wanted else []:
        if isinstance(event := recorded.event(), Checkpoint):
            checkpoints[event.phase] = event
    outputs = {}
    for phase in wanted & set(checkpoints):
        ref = checkpoints[phase].output_ref
        if ref is None:
            outputs[phase] = checkpoints[phase].output
        elif (body := await log.artifact(job.id, ref.sha256)) is not None:
            outputs[phase] = decode(body)
    return outputs
