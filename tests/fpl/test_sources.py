"""Sources are configured by name, and a folder of saved responses refuses what is not one."""

import json

import pytest

from engine_worker.engines.fpl.collecting import players_of
from engine_worker.engines.fpl.snapshot import Page, Snapshot
from engine_worker.engines.fpl.source import BrokenSource, NotThere, Reading, digest, parsed
from engine_worker.engines.fpl.source_directory import DirectorySource
from engine_worker.engines.fpl.source_live import LiveSource
from engine_worker.engines.fpl.sources import UnknownSource, configured, source_named
from engine_worker.engines.fpl.synthetic import SyntheticSource
from tests.fpl.builders import decided, without_times

PATHS = (
    *("bootstrap-static", "fixtures", "entry/2", "entry/2/history", "entry/2/transfers", "entry/2/event/11/picks"),
    *(f"event/{gameweek}/live" for gameweek in range(7, 12)),
)


@pytest.fixture
def folder(tmp_path):
    """The made-up season saved as a folder."""
    made_up = source_named("synthetic")
    for path in PATHS:
        file = tmp_path / f"{path}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(made_up.answer(path).body))
    return tmp_path


@pytest.fixture
def listed(tmp_path):
    """The same with a manifest that vouches for every page."""
    made_up = source_named("synthetic")
    for path in PATHS:
        content = json.dumps(made_up.answer(path).body).encode()
        Snapshot(tmp_path).save(path, content, Page(sha256=digest(content), fetched_at="2026-11-25T10:00:00Z"))
    return tmp_path


def test_the_first_configured_source_is_the_default(monkeypatch):
    setting = "gw10=directory:/srv/gw10, synthetic,other=synthetic:7:preseason,live,mirror=live:http://127.0.0.1:9/api"
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", setting)
    assert configured() == {
        "gw10": "directory:/srv/gw10",
        "synthetic": "synthetic",
        "other": "synthetic:7:preseason",
        "live": "live",
        "mirror": "live:http://127.0.0.1:9/api",
    }
    opened = [type(source_named(name)) for name in (None, "other", "live", "mirror")]
    assert opened == [DirectorySource, SyntheticSource, LiveSource, LiveSource]


@pytest.mark.parametrize(
    "setting",
    [
        "directory",
        "gw10=/srv/gw10",
        "=synthetic",
        "a=synthetic:x",
        "a=synthetic:1:39",
        "a=synthetic:1:0",
        "a=live:ftp://x",
    ],
)
def test_a_setting_that_is_no_source_is_refused(monkeypatch, setting):
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", setting)
    with pytest.raises(ValueError, match="PHASELINE_FPL_SOURCES"):
        configured()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UnknownSource, match="unknown source 'live', this server has synthetic"):
        source_named("live")


def test_a_folder_decides_as_the_season_it_was_saved_from(folder, monkeypatch):
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"saved=directory:{folder},synthetic")
    params = {"team_id": 2, "horizon": 1, "available_chips": []}
    saved = without_times(decided(params).decision)
    made_up = without_times(decided({**params, "source": "synthetic"}).decision)
    for name in ("source", "snapshot_sha256", "snapshot_time"):
        assert saved["header"].pop(name) != made_up["header"].pop(name)
    assert saved == made_up


@pytest.mark.parametrize("text", ["<!doctype html><title>The game is being updated</title>", " \n<html>"])
def test_the_page_shown_while_the_game_is_updated_is_refused(folder, text):
    (folder / "bootstrap-static.json").write_text(text)
    with pytest.raises(BrokenSource, match=r"bootstrap-static\.json: a web page, not JSON"):
        DirectorySource(folder).answer("bootstrap-static")


def test_a_truncated_file_is_refused(folder):
    file = folder / "fixtures.json"
    file.write_text(file.read_text()[:5000])
    with pytest.raises(BrokenSource, match=r"fixtures\.json: truncated, 5000 bytes"):
        DirectorySource(folder).answer("fixtures")


@pytest.mark.parametrize(
    "path, body, problem",
    [
        ("bootstrap-static", "[]", "is no object"),
        ("bootstrap-static", '{"events": [1]}', "lacks game_settings"),
        (
            "bootstrap-static",
            '{"events": [], "game_settings": 1, "teams": 1, "elements": 1, "element_types": 1}',
            "lacks events",
        ),
        ("fixtures", '{"detail": "no"}', "is no list of fixtures"),
        ("fixtures", '[{"id": 1}]', "fixtures: some lack event, finished"),
        ("entry/2/transfers", '[{"element_in": 3}]', "transfers: some lack element_in_cost"),
        ("entry/2/history", '{"current": []}', "lacks chips"),
        ("entry/2/event/11/picks", '{"picks": [7], "entry_history": {}}', "picks: not a list of objects"),
    ],
)
def test_a_foreign_file_is_refused_for_what_it_lacks(folder, path, body, problem):
    (folder / f"{path}.json").write_text(body)
    with pytest.raises(BrokenSource, match=problem):
        DirectorySource(folder).answer(path)


