"""A decision of the engine `fpl` as tables a manager can act on. Reads the JSON of `DecisionOutput`."""

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]


def decision(console: Console, output: Json) -> None:
    """Prints the whole decision: what to do, transfers, line-up with bench, captain's rivals, why, warnings."""
    console.print(Group(*_parts(output)))


def _parts(output: Json) -> list[RenderableType]:
    parts: list[RenderableType] = [_heading(output), Text()]
    now = output["transfer_plan"]["gameweeks"][0]
    parts += [_transfers(now["transfers"]), Text()]
    parts += [_lineup(output["lineup"], now["chip"]), Text()]
    parts += [_captains(output["captaincy"]), Text()]
    parts += [_chip(chip) for chip in output["chips"] if chip["use_now"]]
    parts += [_why(output["explanations"]), Text()]
    parts += [_price(one) for one in output.get("price_watch", [])]
    parts += [_review(seen) for seen in [output.get("review")] if seen]
    parts += [_plan(output["transfer_plan"])]
    if agreed := output["sensitivity"]:
        text = f"Same first moves in {agreed['agree_share']:.0%} of {agreed['runs']} solves on noisy projections"
        parts += [Text(text, "dim")]
    if known := output.get("calibration"):
        text = f"Projections {known['parameters']}: in seasons not fitted on, points rose by {known['slope']:.2f} for each "
        text += f"expected, {known['coverage']:.0%} fell from P10 to P90"
        parts += [Text(text, "dim")]
    parts += [Text(f"warning: {warned['message']}", "yellow") for warned in output["warnings"]]
    return parts


def _heading(output: Json) -> RenderableType:
    header, made, squad = output["header"], output["decision"], output["squad_state"]
    title = Text(f"Gameweek {header['gameweek']}  {header['season']}", "bold")
    title.append(f"  deadline {header['deadline_time']}", "dim")
    answer = Text(f"{made['action']}  ", "bold green").append(made["summary"], "not bold default")
    gain = f"expected {made['expected_gain_pts']:+.2f} points over holding"
    gain += f" ({made['gain_this_gameweek_pts']:+.2f} this gameweek)"
    if made["hit_cost_pts"]:
        gain += f", {made['hit_cost_pts']} points for hits included"
    if confidence := made["confidence"]:
        gain += f"; better than holding in {confidence['p_better_than_hold']:.0%} of {confidence['draws']} draws"
    means = f"free transfers {squad['free_transfers']}, bank {_money(squad['bank'])}"
    return Group(title, answer, Text(gain), Text(means, "dim"))


def _transfers(transfers: list[Json]) -> RenderableType:
    if not transfers:
        return Text("Transfers: none", "bold")
    table = _table()
    for heading in ("out", "club", "in", "club", "pos"):
        table.add_column(heading, no_wrap=True)
    for heading in ("price", "gain", "horizon"):
        table.add_column(heading, justify="right", no_wrap=True)
    for transfer in transfers:
        sold, bought = transfer["sold"], transfer["bought"]
        price = f"{_money(transfer['sell_price'])} → {_money(transfer['buy_price'])}"
        gains = (f"{transfer['gain_gameweek_pts']:+.2f}", f"{transfer['gain_horizon_pts']:+.2f}")
        table.add_row(sold["name"], sold["club"], bought["name"], bought["club"], bought["position"], price, *gains)
    return Group(Text("Transfers", "bold"), table)


def _lineup(lineup: Json, chip: str | None) -> RenderableType:
    title = f"Line-up {lineup['formation']}: {lineup['xp_total']:.2f} points expected, the captain's counted "
    title += "three times" if chip == "3xc" else "twice"
    title += ", the bench's as well" if chip == "bboost" else ""
    if added := lineup.get("autosub_xp"):
        title += f"; {added:.2f} more from substitutes"
    table = _table()
    table.add_column("pos", no_wrap=True)
    table.add_column("player", no_wrap=True)
    table.add_column("club", no_wrap=True)
    table.add_column("xp", justify="right")
    table.add_column("", no_wrap=True)
    marks = {lineup["captain"]["element"]: "captain", lineup["vice"]["element"]: "vice-captain"}
    for player in lineup["starters"]:
        mark = marks.get(player["element"], "")
        table.add_row(*_player(player), mark, style="bold" if mark == "captain" else "")
    for place, player in enumerate(lineup["bench"]):
        table.add_row(*_player(player), "bench" if place == 0 else f"bench {place}", style="dim")
    return Group(Text(title, "bold"), table)


def _table() -> Table:
    return Table(box=None, header_style="dim", pad_edge=False)


def _player(player: Json) -> tuple[str, str, str, str]:
    return player["position"], player["name"], player["club"], f"{player['xp']:.2f}"


def _captains(captaincy: Json) -> RenderableType:
    table = _table()
    table.add_column("player", no_wrap=True)
    for heading in ("xp", "10–90 %", "top scorer", "costs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for candidate in captaincy["candidates"][:3]:
        top = "" if candidate["p_top"] is None else f"{candidate['p_top']:.0%}"
        spread = f"{candidate['p10']}–{candidate['p90']}"
        table.add_row(candidate["name"], f"{candidate['xp']:.2f}", spread, top, f"{candidate['regret_pts']:.2f}")
    return Group(Text("Captain", "bold"), table)


def _chip(chip: Json) -> RenderableType:
    worth = "" if chip["value_now_pts"] is None else f"{chip['value_now_pts']:+.2f} points. "
    return Text(f"Play {chip['name']}: {worth}{chip['reason']}\n", "bold")


def _price(watch: Json) -> RenderableType:
    text = f"Price of {watch['name']} ({watch['club']}, {_money(watch['now_cost'])}) may {watch['direction']}"
    if watch["basis"] == "forecast":
        when = f" at {watch['by']}" if watch["by"] else ""
        return Text(f"{text}{when}: likelihood {watch['likelihood']:+d} of ±5 by the game's own forecast", "dim")
    ways = f"{watch['transfers_in']} transfers in, {watch['transfers_out']} out"
    return Text(f"{text} again: {ways} this gameweek", "dim")


def _why(explanations: list[Json]) -> RenderableType:
    return Group(Text("Why", "bold"), *(Text(f"- {one['text']}") for one in explanations))


def _review(seen: Json) -> RenderableType:
    text = f"Gameweek {seen['gameweek']} as advised ({seen['advice']})"
    if seen["advised_pts"] is None:
        return Text(f"{text}: no points yet", "dim")
    text += f": {seen['advised_pts']} points"
    beside = {"expected": seen.get("expected_pts"), "holding": seen.get("hold_pts")}
    beside |= {"the manager": seen["actual_pts"], "average": seen["average_pts"]}
    text += "".join(f", {name} {points:g}" for name, points in beside.items() if points is not None)
    return Text(text + {True: "; followed", False: "; not followed"}.get(seen["followed"], ""), "dim")


def _plan(plan: Json) -> RenderableType:
    proof = plan["optimality"]
    text = Text(f"Plan over {len(plan['gameweeks'])} gameweeks: {plan['objective_pts']:.2f} points", "dim")
    if proof["status"] == "optimal":
        return text.append(", proven best within the model")
    bound = "" if proof["bound_pts"] is None else f", none is worth more than {proof['bound_pts']:.2f}"
    return text.append(f", the best found in time{bound}")


def _money(tenths: int) -> str:
    return f"£{tenths / 10:.1f}m"
