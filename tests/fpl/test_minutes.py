"""Minutes by match are read where a source has them, and nothing waits for them where it has not."""

from dataclasses import dataclass, field

import pytest

from engine_worker.engines.fpl.collecting import Collected, collect, minutes_of
from engine_worker.engines.fpl.fitted import shipped
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.playing import attendances
from engine_worker.engines.fpl.sheets import SCORES_KEPT, gameweeks_lately
from engine_worker.engines.fpl.source import Answer, BrokenSource, NotThere, Reading, parsed
from engine_worker.engines.fpl.sources import source_named
from tests.fpl.builders import collected


@dataclass
class WithoutMinutes:
    """The made-up season, answering nothing about gameweeks."""

    failure: Exception
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> Answer:
        self.asked.append(path)
        if path.startswith("event/"):
            raise self.failure
        return source_named("synthetic").answer(path)

    at_hand = answer


def read(source: WithoutMinutes) -> Collected:
    return collect(FplParams(team_id=1), "synthetic", Reading(source))


def test_each_player_has_the_minutes_of_his_clubs_last_matches():
    source = source_named("synthetic")
    for player in collected(1).players[::25]:
        history = source.answer(f"element-summary/{player.element}").body["history"]
        played = sorted((row["kickoff_time"], row["fixture"], row["minutes"]) for row in history)
        assert player.minutes_each == tuple(minutes for *_, minutes in played[: -SCORES_KEPT - 1 : -1])


def test_both_matches_of_a_double_are_told_apart():
    def match(number: int, minutes: int) -> dict[str, object]:
        return {"fixture": number, "stats": [{"identifier": "minutes", "value": minutes, "points": 1}]}

    live = {
        "elements": [
            {"id": 7, "explain": [match(101, 90), match(115, 12)]},
            {"id": 8, "explain": [match(101, 0)]},
            {"id": 9, "explain": []},
        ]
    }
    assert minutes_of(live) == {101: {7: 90, 8: 0}, 115: {7: 12}}


def test_only_pages_of_the_last_gameweeks_are_asked_for():
    fixtures = source_named("synthetic").answer("fixtures").body
    weeks = gameweeks_lately(fixtures)
    assert len(weeks) <= 6
    assert weeks[-1] == max(match["event"] for match in fixtures if match["finished"])
    assert gameweeks_lately([]) == []


@pytest.mark.parametrize("failure, pages", [(NotThere("event"), 5), (BrokenSource("down"), 1)])
def test_a_source_without_minutes_is_read_all_the_same(failure, pages):
    """One that lacks them may have others; one in trouble is not asked again."""
    source = WithoutMinutes(failure)
    ground = read(source)
    assert len([path for path in source.asked if path.startswith("event/")]) == pages
    assert {said for player in ground.players for said in player.minutes_each} == {None}
    known, guessed = (attendances(one, shipped()) for one in (collected(1), ground))
    off = [abs(guessed[key].p_play - known[key].p_play) for key in known]
    assert sum(off) / len(off) < 0.03


def test_a_page_of_a_gameweek_is_no_reason_to_call_the_ground_old():
    ground = collected(1)
    assert ground.snapshot_time == source_named("synthetic").answer("bootstrap-static").taken_at
    reading = Reading(source_named("synthetic"))
    reading.body("event/3/live")
    assert reading.taken_at == ""
    assert reading.sha256() != Reading(source_named("synthetic")).sha256()


def test_a_half_written_page_of_minutes_is_refused():
    assert parsed("event/3/live", b'{"elements": []}', "live") == {"elements": []}
    for content in (b'{"elements": [{"id": 3}]}', b"{}", b"<html>", b'{"elements": [{"id": 3, "expl'):
        with pytest.raises(BrokenSource):
            parsed("event/3/live", content, "live")


@pytest.mark.parametrize(
    "explain, problem",
    [
        ("null", "explain: not a list"),
        ('[{"fixture": 1}]', "explain: some lack stats"),
        ('[{"fixture": 1, "stats": null}]', "stats: not a list"),
        ('[{"fixture": 1, "stats": [{"identifier": "minutes"}]}]', "stats: some lack value"),
        ('[{"fixture": 1, "stats": [{"identifier": "minutes", "value": null}]}]', "minutes are no count"),
    ],
)
def test_a_page_of_minutes_without_any_is_refused_so_that_bonus_scores_stand_in(explain, problem):
    page = f'{{"elements": [{{"id": 3, "explain": []}}, {{"id": 4, "explain": {explain}}}]}}'
    with pytest.raises(BrokenSource, match=problem):
        parsed("event/3/live", page.encode(), "live")
