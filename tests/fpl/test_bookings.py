"""Transfers already made that cannot be: what is wrong, the smallest set in conflict, and the smallest cures."""

from collections.abc import Iterable
from typing import Any

import pytest

from engine_worker.engines.fpl.bookings import Bookings
from engine_worker.engines.fpl.params import BookedTransfer
from engine_worker.engines.fpl.state import Holding, SquadState
from tests.fpl.toy import RULES, SQUAD

POSITIONS = [place for place, count in SQUAD.items() for _ in range(count)]
# The owned are 1 to 15, three to a club; defenders 3 to 7, forwards 13 to 15. On sale: who costs what, where he plays.
ON_SALE = {101: (2, 40, 9), 102: (4, 80, 9), 103: (4, 90, 9), 104: (4, 50, 9), 105: (3, 50, 9), 106: (4, 60, 8)}


def elements() -> dict[int, dict[str, Any]]:
    owned = {
        element: {"element_type": place, "now_cost": 50, "team": 1 + element % 5}
        for element, place in enumerate(POSITIONS, start=1)
    }
    on_sale = {e: {"element_type": place, "now_cost": cost, "team": club} for e, (place, cost, club) in ON_SALE.items()}
    return owned | on_sale


def problems(bank: int, *pairs: tuple[int, int]) -> list[tuple[tuple[str | int, ...], str]]:
    state = SquadState(
        holdings=[Holding(element, 50, 50) for element in range(1, 16)], bank=bank, free_transfers=1, chips=[]
    )
    made = [BookedTransfer(sold=sold, bought=bought) for sold, bought in pairs]
    return Bookings(RULES, elements(), state, made, {9: "Nine"}, 20).problems()


def together(*indices: int) -> str:
    names = ", ".join(f"booked_transfers.{index}" for index in indices)
    return f"cannot be together: the smallest set in conflict is {names}"


def test_what_can_be_paid_is_no_problem():
    assert problems(45, (3, 101), (13, 102)) == []


def test_two_that_cannot_both_be_paid_are_the_conflict_and_the_money_short_is_a_cure():
    """The defender brings money in: he is no part of the conflict."""
    assert problems(40, (3, 101), (13, 102), (14, 103)) == [
        (("booked_transfers",), "cannot be paid: 20 too little in the bank (tenths of a million)"),
        (("booked_transfers", 1), together(1, 2)),
        (("booked_transfers", 2), together(1, 2)),
        (
            ("booked_transfers",),
            "the smallest change that makes it possible: without booked_transfers.1, or with 20 more in the bank",
        ),
    ]
    # Either cure is one, and no less money is.
    assert problems(40, (3, 101), (14, 103)) == []
    assert problems(60, (3, 101), (13, 102), (14, 103)) == []
    assert problems(59, (3, 101), (13, 102), (14, 103)) != []


def test_a_fourth_player_of_a_club_is_cured_by_leaving_one_of_the_four_out():
    found = problems(100, (3, 101), (13, 102), (14, 104), (8, 105))
    assert found[0] == (("booked_transfers",), "4 players from Nine, the rules allow 3")
    assert [where for where, _ in found[1:-1]] == [("booked_transfers", index) for index in range(4)]
    cure = "the smallest change that makes it possible: without booked_transfers.0"
    assert found[-1] == (("booked_transfers",), cure)


def test_one_of_the_wrong_position_is_a_conflict_by_itself():
    found = problems(100, (13, 102), (8, 104))
    assert [text for where, text in found if where == ("booked_transfers",)] == [
        "4 midfielders, the rules ask for 5",
        "4 forwards, the rules allow 3",
        "the smallest change that makes it possible: without booked_transfers.1",
    ]
    assert (("booked_transfers", 1), together(1)) in found


def test_where_nearly_all_must_go_a_change_is_named_without_trying_every_set():
    """Fifteen of wrong positions: the only cure is none of them, and thirty thousand sets are not looked at to find it."""
    wrong = {
        200 + e: {"element_type": place % 4 + 1, "now_cost": 50, "team": 9} for e, place in enumerate(POSITIONS, 1)
    }
    state = SquadState(holdings=[Holding(e, 50, 50) for e in range(1, 16)], bank=0, free_transfers=1, chips=[])
    made = [BookedTransfer(sold=e, bought=200 + e) for e in range(1, 16)]
    looked = 0

    class Counted(Bookings):
        def _violations(self, chosen: Iterable[int]) -> list[str]:
            nonlocal looked
            looked += 1
            return super()._violations(chosen)

    found = Counted(RULES, elements() | wrong, state, made, {9: "Nine"}, 20).problems()
    text = found[-1][1]
    assert text.startswith("a change that makes it possible: without booked_transfers.0, ")
    assert looked < 1000
    left = [
        pair
        for index, pair in enumerate(made)
        if f"booked_transfers.{index}" not in text.split(" without ")[1].split(", ")
    ]
    assert Bookings(RULES, elements() | wrong, state, left, {9: "Nine"}, 20).problems() == []


def test_without_one_go_those_that_build_on_it():
    """Bought too dear and sold again for somebody dearer: without the first there is no second."""
    found = problems(5, (13, 102), (102, 103))
    assert found[0] == (("booked_transfers",), "cannot be paid: 35 too little in the bank (tenths of a million)")
    assert found[-1] == (
        ("booked_transfers",),
        "the smallest change that makes it possible: without booked_transfers.0, or with 35 more in the bank",
    )


@pytest.mark.parametrize(
    "pair, field",
    [((99, 102), "sold"), ((13, 999), "bought"), ((13, 14), "bought")],
)
def test_who_is_not_there_is_named_by_his_field(pair, field):
    assert [where for where, _ in problems(100, pair)] == [("booked_transfers", 0, field)]
