"""An engine with a subject is given the result of the job before it, about the same subject."""

import hashlib
from typing import Any

import pytest
from pydantic import BaseModel

from events.catalog import Complete
from events.declaration import SUBJECT_BYTES_MAX, subject_of
from events.values import encode
from phaseline import Context, engine
from tests.worker.scene import Scene


async def returned(scene: Scene, job_id: str) -> Any:
    """What a job's engine returned, once it did."""
    event = (await scene.event(job_id, "complete")).event()
    assert isinstance(event, Complete)
    if event.results_ref is None:
        return event.results
    return await scene.log.artifact(job_id, event.results_ref.sha256)


async def remembered(scene: Scene, **fields: Any) -> tuple[str, Any]:
    """A job of a worker that runs, and what its engine knew of the one before."""
    job_id = await scene.submit("remembering", **fields)
    return job_id, (await returned(scene, job_id))["before"]


async def test_an_engine_is_given_the_newest_completed_job_about_its_subject(scene: Scene):
    async with scene.worker():
        first, nothing = await remembered(scene, kind="team", path="a")
        second, before = await remembered(scene, kind="team", path="a")
        _, then = await remembered(scene, kind="team", path="a")
    text = encode({"before": None, "bulk": ""})
    assert nothing is None
    assert before == {
        "job_id": first,
        "sha256": hashlib.sha256(text).hexdigest(),
        "result": {"before": None, "bulk": ""},
    }
    assert then["job_id"] == second
    assert then["result"]["before"]["job_id"] == first


async def test_another_subject_tenant_or_nobody_is_no_job_before(scene: Scene):
    async with scene.worker():
        await remembered(scene, kind="team", path="a")
        assert (await remembered(scene, kind="team", path="b"))[1] is None
        assert (await remembered(scene, kind="team", path="a", tenant="other"))[1] is None
        await remembered(scene, path="a")  # no kind: about nobody
        assert (await remembered(scene, path="a"))[1] is None


async def test_what_ended_after_the_submit_is_not_seen(scene: Scene):
    one = await scene.submit("remembering", kind="team")
    other = await scene.submit("remembering", kind="team")
    async with scene.worker():  # one after the other, both submitted before either ended
        assert (await returned(scene, one))["before"] is None
        assert (await returned(scene, other))["before"] is None


async def test_an_attempt_after_a_death_is_given_the_same_job(scene: Scene):
    async with scene.worker():
        first, _ = await remembered(scene, kind="team")
        dying = await scene.submit("remembering", kind="team", number=-1)
        told = (await scene.event(dying, "partial")).event()
        await remembered(scene, kind="team")  # one worker slot: it may run before the second attempt or after
        again = (await returned(scene, dying))["before"]
    assert again["job_id"] == first
    assert told.value == again  # type: ignore[union-attr]


async def test_a_failed_job_is_no_decision_to_look_back_at(scene: Scene):
    async with scene.worker():
        first, _ = await remembered(scene, kind="team")
        failed = await scene.submit("remembering", kind="team", number=-1, max_attempts=1)
        await scene.event(failed, "error")
        assert (await remembered(scene, kind="team"))[1]["job_id"] == first


async def test_a_large_result_is_handed_over_and_a_larger_one_only_named(scene: Scene):
    async with scene.worker():
        first, _ = await remembered_bytes(scene, 300_000)
        second, before = await remembered_bytes(scene, 1_100_000)
        _, then = await remembered(scene, kind="team")
    assert before == first
    assert then["job_id"] == second
    assert then["result"] is None


async def remembered_bytes(scene: Scene, size: int) -> tuple[str, Any]:
    job_id = await scene.submit("remembering", kind="team", number=size)
    body = await returned(scene, job_id)
    head = bytes(body[: body.index(b',"bulk"')]).partition(b":")[2]
    return job_id, None if head == b"null" else head.strip(b'"').decode()


class Asked(BaseModel):
    """Params with a subject."""

    team: int | None = None
    source: str | None = None


def test_a_subject_is_the_values_it_names_and_short():
    @engine("asked", version=1, phases={"all": 100}, subject=("team", "source"))
    def asked(params: Asked, context: Context) -> None:
        """Does nothing."""

    schema = asked.params_schema()
    assert subject_of(schema, {"team": 7, "source": None}) == "[7,null]"
    assert subject_of(schema, {"team": 7}) == "[7,null]"
    assert subject_of(schema, {"team": None, "source": "live"}) is None
    long = subject_of(schema, {"team": 7, "source": "x" * SUBJECT_BYTES_MAX})
    assert long is not None
    assert len(long) == 64
    assert subject_of(Asked.model_json_schema(), {"team": 7}) is None


def test_a_subject_of_params_nobody_has_is_refused():
    with pytest.raises(ValueError, match="name"):

        @engine("asked", version=1, phases={"all": 100}, subject=("name",))
        def asked(params: Asked, context: Context) -> None:
            """Does nothing."""
