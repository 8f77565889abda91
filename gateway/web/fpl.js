/** A decision of the engine fpl: what to do, the pitch, the money, the points, and the search behind it. */

import { facts, h, money, points, section, table, words } from "./dom.js";
import { bars, closing, styled as plots } from "./plots.js";
import { sheet } from "./sheet.js";

export const styled = Promise.all([plots, sheet("fpl.css")]);
const ROWS = ["GKP", "DEF", "MID", "FWD"];
const SHIRT = "M8 3 3 6l1.6 4L7 9v11h10V9l2.4 1L21 6l-5-3c-.6 1.5-2.2 2.4-4 2.4S8.6 4.5 8 3Z";

export function decision(output, status) {
  const { header, decision: made, lineup, transfer_plan: plan, squad_state: squad } = output;
  const now = plan.gameweeks[0];
  const better = made.confidence ? `, better than holding in ${Math.round(100 * made.confidence.p_better_than_hold)} % of ${made.confidence.draws} draws` : "";
  return [
    section(`Gameweek ${header.gameweek}, ${header.season}`,
      h("div.answer", h("span.badge", { "data-status": "completed" }, made.action), h("strong", made.summary)),
      h("p.soft", `${points(made.expected_gain_pts, true)} points over holding across the horizon, ${points(made.gain_this_gameweek_pts, true)} this gameweek${better}.`,
        made.hit_cost_pts ? ` ${made.hit_cost_pts} points are taken for hits.` : ""),
      facts([["deadline", new Date(header.deadline_time).toLocaleString()], ["bank", money(squad.bank)], ["free transfers", String(squad.free_transfers)],
        ["proof", proof(plan.optimality)], ["source", header.source], ["state", status === "completed" ? null : "best so far"]]),
      pitch(lineup, now.chip)),
    section("Transfers", now.transfers.length ? transfers(now.transfers) : h("p.soft", "None.")),
    section("Points by gameweek", weeks(plan), h("div.legend", h("span", h("i"), "eleven and captain"), h("span", h("i.faint"), "bench, by its chance to come on"))),
    captains(output.captaincy), alternatives(output),
    output.explanations.length > 0 && section("Why", h("ul", output.explanations.map(({ text }) => h("li", text)))),
    output.review && section("The decision before", h("p", lookedBack(output.review))),
    output.warnings.length > 0 && section("Mind", h("ul", output.warnings.map(({ message }) => h("li", message)))),
  ];
}

function proof({ status, rel_gap: gap, stage }) {
  return status === "optimal" ? "optimal within the model" : `${words(status)}${typeof gap === "number" ? `, gap ${(100 * gap).toFixed(2)} %` : ""}, ${words(stage)}`;
}

function pitch(lineup, chip) {
  const counted = `the captain's counted ${chip === "3xc" ? "three times" : "twice"}${chip === "bboost" ? ", the bench's as well" : ""}`;
  const marks = { [lineup.captain.element]: ["C", "captain"], [lineup.vice.element]: ["V", "vice-captain"] };
  const at = (position) => lineup.starters.filter((player) => player.position === position);
  return [
    h("div.pitch", { role: "group", "aria-label": `Line-up ${lineup.formation}, ${points(lineup.xp_total)} points expected` },
      ROWS.map((position) => h("ul", { "aria-label": position }, at(position).map((player) => card(player, marks[player.element]))))),
    h("ul.bench", { "aria-label": "Bench, in order" }, lineup.bench.map((player) => card(player))),
    h("p.soft.small", `${lineup.formation} · ${points(lineup.xp_total)} points expected, ${counted} · bench in order`),
  ];
}

