"""The source `live` against a real HTTP server on its bad days: it is polite, and what was good stays."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from engine_worker.engines.fpl import fpl, sources
from engine_worker.engines.fpl.snapshot import Snapshot
from engine_worker.engines.fpl.source import BrokenSource, NotAtHand, NotThere
from engine_worker.engines.fpl.source_directory import DirectorySource
from engine_worker.engines.fpl.source_live import LiveSource, Manners
from engine_worker.engines.fpl.synthetic import State, SyntheticSource
from events.clock import Clock, parse_instant
from phaseline import InvalidParams, RetryAfter
from tests.fpl.builders import assert_within_the_rules, decided
from tests.fpl.site import UPDATING_PAGE, Behaviour, Said, Site

MANNERS = Manners(spacing_s=0.02, first_wait_s=0.02, silence_s=1.2, page_s=8.0, busy_s=8.0)
# Two days before the deadline of the made-up season's gameweek 12.
SEASON = SyntheticSource(1)
NOW = parse_instant(SEASON.answer("bootstrap-static").taken_at)
DEADLINE = next(
    parse_instant(event["deadline_time"])
    for event in SEASON.answer("bootstrap-static").body["events"]
    if event["is_next"]
)
MINUTE = 60_000


class SetClock(Clock):
    def __init__(self) -> None:
        self.now = NOW

    def now_ms(self) -> int:
        return self.now


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(SEASON) as opened:
        yield opened


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def live(site: Site, clock: SetClock, tmp_path: Path) -> LiveSource:
    return LiveSource(site.url, tmp_path, clock, MANNERS)


def always(said: Said) -> Behaviour:
    return lambda _asked: said


def first(said: list[Said]) -> Behaviour:
    """These answers, one after the other, then the good day."""
    left = iter(said)
    return lambda _asked: next(left, None)


def bootstrap_of(season: SyntheticSource) -> bytes:
    return json.dumps(season.answer("bootstrap-static").body).encode()


HALF = bootstrap_of(SEASON)[:200_000]
BAD_DAYS = {
    "503": Said(503, b"Service Unavailable"),
    "500": Said(500, b""),
    "429": Said(429, b"slow down"),
    "a web page with 200": Said(200, UPDATING_PAGE),
    "plain text with 200": Said(200, b"The game is being updated."),
    "an empty body": Said(200, b""),
    "an empty object": Said(200, b"{}"),
    "a JSON cut short": Said(200, HALF),
    "fewer bytes than declared": Said(200, HALF, declared=len(HALF) * 2),
    "silence in the middle": Said(200, HALF, pause_s=20),
    "gameweeks without players": Said(200, json.dumps({**json.loads(bootstrap_of(SEASON)), "elements": []}).encode()),
    "the gameweek that closed": Said(200, bootstrap_of(SyntheticSource(1, State.named("11")))),
}
each_bad_day = pytest.mark.parametrize("said", BAD_DAYS.values(), ids=BAD_DAYS)


def test_a_page_is_fetched_once_and_kept_as_it_came(live, site, tmp_path):
    answers = [live.answer("bootstrap-static") for _ in range(3)]
    assert [asked.path for asked in site.asked] == ["bootstrap-static"]
    assert site.asked[0].headers["user-agent"].startswith("phaseline/")
    assert answers[0].body == site.pages.answer("bootstrap-static").body
    assert {answer.sha256 for answer in answers} == {answers[0].sha256}
    saved = DirectorySource(tmp_path).answer("bootstrap-static")
    assert (saved.sha256, saved.taken_at) == (answers[0].sha256, answers[0].taken_at)
    assert parse_instant(saved.taken_at) == NOW


def test_an_old_page_is_asked_for_with_its_etag_and_stays_when_nothing_changed(live, site, clock):
    before = live.answer("bootstrap-static")
    clock.now += 11 * MINUTE
    after = live.answer("bootstrap-static")
    assert "if-none-match" in site.asked[1].headers
    assert (after.sha256, parse_instant(after.taken_at)) == (before.sha256, clock.now)
    live.answer("bootstrap-static")
    assert len(site.asked) == 2


def test_a_changed_page_takes_the_place_of_the_old_one(live, site, clock, tmp_path):
    live.answer("fixtures")
    site.pages = SyntheticSource(2)
    clock.now += 11 * MINUTE
    changed = site.pages.answer("fixtures").body
    assert live.answer("fixtures").body == changed
    assert DirectorySource(tmp_path).answer("fixtures").body == changed


@each_bad_day
def test_a_bad_day_without_a_page_at_hand_is_told_for_what_it_is(live, site, tmp_path, said):
    site.bad = always(said)
    with pytest.raises(BrokenSource, match="bootstrap-static"):
        live.answer("bootstrap-static")
    assert len(site.asked) == MANNERS.attempts
    assert not (tmp_path / "bootstrap-static.json").exists()


@each_bad_day
def test_a_good_page_is_never_overwritten_by_a_bad_answer_and_stands_in_for_it(live, site, clock, tmp_path, said):
    good = live.answer("bootstrap-static")
    content = (tmp_path / "bootstrap-static.json").read_bytes()
    clock.now += 11 * MINUTE
    site.bad = always(said)
    answer = live.answer("bootstrap-static")
    assert (answer.body, answer.sha256, answer.taken_at) == (good.body, good.sha256, good.taken_at)
    assert answer.stale is not None
    assert (tmp_path / "bootstrap-static.json").read_bytes() == content


@each_bad_day
def test_after_a_bad_moment_the_next_attempt_brings_the_page(live, site, said):
    site.bad = first([said, said])
    assert live.answer("bootstrap-static").body == site.pages.answer("bootstrap-static").body
    assert len(site.asked) == 3


def test_once_a_deadline_has_passed_an_old_page_stands_in_no_longer(live, site, clock):
    live.answer("bootstrap-static")
    live.answer("entry/1/history")
    clock.now = DEADLINE
    site.bad = always(BAD_DAYS["503"])
    for path in ("bootstrap-static", "entry/1/history"):
        with pytest.raises(BrokenSource, match="the game is being updated"):
            live.answer(path)
        with pytest.raises(NotAtHand):
            live.at_hand(path)


def test_a_page_of_minutes_ago_is_fetched_again_when_a_deadline_has_passed_since(live, site, clock):
    clock.now = DEADLINE - MINUTE
    live.answer("bootstrap-static")
    clock.now = DEADLINE + MINUTE
    with pytest.raises(BrokenSource, match="the deadline of gameweek 12 has passed"):
        live.answer("bootstrap-static")
    site.pages = SyntheticSource(1, State.named("13"))
    assert live.answer("bootstrap-static").body == site.pages.answer("bootstrap-static").body


def test_picks_before_the_deadline_are_not_there_and_asked_for_again(live, site):
    live.answer("bootstrap-static")
    for _ in range(2):
        with pytest.raises(NotThere):
            live.answer("entry/1/event/12/picks")
    assert len(site.asked_for("entry/1/event/12/picks")) == 2


def test_an_unknown_team_is_not_there_at_once(live, site):
    with pytest.raises(NotThere):
        live.answer("entry/4711/history")
    assert len(site.asked) == 1


@pytest.mark.parametrize("path", ["entry/1/event/9/picks", "event/9/live"])
def test_pages_of_a_gameweek_whose_points_are_checked_are_kept_for_ever(live, site, clock, path):
    live.answer("bootstrap-static")
    live.answer(path)
    clock.now += 400 * 24 * 60 * MINUTE
    live.answer(path)
    assert len(site.asked_for(path)) == 1


def test_requests_keep_their_distance(site, tmp_path):
    live = LiveSource(site.url, tmp_path, Clock(), replace(MANNERS, spacing_s=0.2, silence_s=10.0))
    site.bad = first([Said(503)])
    for path in ("fixtures", "entry/1", "entry/2"):
        live.answer(path)
    apart = [later.at - earlier.at for earlier, later in zip(site.asked, site.asked[1:], strict=False)]
    assert len(apart) == 3
    # Told by the server, whose threads may be late: together three spacings, none of them missing.
    assert sum(apart) > 0.5
    assert min(apart) > 0.05


def test_the_site_says_how_long_to_wait(live, site):
    site.bad = first([Said(429, headers={"Retry-After": "1"})])
    live.answer("fixtures")
    assert site.asked[1].at - site.asked[0].at > 0.95
    site.bad = always(Said(503, headers={"Retry-After": "900"}))
    with pytest.raises(BrokenSource) as caught:
        live.answer("entry/1/history")
    assert caught.value.retry_after_s == 900
    assert len(site.asked_for("entry/1/history")) == 1


def test_a_body_without_end_is_given_up(site, tmp_path, clock):
    live = LiveSource(site.url, tmp_path, clock, replace(MANNERS, bytes_max=100_000))
    with pytest.raises(BrokenSource, match="more than 100000 bytes"):
        live.answer("bootstrap-static")


def test_a_site_that_is_not_there_is_told(tmp_path, clock):
    with Site(SEASON) as gone:
        url = gone.url
    with pytest.raises(BrokenSource, match="bootstrap-static: ClientConnectorError"):
        LiveSource(url, tmp_path, clock, MANNERS).answer("bootstrap-static")


def test_processes_that_ask_at_once_fetch_once(site, tmp_path):
    code = (
        "import sys, pathlib; from engine_worker.engines.fpl.source_live import LiveSource;"
        "print(LiveSource(sys.argv[1], pathlib.Path(sys.argv[2])).answer('fixtures').sha256)"
    )
    asking = [
        subprocess.Popen([sys.executable, "-c", code, site.url, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [process.communicate(timeout=60)[0] for process in asking]
    assert [process.returncode for process in asking] == [0, 0, 0]
    assert len(set(told)) == 1
    assert len(site.asked) == 1


def test_a_page_spoiled_on_disk_is_fetched_again(live, site, clock, tmp_path):
    live.answer("entry/1/history")
    (tmp_path / "entry/1/history.json").write_text("{}")
    assert live.answer("entry/1/history").body == site.pages.answer("entry/1/history").body
    assert len(site.asked) == 2


def test_what_is_kept_is_a_folder_anyone_can_decide_from(live, tmp_path, monkeypatch):
    for path in ("bootstrap-static", "fixtures", "entry/2/history", "entry/2/event/11/picks", "entry/2/transfers"):
        live.answer(path)
    assert set((Snapshot(tmp_path).manifest().pages or {}).keys()) >= {"bootstrap-static", "entry/2/event/11/picks"}
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"saved=directory:{tmp_path}")
    assert_within_the_rules(decided({"team_id": 2, "horizon": 1}).decision)


# -- through the engine: the real clock, so a made-up season whose next deadline is years ahead of any test run


@pytest.fixture
def served(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The engine's only source is `live`; deadlines are moved to a time that is still to come."""
    later = 200
    body = json.loads(bootstrap_of(SEASON))
    season = body["events"][0]["deadline_time"]
    for event in body["events"]:
        year = int(event["deadline_time"][:4]) + (later if event["is_next"] or event["id"] > 12 else -6)
        event["deadline_time"] = f"{year}{event['deadline_time'][4:]}"
    assert season.startswith("2026")
    moved = json.dumps(body).encode()
    site.bad = lambda asked: Said(200, moved) if asked.path == "bootstrap-static" else None
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"live=live:{site.url}")
    monkeypatch.setenv("PHASELINE_FPL_CACHE", str(tmp_path / "pages"))
    monkeypatch.setattr(sources, "LiveSource", partial(LiveSource, manners=MANNERS))
    return site


