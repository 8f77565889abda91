"""`phaseline fpl snapshot` saves what a decision is made from, and what was saved before stays until that is done."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine_worker.engines.fpl import saving, sources
from engine_worker.engines.fpl.snapshot import Snapshot
from engine_worker.engines.fpl.source import BrokenSource, digest
from engine_worker.engines.fpl.source_live import LiveSource
from engine_worker.engines.fpl.synthetic import SyntheticSource
from tests.cli.program import Run, in_process
from tests.fpl.builders import decided, without_times
from tests.fpl.site import UPDATING_PAGE, Asked, Said, Site
from tests.fpl.test_live import MANNERS, SetClock

SEASON = SyntheticSource(1)
LIVE_PAGES = [f"event/{gameweek}/live" for gameweek in range(7, 12)]
OF_ENTRY = ["entry/2/event/11/picks", "entry/2/history", "entry/2/transfers"]
PAGES = sorted(["bootstrap-static", "fixtures", *LIVE_PAGES, *OF_ENTRY])


def saved(out: Path, *words: str, sources: str = "synthetic,over=synthetic:1:over,young=synthetic:3:preseason") -> Run:
    return in_process("fpl", "snapshot", "--out", str(out), *words, PHASELINE_FPL_SOURCES=sources)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of the second made-up manager."""
    folder = tmp_path_factory.mktemp("first") / "gw12"
    told = saved(folder, "--entry", "2")
    assert told.code == 0, told.err
    return folder


@pytest.fixture
def good(first: Path, tmp_path) -> Path:
    """One like it, for this test alone."""
    return Path(shutil.copytree(first, tmp_path / "gw12"))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[Site]:
    """A site that plays the API, for the source `live` of this test, two days before the deadline."""
    monkeypatch.setattr(sources, "LiveSource", partial(LiveSource, clock=SetClock(), manners=MANNERS))
    monkeypatch.setattr(sources, "CACHE_DEFAULT", str(tmp_path / "pages"))
    with Site(SEASON) as opened:
        yield opened


def of_site(site: Site) -> str:
    return f"live=live:{site.url}"


def test_a_snapshot_has_every_page_of_a_decision_with_its_sha_256_and_when_it_was_true(good):
    listed = Snapshot(good).manifest().pages
    assert listed is not None
    assert sorted(listed) == PAGES
    for path, page in listed.items():
        assert page.sha256 == digest((good / f"{path}.json").read_bytes())
        assert page.fetched_at == SEASON.answer(path).taken_at
    assert sorted(contents(good)) == sorted([*(f"{path}.json" for path in PAGES), "MANIFEST.json"])


def test_a_decision_on_the_snapshot_is_the_one_on_its_source_and_names_its_digest(tmp_path, monkeypatch):
    told = saved(tmp_path / "gw12", "--entry", "2")
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"saved=directory:{tmp_path / 'gw12'},synthetic")
    params = {"team_id": 2, "horizon": 1, "available_chips": []}
    on_snapshot = without_times(decided(params).decision)
    on_source = without_times(decided({**params, "source": "synthetic"}).decision)
    assert told.out.strip().endswith(f"SHA-256 {on_snapshot['header']['snapshot_sha256']}")
    for decision in (on_snapshot, on_source):
        decision["header"].pop("source")
        decision["header"].pop("snapshot_sha256")
    assert on_snapshot == on_source


def test_a_snapshot_of_a_snapshot_is_the_same_byte_for_byte(good, tmp_path):
    assert saved(tmp_path / "copy", "--source", str(good), "--entry", "2").code == 0
    assert contents(tmp_path / "copy") == contents(good)
    named = saved(tmp_path / "named", "--source", "gw12", "--entry", "2", sources=f"synthetic,gw12=directory:{good}")
    assert named.code == 0
    assert contents(tmp_path / "named") == contents(good)


def test_without_an_entry_the_season_alone_is_saved_and_with_two_both_are(tmp_path):
    assert saved(tmp_path / "season").code == 0
    assert sorted(Snapshot(tmp_path / "season").manifest().pages or {}) == sorted(
        ["bootstrap-static", "fixtures", *LIVE_PAGES]
    )
    assert saved(tmp_path / "both", "--entry", "2", "--entry", "7").code == 0
    paths = Snapshot(tmp_path / "both").manifest().pages or {}
    assert {"entry/2/history", "entry/7/history"} <= paths.keys()
    # The seventh joined late: the opening prices are on the players' own pages.
    assert any(path.startswith("element-summary/") for path in paths)


@pytest.mark.parametrize("source", ["young", "over"])
def test_before_and_after_the_season_there_is_a_snapshot_too(tmp_path, source):
    told = saved(tmp_path / "out", "--source", source)
    assert told.code == 0, told.err
    assert {"bootstrap-static", "fixtures"} <= (Snapshot(tmp_path / "out").manifest().pages or {}).keys()


