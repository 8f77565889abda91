"""The life of an attempt, told by the engine that does a little of everything."""

from events.catalog import Complete, Progress
from tests.builders import story
from tests.worker.scene import Scene


async def test_a_countdown_is_told_in_order_from_submit_to_complete(scene: Scene):
    async with scene.worker():
        job_id = await scene.submit("countdown", steps=5, step_s=0.0)
        stream = await scene.end(job_id)
    assert story(stream) == []