def test_submitting_asks_nothing_of_the_network_and_the_job_looks_again(served):
    params = fpl.params.model_validate({"team_id": 4711})
    assert fpl.check is not None
    fpl.check(params)
    assert served.asked == []
    with pytest.raises(InvalidParams) as caught:
        decided({"team_id": 4711})
    assert caught.value.problems == ((("team_id",), "this source has no team 4711"),)


def test_what_is_at_hand_refuses_at_submit(served):
    decided({"team_id": 1, "horizon": 1, "available_chips": []})
    asked = len(served.asked)
    assert fpl.check is not None
    with pytest.raises(InvalidParams) as caught:
        fpl.check(fpl.params.model_validate({"team_id": 1, "gameweek": 3}))
    assert caught.value.problems == ((("gameweek",), "gameweek 3 is past, the next is 12"),)
    assert len(served.asked) == asked


def test_a_live_decision_is_within_the_rules_and_names_its_ground(served):
    decision = decided({"team_id": 3, "horizon": 1}).decision
    assert_within_the_rules(decision)
    assert decision.header.source == "live"
    assert decision.squad_state.replay.weeks_exact == 11
    # Five pages of the season and the entry, and the minutes of five gameweeks.
    assert len({asked.path for asked in served.asked}) == len(served.asked) == 10


