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
    after = 0
    while wanted and after < job.last_seq and (page := await log.read(job.id, after)):
        for recorded in page:
            if recorded.type == "checkpoint" and isinstance(event := recorded.event(), Checkpoint):
                checkpoints[event.phase] = event
        after = page[-1].seq
    outputs = {}
    for phase in wanted & set(checkpoints):
        ref = checkpoints[phase].output_ref
        if ref is None:
            outputs[phase] = checkpoints[phase].output
        elif (body := await log.artifact(job.id, ref.sha256)) is not None:
            outputs[phase] = decode(body)
    return outputs
