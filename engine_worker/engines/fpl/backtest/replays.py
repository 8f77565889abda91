"""Past seasons played again from random squads: every strategy from the same start, scored by what happened.

A window is some gameweeks in a row from one squad. Windows of a season lie in stretches that do not overlap, so what
happens in one stretch says nothing of the next, and intervals can be honest about it.
"""

import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from engine_worker.engines.fpl.backtest.scenes import Scene
from engine_worker.engines.fpl.backtest.squads import random_squad
from engine_worker.engines.fpl.backtest.strategies import STRATEGIES, Team
from engine_worker.engines.fpl.problem import WeekPlan
from engine_worker.engines.fpl.rules import next_free_transfers
from engine_worker.engines.fpl.scoring import multipliers, substitutions
from engine_worker.engines.fpl.solver import Limits

# Nodes, not seconds, end a solve early: a replay is the same on any machine. The time only catches a solver that hangs.
LIMITS = Limits(seconds=600, rel_gap=1e-3, nodes=200)
_SEED = 20_260_801


@dataclass(frozen=True)
class Design:
    """What is replayed: at least so many windows a season, of so many gameweeks, by plans over `horizon` of them."""

    windows: int = 200
    weeks: int = 6
    horizon: int = 3


@dataclass(frozen=True)
class Window:
    """One squad over `weeks` gameweeks that have a snapshot, the first of them `gameweek`."""

    season: str
    gameweek: int
    number: int


@dataclass(frozen=True)
class Ways:
    """What one strategy made of a window: points of each gameweek after hits, points spent on hits, transfers made.

    `unproven` counts the gameweeks whose plan was the best found within the limits, not a proven optimum.
    """

    points: list[int]
    hit_points: int
    transfers: int
    unproven: int


@dataclass(frozen=True)
class Replayed:
    """A window by strategy."""

    window: Window
    ways: dict[str, Ways]

    def total(self, strategy: str) -> int:
        """Points of the whole window."""
        return sum(self.ways[strategy].points)


def windows_of(scenes: Sequence[Scene], design: Design) -> list[Window]:
    """At least `design.windows` windows of a season, the same number in each stretch."""
    firsts = [scenes[place] for place in range(0, len(scenes) - design.weeks + 1, design.weeks)]
    squads = -(-design.windows // len(firsts)) if firsts else 0
    return [Window(one.season, one.gameweek, number) for number in range(squads) for one in firsts]


def replay(scenes: Sequence[Scene], window: Window, design: Design) -> Replayed:
    """Plays a window with every strategy."""
    first = next(place for place, scene in enumerate(scenes) if scene.gameweek == window.gameweek)
    played = scenes[first : first + design.weeks]
    start, ground = played[0], played[0].collected
    year = int(window.season[:4])
    squad, bank = random_squad(ground.rules, list(ground.players), [_SEED, year, start.gameweek, window.number])
    team = Team({player.element: player.now_cost for player in squad}, bank, 1)
    return Replayed(window, {name: _way(name, played, team) for name in STRATEGIES})


def scored(scene: Scene, week: WeekPlan) -> int:
    """What a gameweek brought by the game's own substitutions and captaincy, hits deducted."""
    everyone = {player.element: player for player in scene.collected.players} | dict(scene.gone)
    position = {element: everyone[element].position for element in week.squad}
    done, lineup = scene.outcomes, week.lineup

    def played(element: int) -> bool:
        return element in done and done[element].minutes > 0

    made = substitutions(scene.collected.rules, lineup.starters, lineup.bench, position, played)
    off = {leaving for _, leaving in made}
    eleven = [element for element in lineup.starters if element not in off] + [coming for coming, _ in made]
    bench = [element for element in position if element not in eleven]
    times = multipliers(eleven, bench, lineup.captain, lineup.vice, None, played)
    return sum(count * done[element].points for element, count in times.items() if element in done) - week.hit_cost


def _way(name: str, scenes: Sequence[Scene], team: Team) -> Ways:
    points, hit_points, transfers, unproven = [], 0, 0, 0
    for scene in scenes:
        chosen = STRATEGIES[name](scene, team, LIMITS)
        week = chosen.week
        points.append(scored(scene, week))
        hit_points += week.hit_cost
        transfers += len(week.bought)
        unproven += not chosen.proven
        team = _after(scene, team, week)
    return Ways(points, hit_points, transfers, unproven)


def _after(scene: Scene, team: Team, week: WeekPlan) -> Team:
    price = {player.element: player.now_cost for player in scene.collected.players}
    paid = {e: paid for e, paid in team.paid.items() if e in week.squad} | {e: price[e] for e in week.bought}
    free = next_free_transfers(scene.collected.rules, scene.gameweek, team.free_transfers, len(week.bought))
    return Team(paid, week.bank, free)


class Journal:
    """Replayed windows in a file, a line of JSON each: whoever is stopped goes on where he was.

    `under` names all that decides a result; lines under another name stay in the file and are not looked at.
    """

    def __init__(self, file: Path, under: str) -> None:
        self._file, self._under = file, under

    def read(self) -> dict[Window, Replayed]:
        """What is done. A line cut short by a crash is not."""
        if not self._file.exists():
            return {}
        found = {}
        for line in self._file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["under"] == self._under:
                window = Window(**row["window"])
                found[window] = Replayed(window, {name: Ways(**ways) for name, ways in row["ways"].items()})
        return found

    def add(self, replayed: Replayed) -> None:
        """Writes a window down; after this it is done, whatever happens."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab+") as out:
            if out.tell():
                out.seek(-1, os.SEEK_END)
                # What follows half a line begins a line of its own.
                out.write(b"" if out.read(1) == b"\n" else b"\n")
            out.write(json.dumps({"under": self._under, **asdict(replayed)}).encode() + b"\n")


def named(design: Design, parameters: str, engine_version: int) -> str:
    """A short name of all that decides what the replay of a window finds, but for the data."""
    text = json.dumps([design.weeks, design.horizon, asdict(LIMITS), parameters, engine_version, sorted(STRATEGIES)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def replay_all(
    scenes: Sequence[Scene], windows: Iterable[Window], design: Design, processes: int
) -> Iterator[Replayed]:
    """Plays windows of one season in processes of their own, each yielded as it is done."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _receive, (scenes, design)) as pool:
        try:
            for done in as_completed([pool.submit(_replay, window) for window in windows]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


_RECEIVED: list[tuple[Sequence[Scene], Design]] = []


def _receive(scenes: Sequence[Scene], design: Design) -> None:
    # The solver greets on standard output, which is the command's.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _RECEIVED[:] = [(scenes, design)]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed cannot say so; without this its children would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _replay(window: Window) -> Replayed:
    scenes, design = _RECEIVED[0]
    return replay(scenes, window, design)


def by_stretch(replayed: Iterable[Replayed]) -> Mapping[tuple[str, int], list[Replayed]]:
    """Windows that shared their luck: season and first gameweek → windows."""
    found: dict[tuple[str, int], list[Replayed]] = {}
    for one in sorted(replayed, key=lambda r: (r.window.season, r.window.gameweek, r.window.number)):
        found.setdefault((one.window.season, one.window.gameweek), []).append(one)
    return found