@pytest.mark.parametrize(
    "field, value, problem",
    [
        ("now_cost", 0, "not every now_cost is a whole number of 1 or more"),
        ("now_cost", "55", "now_cost"),
        ("now_cost", None, "now_cost"),
        ("minutes", -1, "not every minutes is a whole number of 0 or more"),
        ("team", None, "team"),
        ("transfers_in_event", -60, "not every transfers_in_event is a count"),
        ("transfers_out_event", "many", "transfers_out_event"),
        ("starts", 2.5, "starts"),
        ("id", 1, "elements: 1 is there twice"),
    ],
)
def test_numbers_that_no_player_has_make_a_broken_page(folder, field, value, problem):
    file = folder / "bootstrap-static.json"
    page = json.loads(file.read_text())
    page["elements"][4][field] = value
    file.write_text(json.dumps(page))
    with pytest.raises(BrokenSource, match=problem):
        DirectorySource(folder).answer("bootstrap-static")


def test_counts_that_are_null_are_as_if_they_were_missing():
    page = source_named("synthetic").answer("bootstrap-static").body
    counts = ("starts", "transfers_in_event", "transfers_out_event")
    nulls = [{**element, **dict.fromkeys(counts)} for element in page["elements"]]
    parsed("bootstrap-static", json.dumps({**page, "elements": nulls}).encode(), "page")
    missing = [{name: value for name, value in element.items() if name not in counts} for element in nulls]
    assert players_of(nulls, []) == players_of(missing, [])


def test_a_missing_file_is_not_there(folder):
    with pytest.raises(NotThere):
        DirectorySource(folder).answer("entry/9/history")


def test_the_snapshot_is_named_by_what_was_read_and_changes_with_it(folder):
    def named() -> str:
        reading = Reading(DirectorySource(folder))
        for path in PATHS:
            reading.body(path)
        return reading.sha256()

    before = named()
    assert named() == before
    file = folder / "entry/2/history.json"
    file.write_text(file.read_text() + "\n")
    assert named() != before


def test_a_file_saved_anew_is_read_anew(folder):
    source = DirectorySource(folder)
    last = source.answer("fixtures").body[-1:]
    (folder / "fixtures.json").write_text(json.dumps(last))
    assert source.answer("fixtures").body == last


def test_one_decision_reads_a_page_once_whatever_happens_to_the_file(folder):
    reading = Reading(DirectorySource(folder))
    before = reading.body("entry/2/history")
    (folder / "entry/2/history.json").write_text("<html>")
    assert reading.body("entry/2/history") == before


def test_the_manifest_says_when_the_answers_were_true(folder):
    (folder / "MANIFEST.json").write_text('{"elements_as_of": "2023-10-27T08:27:07+00:00", "entry": 7}')
    assert DirectorySource(folder).answer("fixtures").taken_at == "2023-10-27T08:27:07+00:00"


def test_a_manifest_vouches_for_each_page_by_its_sha_256(listed):
    source = DirectorySource(listed)
    answer = source.answer("entry/2/history")
    assert answer.sha256 == digest((listed / "entry/2/history.json").read_bytes())
    assert answer.taken_at == "2026-11-25T10:00:00Z"
    for path in ("bootstrap-static", "entry/2/history"):
        file = listed / f"{path}.json"
        file.write_text(file.read_text().replace("1", "2", 1))
        with pytest.raises(BrokenSource, match=rf"{path}\.json: changed since it was saved, its SHA-256 is another"):
            source.answer(path)


def test_a_page_the_manifest_does_not_list_is_refused(listed):
    (listed / "entry/9/history.json").parent.mkdir()
    (listed / "entry/9/history.json").write_text("{}")
    with pytest.raises(BrokenSource, match=r"entry/9/history\.json: not in the manifest"):
        DirectorySource(listed).answer("entry/9/history")


@pytest.mark.parametrize("text", ["<html>", '{"pages": {"fixtures": {}}}'])
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / "MANIFEST.json").write_text(text)
    with pytest.raises(BrokenSource, match=r"MANIFEST\.json: "):
        DirectorySource(folder).answer("fixtures")


def test_a_save_that_stops_anywhere_leaves_every_page_whole_and_vouched_for(listed, monkeypatch):
    """Killed after the manifest and before the page: the page before is still the one the manifest means."""
    snapshot = Snapshot(listed)
    old, page = snapshot.content("entry/2/transfers")
    monkeypatch.setattr(Snapshot, "file", lambda _self, _path: listed / "nowhere" / "\0")
    with pytest.raises(ValueError, match="null"):
        snapshot.save("entry/2/transfers", b"[]", Page(sha256=digest(b"[]"), fetched_at="2026-11-25T11:00:00Z"))
    monkeypatch.undo()
    assert snapshot.content("entry/2/transfers") == (old, page)
    snapshot.save("entry/2/transfers", b"[]", Page(sha256=digest(b"[]"), fetched_at="2026-11-25T11:00:00Z"))
    assert snapshot.content("entry/2/transfers")[0] == b"[]"
