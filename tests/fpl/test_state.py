"""What an entry's pages say of its squad in seasons with rules of their own."""

from typing import Any

from engine_worker.engines.fpl.replay import replayed
from engine_worker.engines.fpl.seasons import Ruleset, season_table
from engine_worker.engines.fpl.state import EntryPages, entry_state, opening_squad, prices_paid
from tests.fpl.toy import SQUAD

MANAGER = 900


def test_the_assistant_manager_of_2024_25_is_no_player_of_the_squad():
    """He stands in a sixteenth place while his chip is played, of a fifth kind of element."""
    places = [place for place, count in SQUAD.items() for _ in range(count)]
    elements: dict[int, dict[str, Any]] = {
        number: {"element_type": place, "now_cost": 50, "cost_change_start": 0, "team": number}
        for number, place in enumerate([*places, 5], start=1)
    }
    elements[MANAGER] = elements.pop(16)
    owned = list(range(1, 16))
    picks = [{"element": element, "position": number} for number, element in enumerate([*owned, MANAGER], start=1)]
    week = {"event_transfers": 0, "event_transfers_cost": 0, "bank": 250, "points": 50}
    weeks = [week | {"event": event, "total_points": 50 * event} for event in (1, 2)]
    history = {"current": weeks, "chips": [{"name": "manager", "event": 2}]}
    pages = EntryPages(history, [], {"picks": picks, "entry_history": weeks[-1]})
    rules = Ruleset.model_validate(season_table("2024-25"))
    assert opening_squad(pages, 3) == set(owned)
    assert prices_paid(elements, pages, 3) == dict.fromkeys(owned, 50)
    certificate = replayed(rules, elements, pages, 3)
    assert (certificate.weeks_exact, certificate.mismatches) == (2, [])
    state = entry_state(rules, elements, pages, 3, certificate)
    assert [holding.element for holding in state.holdings] == owned
    assert (state.free_transfers, "manager" in state.chips) == (2, False)
