"""Sentences made of the numbers of a decision: which points, which constraint, what would flip it. PURE."""

from collections.abc import Iterator

from engine_worker.engines.fpl import decision as out

_CONSTRAINTS = {"more_money": "£0.5m more would be worth", "more_transfers": "One more free transfer would be worth"}
_SHOWN = 5
# Below this a constraint or an alternative is no news.
_SMALL_PTS = 0.05


def explanations(
    plan: out.TransferPlan,
    captaincy: out.Captaincy,
    chips: list[out.ChipCard],
    choices: list[out.Choice],
    alternatives: list[out.Alternative],
) -> list[out.Explanation]:
    """Why this is the decision, most important first. Every number is one of the decision's own."""
    return [
        *_transfers(plan.gameweeks[0], choices),
        *_choices(plan, choices, alternatives),
        *_captain(captaincy, plan.gameweeks[0].chip),
        *(out.Explanation(topic="chip", text=f"{chip.name}: {chip.reason}.") for chip in chips),
        *_constraints(plan, choices),
    ]


def given_back(chip: str | None, points: int) -> Iterator[out.Explanation]:
    """What a chip gives back of the points that transfers already made have cost."""
    if points:
        yield out.Explanation(topic="chip", text=f"{chip} gives back the {points} points of transfers already made.")


def _less(points: float, proven: bool) -> str:
    """What another choice costs: without a proof a better plan with it may have been missed."""
    return f"{'' if proven else 'at most '}{points:.2f}"


def _transfers(week: out.GameweekPlan, choices: list[out.Choice]) -> Iterator[out.Explanation]:
    proven = {choice.player.element for choice in choices if choice.player is not None and choice.proven}
    # Of a whole new squad only the transfers that bring most.
    for transfer in sorted(week.transfers, key=lambda one: -one.gain_horizon_pts)[:_SHOWN]:
        text = (
            f"{transfer.bought.name} for {transfer.sold.name}: {transfer.gain_gameweek_pts:+.2f} points this gameweek, "
            f"{transfer.gain_horizon_pts:+.2f} over the horizon, {_money(transfer.buy_price - transfer.sell_price)}."
        )
        if transfer.regret_pts is not None:
            less = _less(transfer.regret_pts, transfer.bought.element in proven)
            text += f" The best plan without him is worth {less} less."
        yield out.Explanation(topic="transfer", text=text)
        if transfer.break_even_xp is not None and transfer.projected_xp is not None:
            text = (
                f"{transfer.bought.name} is counted on for {transfer.projected_xp:.2f} points while owned; the plan "
                f"stays the best as long as {transfer.break_even_xp:.2f} of them are to be expected."
            )
            yield out.Explanation(topic="flip", text=text)


def _choices(
    plan: out.TransferPlan, choices: list[out.Choice], alternatives: list[out.Alternative]
) -> Iterator[out.Explanation]:
    now = plan.gameweeks[0]
    for choice in choices:
        if choice.kind == "roll":
            less = _less(choice.regret_pts, choice.proven)
            text = f"Doing nothing now and planning on from there is worth {less} points less."
            yield out.Explanation(topic="roll", text=text)
        if choice.kind == "no_hit":
            less = _less(choice.regret_pts, choice.proven)
            text = f"The hit costs {now.hit_cost_pts}; the best plan without any hit is worth {less} less."
            yield out.Explanation(topic="hit", text=text)
    if alternatives:
        best = alternatives[0]
        made = {(transfer.sold.element, transfer.bought.element) for transfer in now.transfers}
        new = [swap for swap in best.transfers if (swap.sold.element, swap.bought.element) not in made]
        moves = ", ".join(f"{swap.bought.name} for {swap.sold.name}" for swap in new[:_SHOWN])
        moves = moves or ("fewer transfers" if best.transfers else "no transfer")
        played = f"{best.chip} with " if best.chip else ""
        less = _less(best.regret_pts, best.proven)
        text = f"The next best first move is {played}{moves}: {less} points less over the horizon."
        yield out.Explanation(topic="flip", text=text)


def _captain(captaincy: out.Captaincy, chip: str | None) -> Iterator[out.Explanation]:
    first, *others = captaincy.candidates
    text = f"Captain {first.name}: {first.xp:.2f} points expected"
    if others:
        # A triple captain counts twice more, so the choice is worth twice what divides the two.
        ahead = others[0].regret_pts / (2 if chip == "3xc" else 1)
        text += f", {ahead:.2f} more than {others[0].name}, who would need as much to be chosen"
    yield out.Explanation(topic="captain", text=f"{text}.")


def _constraints(plan: out.TransferPlan, choices: list[out.Choice]) -> Iterator[out.Explanation]:
    for choice in choices:
        if choice.kind in _CONSTRAINTS:
            worth = max(-choice.regret_pts, 0.0)
            if not choice.proven and worth < _SMALL_PTS:
                continue  # nothing was found with it, and nothing was proven
            least = "" if choice.proven else "at least "
            word = f"{_CONSTRAINTS[choice.kind]} {least}{worth:.2f} points" if worth >= _SMALL_PTS else None
            yield out.Explanation(
                topic="constraint",
                text=f"{word}." if word else f"{_CONSTRAINTS[choice.kind]} nothing: it does not bind the plan.",
            )
    if not plan.gameweeks[0].bank_after and plan.gameweeks[0].transfers:
        yield out.Explanation(topic="constraint", text="No money is left after this gameweek's transfers.")


def _money(tenths: int) -> str:
    if not tenths:
        return "at the same price"
    return f"£{abs(tenths) / 10:.1f}m {'dearer' if tenths > 0 else 'cheaper'}"
