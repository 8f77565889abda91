"""Prices that may move before the plan is done: what the API forecasts, and where it does not, what is under way. PURE."""

from collections.abc import Collection

from engine_worker.engines.fpl import decision as out
from engine_worker.engines.fpl.cards import Cards
from engine_worker.engines.fpl.collecting import Collected, PlayerRow, PriceForecast

_SHOWN = 10


def price_watch(collected: Collected, cards: Cards, bought: Collection[int]) -> list[out.PriceWatch]:
    """The players owned or bought whose price may move, the surest and soonest first; at most ten."""
    owned = {holding.element for holding in collected.squad.holdings}
    players = [cards.players[element] for element in sorted(owned | set(bought))]
    ranked = sorted(filter(None, map(_ranked, players)))
    return [_card(collected, cards, cards.players[rank[-1]], rank[-1] in owned) for rank in ranked[:_SHOWN]]


def _ranked(player: PlayerRow) -> tuple[int, int, int, int] | None:
    """Sorts forecasts by likelihood and day, then those without by net transfers; None for a price that stays."""
    if seen := _surest(player):
        return -abs(seen.likelihood), seen.offset, 0, player.element
    net = player.transfers_in - player.transfers_out
    if player.price_forecast is None and player.price_moved * net > 0:
        return 0, 0, -abs(net), player.element
    return None


def _surest(player: PlayerRow) -> PriceForecast | None:
    """The change the API is surest of, the first of those alike."""
    return min(player.price_forecast or (), key=lambda one: (-abs(one.likelihood), one.offset), default=None)


def _card(collected: Collected, cards: Cards, player: PlayerRow, owned: bool) -> out.PriceWatch:
    seen = _surest(player)
    way = seen.likelihood if seen else player.price_moved
    times = collected.price_times
    return out.PriceWatch(
        **cards.reference(player),
        direction="rise" if way > 0 else "fall",
        basis="forecast" if seen else "transfers",
        likelihood=max(-5, min(5, seen.likelihood)) if seen else None,
        percent=seen.percent if seen else None,
        by=times[seen.offset] if seen and 0 <= seen.offset < len(times) else None,
        owned=owned,
        now_cost=player.now_cost,
        moved=player.price_moved,
        transfers_in=player.transfers_in,
        transfers_out=player.transfers_out,
    )
