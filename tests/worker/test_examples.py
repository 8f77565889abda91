"""Every engine of examples/ runs, and does what its first line says."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from events.declaration import InvalidParams, find_engine, installed_engines
from events.record import Recorded
from tests.builders import story
from tests.worker.scene import MODULES, Scene

EXAMPLES = Path(__file__).parents[2] / "examples"
ENGINES = {
    "map_items": "map_items",
    "my_engine": "count_words",
    "sales_report": "sales_report",
    "subprocess_log": "run_command",
    "ten_lines": "greet",
    "token_stream": "answer",
}


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> Iterator[tuple[str, ...]]:
    """All of them, importable here and so in children."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    scene.engines = installed_engines([*MODULES, *ENGINES])
    yield (*MODULES, *ENGINES)
    for module in ENGINES:
        sys.modules.pop(module, None)


def fields(stream: list[Recorded], kind: str) -> list[Any]:
    return [row.event() for row in stream if row.type == kind]


def only(stream: list[Recorded], kind: str) -> Any:
    found = fields(stream, kind)
    assert len(found) == 1, story(stream)
    return found[0]


def test_every_file_of_the_folder_is_an_engine_that_is_run_here(examples: tuple[str, ...]):
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(ENGINES)
    for module, name in ENGINES.items():
        assert find_engine(name, [module]).name == name


async def test_ten_lines_are_an_engine(scene: Scene, examples: tuple[str, ...]):
    code = [
        line for line in (EXAMPLES / "ten_lines.py").read_text().splitlines() if line and not line.startswith('"""')
    ]
    assert len(code) <= 10
    async with scene.worker(engine_modules=examples):
        stream = await scene.end(await scene.submit("greet", name="you"))
    assert only(stream, "complete").results == "Hello, you!"


async def test_sales_are_added_up_by_pandas_and_what_was_read_is_recorded(scene: Scene, examples: tuple[str, ...]):
    csv = "shop,day,amount\nnorth,2026-10-01,10.5\nsouth,2026-10-02,1\nnorth,2026-11-03,4\nnorth,2026-10-31,2.5\n"
    async with scene.worker(engine_modules=examples):
        stream = await scene.end(await scene.submit("sales_report", csv=csv))
    done = only(stream, "complete").results
    assert done == {"rows": 4, "by_shop": {"north": 17.0, "south": 1.0}, "best_month": "2026-10"}
    assert [event.value["shop"] for event in fields(stream, "partial")] == ["north", "south"]
    assert len(only(stream, "checkpoint").output) == 3


def test_a_table_without_its_columns_is_refused_at_submit(examples: tuple[str, ...]):
    engine = find_engine("sales_report", examples)
    assert engine.check
    with pytest.raises(InvalidParams, match="csv: has no column amount, day"):
        engine.check(engine.params.model_validate({"csv": "shop,x\n1,2\n"}))


async def test_each_line_a_command_prints_is_a_log_event_and_its_exit_code_decides(
    scene: Scene, examples: tuple[str, ...]
):
    async with scene.worker(engine_modules=examples):
        counted = await scene.end(await scene.submit("run_command", command="count"))
        failed = await scene.end(await scene.submit("run_command", command="fail"))
    assert [event.message for event in fields(counted, "log")] == [f"line {n}" for n in range(5)]
    assert only(counted, "complete").results == {"lines": 5}
    assert [event.message for event in fields(failed, "log")] == ["nothing to see", "no such file"]
    assert only(failed, "error").message == "exit code 1: nothing to see / no such file"


async def test_a_command_ends_with_its_job(scene: Scene, examples: tuple[str, ...]):
    async with scene.worker(engine_modules=examples):
        job_id = await scene.submit("run_command", command="wait")
        await scene.event(job_id, "log")
        [command] = [
            process for process in psutil.Process().children(recursive=True) if "waiting" in " ".join(process.cmdline())
        ]
        await scene.cancel(job_id)
        stream = await scene.end(job_id)
        assert not command.is_running()
    assert stream[-1].type == "cancelled"


async def test_the_parts_of_an_answer_put_together_are_the_answer(scene: Scene, examples: tuple[str, ...]):
    async with scene.worker(engine_modules=examples):
        stream = await scene.end(await scene.submit("answer", prompt="once upon a time", words=60))
    parts = [event.value for event in fields(stream, "partial")]
    answer = only(stream, "complete").results
    assert "".join(parts) == answer["text"]
    assert answer["tokens"] == 60
    assert 2 <= len(parts) < 30


async def test_an_answer_that_is_stopped_keeps_what_was_said(scene: Scene, examples: tuple[str, ...]):
    async with scene.worker(engine_modules=examples):
        job_id = await scene.submit("answer", prompt="and so on", words=10_000)
        await scene.event(job_id, "partial")
        await scene.cancel(job_id)
        stream = await scene.end(job_id)
    said = "".join(event.value for event in fields(stream, "partial"))
    kept = only(stream, "cancelled").results
    assert kept["text"].startswith(said)
    assert 0 < kept["tokens"] < 10_000


async def test_of_a_map_killed_half_way_no_recorded_item_is_done_again(
    scene: Scene, examples: tuple[str, ...], tmp_path: Path
):
    items = [f"item-{n:03}" for n in range(100)]
    journal = tmp_path / "journal"
    async with scene.worker(engine_modules=examples):
        job_id = await scene.submit("map_items", items=items, journal=str(journal), seconds_per_item=0.02)
        recorded = await scene.event(job_id, "checkpoint", where=lambda event: len(event.output) >= 10)
        [child] = [each for each in psutil.Process().children() if "engine_worker.child" in " ".join(each.cmdline())]
        os.kill(child.pid, signal.SIGKILL)
        stream = await scene.end(job_id)

    assert only(stream, "complete").results == {"items": 100, "letters": 800}, story(stream)
    assert only(stream, "retry").error.code == "killed"
    done = [line.split() for line in journal.read_text().splitlines()]
    assert {attempt for attempt, _, _ in done} == {"1", "2"}
    times = Counter(item for _, _, item in done)
    assert set(times) == set(items)
    # What the last checkpoint before the kill holds was done once; what came after it, at most twice.
    before = [row for row in stream if row.type == "checkpoint" and row.attempt == 1]
    kept = len(before[-1].event().output)  # type: ignore[union-attr]
    assert kept >= len(recorded.event().output) >= 10  # type: ignore[union-attr]
    assert {times[item] for item in items[:kept]} == {1}
    assert max(times.values()) <= 2
