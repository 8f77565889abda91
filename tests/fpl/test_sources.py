"""Sources are configured by name, and a folder of saved responses refuses what is not one."""

import json

import pytest

from engine_worker.engines.fpl.sources import (
    BrokenSource,
    DirectorySource,
    NotThere,
    Reading,
    UnknownSource,
    configured,
    source_named,
)
from tests.fpl.builders import decided, without_times

PATHS = ("bootstrap-static", "fixtures", "entry/2", "entry/2/history", "entry/2/transfers", "entry/2/event/11/picks")


@pytest.fixture
def folder(tmp_path):
    """The made-up season saved as a folder."""
    made_up = source_named("synthetic")
    for path in PATHS:
        file = tmp_path / f"{path}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(made_up.answer(path).body))
    return tmp_path


def test_the_first_configured_source_is_the_default(monkeypatch):
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", "gw10=directory:/srv/gw10, synthetic,other=synthetic:7")
    assert configured() == {"gw10": "directory:/srv/gw10", "synthetic": "synthetic", "other": "synthetic:7"}
    assert isinstance(source_named(None), DirectorySource)


@pytest.mark.parametrize("setting", ["directory", "gw10=/srv/gw10", "=synthetic"])
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


def test_the_page_shown_while_the_game_is_updated_is_refused(folder):
    (folder / "bootstrap-static.json").write_text("<!doctype html><title>The game is being updated</title>")
    with pytest.raises(BrokenSource, match=r"bootstrap-static\.json: a web page, not JSON"):
        DirectorySource(folder).answer("bootstrap-static")


def test_a_truncated_file_is_refused(folder):
    file = folder / "fixtures.json"
    file.write_text(file.read_text()[:5000])
    with pytest.raises(BrokenSource, match=r"fixtures\.json: truncated, 5000 bytes"):
        DirectorySource(folder).answer("fixtures")


@pytest.mark.parametrize("body, problem", [("[]", "lacks events"), ('{"events": [1]}', "lacks game_settings")])
def test_a_foreign_file_is_refused(folder, body, problem):
    (folder / "bootstrap-static.json").write_text(body)
    with pytest.raises(BrokenSource, match=problem):
        DirectorySource(folder).answer("bootstrap-static")


def test_a_missing_file_is_not_there(folder):
    with pytest.raises(NotThere):
        DirectorySource(folder).answer("entry/9/history")


def test_the_snapshot_is_named_by_what_was_read_and_changes_with_it(folder):
    def digest() -> str:
        reading = Reading(DirectorySource(folder))
        for path in PATHS:
            reading.body(path)
        return reading.sha256()

    before = digest()
    assert digest() == before
    file = folder / "entry/2/history.json"
    file.write_text(file.read_text() + "\n")
    assert digest() != before


def test_a_file_saved_anew_is_read_anew(folder):
    source = DirectorySource(folder)
    source.answer("fixtures")
    (folder / "fixtures.json").write_text('[{"id": 1}]')
    assert source.answer("fixtures").body == [{"id": 1}]


def test_the_manifest_says_when_the_answers_were_true(folder):
    (folder / "MANIFEST.json").write_text('{"elements_as_of": "2023-10-27T08:27:07+00:00"}')
    assert DirectorySource(folder).taken_at == "2023-10-27T08:27:07+00:00"
