"""The replay certificate: past gameweeks of an entry derived again from its transfers and the rules. PURE.

What a decision rests on is not public (purchase prices, free transfers), but its consequences are: the bank, the cost of
hits, the number of transfers and the running total that the API recorded each gameweek. When all of them come out again,
the derivation is right; when one does not, the gameweek is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from engine_worker.engines.fpl.rules import UNLIMITED_CHIPS, hit_cost, position_violations
from engine_worker.engines.fpl.seasons import Ruleset
from engine_worker.engines.fpl.state import (
    EntryPages,
    Replay,
    chips_played,
    first_price,
    free_transfers_by_week,
    lasting_moves,
    opening_squad,
)

_MISMATCHES_MAX = 20
Week = Mapping[str, Any]
Elements = Mapping[int, Mapping[str, Any]]


def replayed(rules: Ruleset, elements: Elements, pages: EntryPages, gameweek: int) -> Replay:
    """The certificate of an entry before `gameweek`, the next."""
    weeks = [week for week in pages.history["current"] if week["event"] < gameweek]
    found = [
        *_hits(rules, pages, weeks, gameweek),
        *_counts(pages, weeks),
        *_totals(weeks),
        *_squads(rules, elements, pages, weeks, gameweek),
        *_banks(rules, elements, pages, weeks, gameweek),
    ]
    wrong = {event for event, _ in found}
    return Replay(
        weeks_checked=len(weeks),
        weeks_exact=sum(week["event"] not in wrong for week in weeks),
        mismatches=[f"GW{event}: {text}" for event, text in sorted(found)][:_MISMATCHES_MAX],
    )


def _hits(rules: Ruleset, pages: EntryPages, weeks: Sequence[Week], gameweek: int) -> Iterator[tuple[int, str]]:
    free, played = free_transfers_by_week(rules, pages.history, gameweek), chips_played(pages.history)
    for week in weeks[1:]:
        event = week["event"]
        owed = hit_cost(rules, event, free[event], week["event_transfers"], played.get(event))
        if owed != week["event_transfers_cost"]:
            yield event, f"hits cost {week['event_transfers_cost']}, the rules say {owed}"


def _counts(pages: EntryPages, weeks: Sequence[Week]) -> Iterator[tuple[int, str]]:
    """Transfers listed against transfers counted; those of a wildcard or free hit are listed but not counted."""
    played = chips_played(pages.history)
    for week in weeks[1:]:
        listed = sum(move["event"] == week["event"] for move in pages.transfers)
        if played.get(week["event"]) not in UNLIMITED_CHIPS and listed != week["event_transfers"]:
            yield week["event"], f"{week['event_transfers']} transfers counted, {listed} listed"


def _totals(weeks: Sequence[Week]) -> Iterator[tuple[int, str]]:
    for before, week in pairwise(weeks):
        total = before["total_points"] + week["points"] - week["event_transfers_cost"]
        if total != week["total_points"]:
            yield week["event"], f"{week['total_points']} points in all, its points and hits make {total}"


def _squads(
    rules: Ruleset, elements: Elements, pages: EntryPages, weeks: Sequence[Week], gameweek: int
) -> Iterator[tuple[int, str]]:
    """Whether the transfers lead from a squad to the last picks, selling only who is owned, buying only who is not."""
    squad = opening_squad(pages, gameweek)
    if weeks and squad <= elements.keys():
        positions = [elements[element]["element_type"] for element in sorted(squad)]
        for text in position_violations(rules, positions):
            yield weeks[0]["event"], f"opening squad: {text}"
    for move in lasting_moves(pages, gameweek):
        if move["element_out"] not in squad or move["element_in"] in squad:
            yield move["event"], f"transfer of {move['element_out']} for {move['element_in']} does not fit the squad"
        squad = squad - {move["element_out"]} | {move["element_in"]}


def _banks(
    rules: Ruleset, elements: Elements, pages: EntryPages, weeks: Sequence[Week], gameweek: int
) -> Iterator[tuple[int, str]]:
    """The opening squad cost its prices out of the season's budget; transfers did the rest.

    A gameweek with a free hit records the bank of the squad that is handed back.
    """
    opening = opening_squad(pages, gameweek)
    if not weeks or not opening <= elements.keys():
        return
    bank = rules.budget - sum(first_price(elements, pages, element) for element in opening)
    moves = lasting_moves(pages, gameweek)
    for week in weeks:
        made = [move for move in moves if move["event"] == week["event"]]
        bank += sum(move["element_out_cost"] - move["element_in_cost"] for move in made)
        if bank != week["bank"]:
            yield week["event"], f"bank {week['bank']}, the transfers leave {bank}"