def test_the_live_site_is_saved_with_each_page_asked_for_once(site, tmp_path):
    told = saved(tmp_path / "gw12", "--entry", "2", "--entry", "7", sources=of_site(site))
    assert told.code == 0, told.err
    pages = Snapshot(tmp_path / "gw12").manifest().pages or {}
    assert sorted(asked.path for asked in site.asked) == sorted(pages)
    assert pages.keys() > set(PAGES)
    for path in ("entry/2/history", next(path for path in pages if path.startswith("element-summary/"))):
        assert json.loads((tmp_path / "gw12" / f"{path}.json").read_bytes()) == SEASON.answer(path).body


@pytest.mark.parametrize(
    "path, said",
    [
        ("bootstrap-static", Said(200, UPDATING_PAGE)),
        ("event/9/live", Said(503)),
        ("entry/2/transfers", Said(200, b'[{"element_in": ')),
    ],
)
def test_whatever_page_is_bad_the_snapshot_before_stays_as_it_was(site, good, path, said):
    def bad(asked: Asked) -> Said | None:
        return said if asked.path == path else None

    before, site.bad = contents(good), bad
    told = saved(good, "--entry", "2", sources=of_site(site))
    assert told.code == 1
    assert path in told.err
    assert "nothing was written" in told.err
    assert contents(good) == before
    assert [file.name for file in good.parent.iterdir() if file.name != "pages"] == ["gw12"]


def test_an_older_page_that_would_stand_in_for_a_decision_is_no_snapshot(site, good, tmp_path, monkeypatch):
    clock = SetClock()
    monkeypatch.setattr(sources, "LiveSource", partial(LiveSource, clock=clock, manners=MANNERS))
    assert saved(tmp_path / "first", "--entry", "2", sources=of_site(site)).code == 0
    before, clock.now, site.bad = contents(good), clock.now + 3_600_000, lambda _asked: Said(503)
    told = saved(good, "--entry", "2", sources=of_site(site))
    assert told.code == 1
    assert "only older data of" in told.err
    assert contents(good) == before


def test_a_snapshot_is_replaced_by_the_next_one_whole(good):
    assert saved(good, "--entry", "7").code == 0
    assert not (good / "entry" / "2").exists()
    assert "entry/7/history" in (Snapshot(good).manifest().pages or {})
    assert [file.name for file in good.parent.iterdir()] == ["gw12"]


def test_one_stopped_between_the_two_renames_is_put_right_by_the_next(good, monkeypatch):
    before = contents(good)
    good.replace(good.with_name(".gw12.old"))
    told = saved(good, "--entry", "4711")
    assert (told.code, contents(good)) == (1, before)
    assert "this source has no entry/4711/history" in told.err
    # Torn on the disk: what was written is read again before it takes the place of anything.
    monkeypatch.setattr(saving, "encode", lambda _body: b'{"current": []')
    with pytest.raises(BrokenSource):
        saving.save(SEASON, [2], good)
    assert contents(good) == before
    assert [file.name for file in good.parent.iterdir()] == ["gw12"]


@pytest.mark.parametrize("there", ["notes.txt", "MANIFEST.json"])
def test_a_folder_of_something_else_is_never_replaced(tmp_path, there):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / there).write_text("{}")
    told = saved(tmp_path / "mine")
    assert told.code == 1
    assert "neither empty nor a snapshot" in told.err
    assert contents(tmp_path / "mine") == {there: b"{}"}


@pytest.mark.parametrize("name", ["nowhere", "live"])
def test_a_source_nobody_configured_is_named_with_those_there_are(tmp_path, name):
    told = saved(tmp_path / "out", "--source", name)
    assert told.code == 1
    assert f"unknown source '{name}', this server has synthetic" in told.err


def test_the_help_has_an_example():
    assert "phaseline fpl snapshot --entry 7 --out" in in_process("fpl", "snapshot", "--help").out


def test_pages_fetched_again_and_unchanged_are_the_same_ground(good, monkeypatch):
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"gw12=directory:{good}")
    asked = {"team_id": 2, "horizon": 1, "available_chips": [], "node_limit": 1000}
    before = decided(asked).decision
    manifest = json.loads((good / "MANIFEST.json").read_text())
    for page in manifest["pages"].values():
        page["fetched_at"] = "2026-11-28T09:00:00Z"
    (good / "MANIFEST.json").write_text(json.dumps(manifest))
    after = decided(asked).decision
    assert after.header.snapshot_time != before.header.snapshot_time
    assert before.receipt is not None
    assert before.receipt.repeats
    assert after.receipt == before.receipt
