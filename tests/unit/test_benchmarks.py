"""What the benchmark says of its numbers is true: statistics, tables, the kept file, plots."""

import json
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plot
from benchmarks.__main__ import BEGIN, END, ROWS, write_pages
from benchmarks.crowd import Crowd, Viewer, frame
from benchmarks.measure import FLOOR, OURS, Bound, Figure, Results, in_turns, median, number, percentile
from benchmarks.report import Report, aligned, table
from benchmarks.scale import arithmetic

FLOATS = st.lists(st.floats(0.001, 1e9), min_size=1)


@given(FLOATS, st.floats(0, 100))
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(values: list[float], percent: float):
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-6
    smaller = [value for value in values if value < found]
    assert not smaller or sum(value <= max(smaller) for value in values) < len(values) * percent / 100 + 1e-6


def test_percentiles_of_known_values():
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (0, 1, 50, 99, 100)] == [1, 1, 50, 99, 100]
    assert median([3.0, 1.0, 2.0]) == 2
    with pytest.raises(ValueError, match="no values"):
        median([])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0341, "0.0341"), (2.414, "2.41"), (38.24, "38.2"), (99.96, "100.0"), (123.6, "124"), (75_000.0, "75,000")],
)  # fmt: skip
def test_numbers_show_three_figures_that_count(value: float, shown: str):
    assert number(value) == shown


def a_row() -> Results:
    results = Results("noop", "jobs that do nothing")
    results.add(Figure("raw inserts", "events/s", [[100.0], [300.0], [200.0]], FLOOR))
    results.add(
        Figure(
            "jobs", "jobs/s", [[90.0], [110.0], [100.0]], against=("raw inserts", "Celery"),
            reach=(Bound("p50", least=90), Bound("ratio", least=5, to="Celery")),
        )
    )  # fmt: skip
    results.add(Figure("jobs", "jobs/s", [[25.0]], who="Celery", note="one row a job"))
    results.add(Figure("jobs", "jobs/s", [], who="Restate", failed="not installed"))
    return results


def test_a_figure_is_held_against_floors_by_name_and_peers_by_whose_they_are():
    results = a_row()
    ours = results.figures[1]
    assert (results.ratio(ours, "raw inserts"), results.ratio(ours, "Celery")) == (0.5, 4.0)
    assert results.met(ours) is False  # 4x, not 5x
    assert results.met(results.figures[0]) is None


def test_nothing_is_said_to_be_reached_against_a_peer_that_was_not_measured():
    results = a_row()
    against = Figure("jobs", "jobs/s", [[1e9]], against=("Restate",), reach=(Bound("ratio", least=1, to="Restate"),))
    results.add(against)
    assert results.ratio(against, "Restate") is None
    assert results.met(against) is None
    slow = Figure("slow", "jobs/s", [[1.0]], reach=(Bound("p50", least=9), Bound("ratio", least=1, to="Restate")))
    assert results.met(slow) is False


def test_rates_show_their_median_and_range_latencies_their_percentiles():
    assert Figure("a", "", [[90.0], [110.0], [100.0]]).shown() == "100 (90.0–110)"
    assert Figure("a", "", [[1.0, 2.0, 9.0], [2.0, 3.0, 4.0]]).shown() == "p50 2.00, p99 9.00 (p50 2.00–3.00)"
    assert Figure("a", "", [[20.0]]).shown() == "20.0"
    assert Figure("a", "", [], failed="no server").shown() == "not measured: no server"


def test_a_table_has_a_line_a_figure_and_as_many_cells_everywhere():
    lines = table(a_row()).splitlines()
    assert lines[0] == "### noop: jobs that do nothing"
    assert {line.count("|") for line in lines[2:]} == {7}
    assert len(lines) == 2 + 2 + 4
    assert "not measured: not installed" in lines[-1]
    assert "0.50x raw inserts, 4.00x Celery" in lines[5]
    assert "p50 ≥ 90, ≥ 5x Celery ✗" in lines[5]
    assert aligned([("a|b", "c")]).splitlines()[0] == "| a\\|b | c |"


def test_rows_are_kept_beside_each_other_and_replaced_by_their_name(tmp_path: Path):
    about = {"measured": "2026-11-24", "cores": 2}
    Report(tmp_path).put(a_row(), about, quick=True)
    other = Results("start", "first")
    other.add(Figure("wait", "ms", [[1.0, 2.0]]))
    Report(tmp_path).put(other, about, quick=False)
    Report(tmp_path).put(other, about, quick=False)
    kept = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert {name: len(row["figures"]) for name, row in kept.items()} == {"noop": 4, "start": 1}
    assert kept["noop"]["figures"][1]["ratios"] == {"raw inserts": 0.5, "Celery": 4.0}
    assert kept["start"]["figures"][0] | {"median": 1.0, "p99": 2.0, "count": 2} == kept["start"]["figures"][0]
    report = Report(tmp_path)
    assert (report.has("noop", quick=True), report.has("noop", quick=False)) == (True, False)
    page = report.page(["start", "noop", "unknown"])
    assert page.index("### start") < page.index("### noop")
    assert "Measured on: measured 2026-11-24, cores 2." in page
    assert "a quick run" in page