function card({ name, club, xp }, mark) {
  const hue = [...club].reduce((total, letter) => total + letter.charCodeAt(0) * 47, 0) % 360;
  return h("li.player", h("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, h("path", { d: SHIRT, fill: `hsl(${hue} 62% 52%)`, stroke: "#0005" })),
    mark && h("em", { title: mark[1], "aria-label": mark[1], role: "img" }, mark[0]), h("b", { title: `${name}, ${club}` }, name), h("span", `${club} ${points(xp)}`));
}

function transfers(list) {
  return h("ul.transfers", list.map((one) => h("li",
    h("div", h("b", one.sold.name), h("div.soft.small", `out · ${one.sold.club} · ${money(one.sell_price)}`)), h("span", { "aria-label": "for" }, "→"),
    h("div", h("b", one.bought.name), h("div.soft.small", `in · ${one.bought.club} · ${money(one.buy_price)}`)),
    h("div.number", gain(one.gain_horizon_pts), h("div.soft.small", `${points(one.gain_gameweek_pts, true)} now`)))));
}

function gain(value) {
  return h(value < 0 ? "span.loss" : "span.gain", points(value, true));
}

function weeks(plan) {
  const columns = plan.gameweeks.map((week) => ({ label: `GW${week.gameweek}${week.chip ? ` ${week.chip}` : ""}`, parts: [week.xp_lineup, week.xp_bench], text: points(week.xp_lineup + week.xp_bench - week.hit_cost_pts) }));
  const text = columns.map(({ label, text: value }) => `${label} ${value}`).join(", ");
  return [bars(columns, { label: `Expected points: ${text}` }),
    h("details", h("summary", "The plan week by week"), table(["gameweek", "transfers", "captain", "chip", "bank", "points"], plan.gameweeks.map((week) => [
      `GW${week.gameweek}`, week.transfers.map(({ sold, bought }) => `${sold.name} → ${bought.name}`).join(", ") || "none", week.captain.name, week.chip ?? "", money(week.bank_after), points(week.xp_lineup)]),
      { numbers: [4, 5], caption: "Plan" }))];
}

function captains({ candidates }) {
  return section("Captain", table(["player", "points", "10–90 %", "top scorer", "costs"], candidates.slice(0, 5).map((one) => [
    `${one.name} (${one.club})`, points(one.xp), `${one.p10}–${one.p90}`, one.p_top === null ? "–" : `${Math.round(100 * one.p_top)} %`, points(one.regret_pts)]), { numbers: [1, 2, 3, 4], caption: "Captain" }));
}

function alternatives({ alternatives: others, choices }) {
  if (!others.length && !choices.length) return null;
  const swaps = (list) => list.map(({ sold, bought }) => `${sold.name} → ${bought.name}`).join(", ") || "no transfer";
  return section("Alternatives", table(["instead", "worth less"], [
    ...others.map((one) => [`${one.rank}. ${swaps(one.transfers)}${one.chip ? `, ${one.chip}` : ""}`, points(one.regret_pts) + (one.proven ? "" : " at most")]),
    ...choices.map((one) => [words(one.kind) + (one.player ? ` ${one.player.name}` : ""), points(one.regret_pts) + (one.proven ? "" : " at most")]),
  ], { numbers: [1], caption: "Alternatives" }));
}

function lookedBack({ gameweek, advice, followed, ...seen }) {
  const beside = [["expected", seen.expected_pts], ["holding", seen.hold_pts], ["the manager", seen.actual_pts], ["average", seen.average_pts]];
  const scored = typeof seen.advised_pts === "number" ? [`${seen.advised_pts} points`, ...beside.filter(([, value]) => typeof value === "number").map(([name, value]) => `${name} ${value}`)].join(", ") : "no points yet";
  return `Gameweek ${gameweek} as advised (${advice}): ${scored}${followed === true ? "; followed" : followed === false ? "; not followed" : ""}.`;
}

/** The plan's worth rising and the bound falling while the solver works. */
export function search(incumbents, started) {
  const from = incumbents[0].value.elapsed_s;
  const series = incumbents.filter(({ attempt }) => attempt === (started?.attempt ?? attempt)).map(({ value }) => ({ x: value.elapsed_s - from, low: value.objective_pts, high: value.bound_pts }));
  const { value } = incumbents.at(-1);
  const gap = typeof value.gap === "number" ? `${(100 * value.gap).toFixed(2)} %` : "not known yet";
  return [closing(series, { label: `The plan rose to ${points(value.objective_pts)} points, the gap is ${gap}` }),
    h("div.legend", h("span", h("i"), `best plan ${points(value.objective_pts)}`), h("span", h("i.amber"), `bound ${points(value.bound_pts)}`), h("span", `gap ${gap}`), h("span", words(value.stage)))];
}