def test_a_job_waits_while_the_game_is_updated(served):
    good = served.bad
    served.bad = lambda asked: Said(200, UPDATING_PAGE) if asked.path.endswith("history") else good(asked)
    with pytest.raises(RetryAfter, match="a web page, not JSON"):
        decided({"team_id": 1, "horizon": 1})


def test_a_job_waits_while_the_gameweek_under_way_is_missing_from_the_entry(served):
    served.pages = SyntheticSource(1, State.named("11"))
    with pytest.raises(RetryAfter, match="its pages end with gameweek 10, gameweek 11 is not there yet"):
        decided({"team_id": 1, "horizon": 1})


def test_older_data_that_stands_in_is_said_in_the_decision(served, monkeypatch):
    params = {"team_id": 1, "horizon": 1, "available_chips": []}
    decided(params)
    served.bad = always(Said(503))
    monkeypatch.setattr(LiveSource, "_fresh", lambda _self, _path, _page: False)
    asked = len(served.asked)
    codes = {warning.code: warning.message for warning in decided(params).decision.warnings}
    assert "the game is being updated" in codes["stale"]
    # The first page was asked for as often as any; the others did not wait for a site that is down.
    assert len(served.asked) - asked == MANNERS.attempts


def test_threads_of_one_process_that_ask_at_once_fetch_once(live, site):
    threads = [threading.Thread(target=live.answer, args=("fixtures",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(site.asked) == 1


def test_pages_of_entries_are_kept_up_to_a_number_and_the_season_always(site, clock, tmp_path):
    live = LiveSource(site.url, tmp_path, clock, replace(MANNERS, pages_max=4))
    live.answer("bootstrap-static")
    for entry in range(1, 8):
        clock.now += 1000
        live.answer(f"entry/{entry}/history")
    pages = Snapshot(tmp_path).manifest().pages or {}
    kept = {path for path in pages if path.startswith("entry/")}
    assert len(kept) <= 4
    assert {"entry/7/history", "entry/6/history"} <= kept
    assert "bootstrap-static" in pages
    assert {str(file.relative_to(tmp_path))[:-5] for file in tmp_path.rglob("entry/**/*.json")} == kept
    # Who went is fetched again when somebody asks.
    assert live.answer("entry/1/history").body == site.pages.answer("entry/1/history").body