def test_the_pages_keep_what_stands_around_the_tables(tmp_path: Path):
    kept, docs = tmp_path / "kept", tmp_path / "docs"
    docs.mkdir()
    Report(kept).put(a_row(), {"cores": 2}, quick=False)
    Report(kept).draw("curve.svg", "<svg/>")
    for name in ("performance.md", "scaling.md"):
        (docs / name).write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_pages(Report(kept), docs)
    for name, words in (("performance.md", "### noop"), ("scaling.md", "Not reckoned")):
        text = (docs / name).read_text()
        assert text.startswith(f"before\n{BEGIN}\n")
        assert text.endswith(f"{END}\nafter\n")
        assert "old" not in text
        assert text.count(words) == 1
    assert "![curve](figures/curve.svg)" in (docs / "performance.md").read_text()
    assert (docs / "figures" / "curve.svg").read_text() == "<svg/>"


def test_scaling_is_reckoned_from_kept_medians():
    measured = {
        "fivephase": ("five-phase jobs", 400.0), "append": ("append, 10 events a command", 16_000.0),
        "jobs": ("disk of an event", 500.0), "fanout": ("fan-out to 1,000 viewers", 50_000.0),
        "reconnect": ("10,000 reconnects, each 50 behind", 10.0),
    }  # fmt: skip
    rows = {row: {"figures": [{"name": name, "who": OURS, "median": m}]} for row, (name, m) in measured.items()}
    assert arithmetic(rows) == "Not reckoned: the row `viewers` is not measured."
    named = {"10,000 idle viewers: memory": 20.0, "10,000 idle viewers: processor": 25.0}
    rows["viewers"] = {"figures": [{"name": name, "who": OURS, "median": m} for name, m in named.items()]}
    text = arithmetic(rows)
    results = [line.split("|")[-2].strip() for line in text.splitlines()[2:]]
    assert results[:4] == ["3", "56%", "362 GiB", "2.0 MiB/s"]
    assert results[4:10] == ["10", "1.9 GiB", "2.5", "2.0", "10 s", "20 MiB/s"]
    assert results[10:] == ["100", "19.1 GiB", "25.0", "20.0", "10 s", "197 MiB/s"]


async def test_measures_take_turns():
    said: list[str] = []

    async def measure(name: str) -> list[float]:
        said.append(name)
        return [float(len(said))]

    found = await in_turns(2, {"ours": lambda: measure("ours"), "theirs": lambda: measure("theirs")})
    assert said == ["ours", "theirs", "ours", "theirs"]
    assert found == {"ours": [[1.0], [3.0]], "theirs": [[2.0], [4.0]]}


def test_a_plot_is_svg_with_a_line_for_each_curve_and_a_point_for_each_size():
    lines = {"append": ("ms", [(10.0, 1.0), (1000.0, 1.1)]), "claim": ("ms", [(10.0, 2.0), (1000.0, 4.0)])}
    drawn = ET.fromstring(plot.curves("Costs <of> it", "jobs", lines))
    tags = [node.tag.rpartition("}")[2] for node in drawn.iter()]
    assert tags.count("circle") == 4
    texts = [node.text for node in drawn.iter() if node.text and node.text.strip()]
    assert "Costs <of> it" in texts
    assert {"10", "1,000"} <= set(texts)


def test_a_curve_that_doubles_is_a_third_off_its_middle():
    assert plot.flatness([(1, 2.0), (10, 2.0), (100, 4.0)]) == pytest.approx(1 / 3)
    assert plot.flatness([(1, 5.0), (10, 5.0)]) == 0


async def test_a_viewer_of_the_crowd_counts_frames_however_they_are_cut():
    events = [b'{"job_id":"%s","seq":%d,"type":"log","x":"%s"}' % (b"j" * 36, seq, b"y" * size)
              for seq, size in ((1, 0), (2, 200), (3, 70_000))]  # fmt: skip
    batch = b'{"type":"batch","events":[%s,%s]}' % (events[0], events[1])
    said = b"HTTP/1.1 101 Switching\r\n\r\n" + b"".join(map(frame, [*events, b'{"type":"caught_up","seq":3}', batch]))
    end = len(said) - len(frame(batch))
    for step in (1, 997, end):
        viewer = Viewer(Crowd(), "/", timed=True)
        cuts = [*range(0, min(600, end), step), *range(600, end, max(step, 997)), end]
        for start, stop in pairwise(cuts):
            viewer.data_received(said[start:stop])
        assert (viewer.events, viewer.last, list(viewer.seqs)) == (3, 3, [1, 2, 3])
        assert viewer.ready.done()
        viewer.last = 0
        viewer.data_received(frame(batch))
        assert (viewer.events, viewer.last) == (5, 2)


def test_every_row_has_a_name_of_its_own():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
