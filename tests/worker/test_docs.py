"""What docs/engines.md shows is a program, and it runs."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from events.catalog import Complete
from events.declaration import InvalidParams, find_engine, installed_engines
from tests.builders import story
from tests.worker.scene import MODULES, Scene

ROOT = Path(__file__).parents[2]


def shown() -> list[str]:
    """The page's programs."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/engines.md").read_text(), re.DOTALL)


@pytest.fixture
def my_engine(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> Iterator[str]:
    """The example, importable here and so in children."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    scene.engines = installed_engines([*MODULES, "my_engine"])
    yield "my_engine"
    sys.modules.pop("my_engine")


def test_the_page_shows_the_example():
    assert shown()[0] == (ROOT / "examples/my_engine.py").read_text()


def test_what_the_page_says_of_tests_is_true(my_engine: str):
    for program in shown()[1:]:
        exec(compile(program, "docs/engines.md", "exec"), {})
    assert len(shown()) == 3


async def test_the_example_runs(scene: Scene, my_engine: str):
    async with scene.worker(engine_modules=(my_engine,)):
        job_id = await scene.submit("count_words", text="as slowly as you like", seconds_per_word=0.0)
        stream = await scene.end(job_id)
    complete = stream[-1].event()
    assert isinstance(complete, Complete), story(stream)
    assert complete.results == {"words": 5, "longest": "slowly"}
    types = [row.type for row in stream if row.type != "progress"]
    assert types == ["submitted", "started", "checkpoint", "partial", "partial", "log", "complete"]


def test_the_example_refuses_what_it_cannot_do(my_engine: str):
    engine = find_engine("count_words", [my_engine])
    assert engine.check
    with pytest.raises(InvalidParams, match="text: has no words"):
        engine.check(engine.params.model_validate({"text": "  "}))
    with pytest.raises(ValidationError):
        engine.params.model_validate({"text": ""})


def test_an_engine_nobody_installed_is_named():
    with pytest.raises(LookupError, match="no engine 'juggling' is installed here"):
        find_engine("juggling", MODULES)
