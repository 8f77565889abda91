"""Bad input changes nothing and gets a clear problem that names the field, on a whole installation."""

import io
from typing import Any

from engine_worker.engines.fpl.source import Reading
from engine_worker.engines.fpl.sources import source_named
from tests.installation import Api, Installation

UNKNOWN = "01a20ca3-8f44-71e6-954e-9ff94174bd64"


def players() -> list[dict[str, Any]]:
    """The synthetic season's players, as the official API gives them."""
    elements: list[dict[str, Any]] = Reading(source_named("synthetic")).body("bootstrap-static")["elements"]
    return elements


def squad_of(*, keepers: int = 2, defenders: int = 5, one_club: int = 0) -> list[dict[str, int]]:
    """Fifteen cheap players, at most three a club unless `one_club` says how many come from the first."""
    wanted = {1: keepers, 2: defenders, 3: 5, 4: 15 - keepers - defenders - 5}
    chosen: list[dict[str, int]] = []
    clubs: dict[int, int] = {}
    first_club = players()[0]["team"]
    for player in sorted(
        players(), key=lambda player: (not one_club or player["team"] != first_club, player["now_cost"])
    ):
        club, position = player["team"], player["element_type"]
        limit = one_club if one_club and club == first_club else 3 if not one_club else 2
        if wanted.get(position, 0) and clubs.get(club, 0) < limit and player["status"] != "u":
            wanted[position] -= 1
            clubs[club] = clubs.get(club, 0) + 1
            chosen.append({"element": player["id"], "purchase_price": player["now_cost"]})
    assert len(chosen) == 15
    return chosen


def analysis(squad: list[dict[str, int]], **more: Any) -> dict[str, Any]:
    return {"squad": squad, "bank": 0, "free_transfers": 1, **more}


def expensive() -> list[dict[str, int]]:
    return [player | {"purchase_price": 200} for player in squad_of()]


def duplicated() -> list[dict[str, int]]:
    squad = squad_of()
    return [*squad[:-1], squad[0]]


BAD_ANALYSES = {
    "three goalkeepers": (lambda: analysis(squad_of(keepers=3, defenders=4)), "squad", "goalkeeper"),
    "four from one club": (lambda: analysis(squad_of(one_club=4)), "squad", "4 players from"),
    "over budget": (lambda: analysis(expensive()), "squad", "budget|money|afford|cost|prices"),
    "a duplicate player": (lambda: analysis(duplicated()), "squad", "twice|duplicate|more than once"),
    "an unknown player": (
        lambda: analysis([*squad_of()[:-1], {"element": 99999, "purchase_price": 40}]),
        "squad",
        "99999",
    ),
    "a gameweek in the past": (lambda: {"team_id": 1, "gameweek": 1}, "gameweek", "past|over|gone|next"),
    "an unknown source": (lambda: {"team_id": 1, "source": "/etc/passwd"}, "source", "source"),
    "an unknown field": (lambda: {"team_id": 1, "tema_id": 2}, "tema_id", ""),
    "a wrong type": (lambda: {"team_id": "1"}, "team_id", "integer"),
}


async def test_bad_analyses_are_refused_naming_the_field_and_nothing_is_stored(
    installation: Installation, http: Api
) -> None:
    for name, (make, field, words) in BAD_ANALYSES.items():
        problem = await http.post("/api/v1/analyze", make(), 422)
        assert any(field in error["field"] for error in problem["errors"]), (name, problem)
        told = " ".join(error["message"] for error in problem["errors"]).lower()
        assert not words or any(word in told for word in words.split("|")), (name, problem)
    assert (await http.get("/api/v1/jobs"))["jobs"] == []


BAD_JOBS: list[tuple[bytes, int, str]] = [
    (b"{", 400, ""),
    (b'{"engine": "countdown", "params": {}, "tags": ["\xff"]}', 400, ""),
    (b'{"engine": "countdown", "params": {"steps": 1, "x": "' + b"y" * 2 * 1024 * 1024 + b'"}}', 413, ""),
    (b'{"engine": "nothing_like_it", "params": {}}', 404, "engine"),
    (b'{"engine": "countdown", "params": {"steps": "many"}}', 422, "params.steps"),
    (b'{"engine": "countdown", "params": {"stepz": 1}}', 422, "params.stepz"),
    (b'{"engine": "countdown", "params": {}, "tags": ["a\\u0000b"]}', 422, "tags"),
    (b'{"engine": "countdown", "params": {}, "tags": ["\\ud800"]}', 422, "tags"),
    (b'{"engine": "countdown", "params": {}, "priority": "urgent"}', 422, "priority"),
    (b'{"engine": "countdown", "params": {}, "not_before": "2026-01-01T00:00:00"}', 422, "not_before"),
    (b'{"engine": "countdown", "params": {}, "not_before": "0001-01-01T00:00:00Z"}', 422, "not_before"),
    (b'{"engine": "countdown", "params": {}, "not_before": "9999-12-31T23:00:00-14:00"}', 422, "not_before"),
    (b'{"engine": "countdown", "params": {"steps": ' + b"[" * 150 + b"]" * 150 + b"}}", 422, "params.steps"),
    (b'{"engine": "countdown", "params": {"steps": 1' + b"0" * 1500 + b"}}", 422, "params.steps"),
]


async def test_bad_jobs_are_refused_with_a_problem_and_nothing_is_stored(installation: Installation, http: Api) -> None:
    for body, status, field in BAD_JOBS:
        async with http.session.post(
            f"{http.url}/api/v1/jobs", data=io.BytesIO(body), headers={"Content-Type": "application/json"}
        ) as answer:
            problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, problem["status"]) == (status, status), problem
        assert not field or any(error["field"].startswith(field) for error in problem["errors"]), problem
    assert (await http.get("/api/v1/jobs"))["jobs"] == []
    await http.get(f"/api/v1/jobs/{UNKNOWN}", 404)


async def test_a_valid_squad_of_ones_own_is_decided(installation: Installation, http: Api) -> None:
    made = await http.post("/api/v1/analyze", analysis(squad_of(), horizon=1), 202)
    assert (await http.get(f"/api/v1/analyze/{made['analysis_id']}"))["status"] in {"queued", "running", "completed"}
