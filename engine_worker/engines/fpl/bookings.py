"""Transfers already made on the site: what is impossible about them, which of them conflict, and what would cure it.

The only part of a request that can make every plan impossible: holding is always a plan for the squad one has, but the
squad after these may be illegal or unpaid for. There are at most fifteen of them, so a conflict that has no smaller one in it
and the cures are found by trying.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from engine_worker.engines.fpl.entries import booked
from engine_worker.engines.fpl.params import BookedTransfer
from engine_worker.engines.fpl.rules import club_violations, position_violations
from engine_worker.engines.fpl.seasons import Ruleset
from engine_worker.engines.fpl.state import SquadState

Problem = tuple[tuple[str | int, ...], str]
Elements = Mapping[int, Mapping[str, Any]]
_WHERE = "booked_transfers"
# Every choice of so many to leave out is tried: some six hundred at most. All of fifteen would keep a gateway busy for a second.
_LEFT_OUT_MAX = 3


class Bookings:
    """The booked transfers of one request against the squad they were made from."""

    def __init__(
        self,
        rules: Ruleset,
        elements: Elements,
        state: SquadState,
        transfers: Sequence[BookedTransfer],
        club_names: Mapping[int, str],
        gameweek: int,
    ) -> None:
        self._rules = rules
        self._elements = elements
        self._state = state
        self._transfers = transfers
        self._club_names = club_names
        self._gameweek = gameweek

    def problems(self) -> list[Problem]:
        """What is impossible, by field; then the smallest set that cannot be together, and the smallest cures."""
        if found := self._strangers():
            return found
        everyone = range(len(self._transfers))
        if not (wrong := self._violations(everyone)):
            return []
        blamed = self._conflict(everyone)
        together = f"cannot be together: the smallest set in conflict is {_names(blamed)}"
        return [
            *(((_WHERE,), text) for text in wrong),
            *(((_WHERE, index), together) for index in blamed),
            ((_WHERE,), self._cures()),
        ]

    def _strangers(self) -> list[Problem]:
        problems: list[Problem] = []
        owned = {holding.element for holding in self._state.holdings}
        for index, transfer in enumerate(self._transfers):
            where = (_WHERE, index)
            if transfer.sold not in owned:
                problems.append(((*where, "sold"), f"player {transfer.sold} is not in the squad"))
            if transfer.bought not in self._elements:
                problems.append(((*where, "bought"), f"no player {transfer.bought} in this source"))
            elif transfer.bought in owned:
                problems.append(((*where, "bought"), f"player {transfer.bought} is in the squad already"))
            owned = owned - {transfer.sold} | {transfer.bought}
        return problems

    def _violations(self, chosen: Iterable[int]) -> list[str]:
        """What the rules hold against the squad after these; a squad left as the game has it stands."""
        if not (made := self._made(chosen)):
            return []
        after = self._after(made)
        players = [self._elements[holding.element] for holding in after.holdings]
        found = [
            *position_violations(self._rules, [player["element_type"] for player in players]),
            *club_violations(self._rules, [player["team"] for player in players], self._club_names),
        ]
        if after.bank < 0:
            found.append(f"cannot be paid: {-after.bank} too little in the bank (tenths of a million)")
        return found

    def _after(self, made: list[BookedTransfer]) -> SquadState:
        return booked(self._rules, self._elements, self._state, made, self._gameweek)

    def _made(self, chosen: Iterable[int]) -> list[BookedTransfer]:
        """Those of these that can be made; one that builds on another that is not among them is left out too."""
        owned, made = {holding.element for holding in self._state.holdings}, []
        for index in chosen:
            transfer = self._transfers[index]
            if transfer.sold in owned and transfer.bought not in owned:
                owned = owned - {transfer.sold} | {transfer.bought}
                made.append(transfer)
        return made

    def _conflict(self, everyone: Iterable[int]) -> list[int]:
        """A set that is illegal, of which no part is."""
        kept = list(everyone)
        for index in list(kept):
            rest = [other for other in kept if other != index]
            if self._violations(rest):
                kept = rest
        return kept

    def _cures(self) -> str:
        """The fewest to leave out, and the money that would do as well; where many must go, some that would do."""
        everyone = list(range(len(self._transfers)))
        for count in range(1, min(len(everyone), _LEFT_OUT_MAX) + 1):
            for dropped in combinations(everyone, count):
                if not self._violations([index for index in everyone if index not in dropped]):
                    cures = [f"without {_names(dropped)}"]
                    wrong, short = self._violations(everyone), -self._after(self._made(everyone)).bank
                    if short > 0 and len(wrong) == 1:
                        cures.append(f"with {short} more in the bank")
                    return f"the smallest change that makes it possible: {', or '.join(cures)}"
        kept: list[int] = []
        for index in everyone:
            if not self._violations([*kept, index]):
                kept.append(index)
        return f"a change that makes it possible: without {_names(sorted(set(everyone) - set(kept)))}"


def _names(indices: Iterable[int]) -> str:
    return ", ".join(f"{_WHERE}.{index}" for index in indices)
