/** How it goes: counts, ages, rates of the newest jobs, and whether the parts are well. */

import { badge, everyFrame, facts, fill, h, number, section, span } from "./dom.js";
import { bars, histogram, quantile } from "./plots.js";
import { rows } from "./jobs.js";

const LOOK_MS = 5000;
const NEWEST = 200;
const MINUTES = 15;
const STATUSES = ["queued", "running", "completed", "failed", "cancelled"];

export default function overview({ client, page, signal, connection, title }) {
  title("Overview");
  const counts = h("div.tiles");
  const rates = h("div.stack");
  const health = h("div");
  const newest = h("div");
  fill(page, h("div.top", h("h1", "Overview"), h("a.button", { href: "/submit" }, "Submit a job")), counts,
    h("div.columns", h("div.stack", section("Newest jobs", newest)), h("div.stack", section("Health", health), rates)));

  let busy = false;
  let again = false;
  const look = async () => {
    if (busy) return void (again = true);
    busy = true;
    try {
      const [stats, list, ready, workers] = await Promise.all([
        client.stats({ signal }), client.jobs({ limit: NEWEST, signal }), readiness(signal), forOperators(client.workers({ signal }))]);
      showCounts(counts, stats, list.jobs);
      showHealth(health, stats, ready, workers);
      showRates(rates, list.jobs);
      fill(newest, list.jobs.length ? rows(list.jobs.slice(0, 8)) : h("p.soft", "No job yet."));
    } catch (failure) {
      if (!signal.aborted && !counts.firstChild) fill(counts, h("p.soft", failure.message));
    } finally {
      busy = false;
      if (again && !signal.aborted) setTimeout(look, 1000);
      again = false;
    }
  };
  const soon = everyFrame(look);
  const feed = client.feed({ signal, onConnection: (state) => {
    connection(state);
    if (state === "live") soon();
  }, onEvent: ({ type }) => type !== "progress" && type !== "log" && type !== "partial" && (again = true, soon()) });
  feed.done().catch(() => {});
  const timer = setInterval(look, LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  look();
}

/** What only `admin` may see: nothing, without. */
const forOperators = (asked) => asked.catch((failure) => (failure.status === 403 ? [] : Promise.reject(failure)));

async function readiness(signal) {
  try {
    return (await fetch("/readyz", { signal, cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

function showCounts(counts, stats, jobs) {
  const lastMinute = jobs.filter(({ created_at }) => Date.now() - Date.parse(created_at) < 60_000).length;
  fill(counts,
    STATUSES.map((status) => h("a.tile", { href: `/jobs?q=status:${status}` }, h("b", number(stats.jobs[status] ?? 0)), h("span", status))),
    h("div.tile", h("b", stats.oldest_due_ms === null ? "–" : span(stats.oldest_due_ms)), h("span", "oldest waiting")),
    h("div.tile", h("b", lastMinute === NEWEST ? `${NEWEST}+` : number(lastMinute)), h("span", "jobs in the last minute")));
}

function showHealth(health, stats, ready, workers) {
  const draining = workers.filter((worker) => worker.draining).length;
  const light = (well) => badge(well ? "up" : "down");
  if (!stats.bus) return fill(health, facts([["Database", light(ready)]]));
  fill(health, facts([
    ["Database", h("span.row", light(ready), stats.log)],
    ["Bus", h("span.row", light(stats.bus.connected), stats.bus.name)],
    ["Workers", h("span", h("a", { href: "/workers" }, `${stats.workers} running`), draining > 0 && `, ${draining} leaving`)],
    ["Slots in use", `${stats.running} of ${stats.slots}`],
    ["Viewers here", number(stats.viewers)],
    ["Events", number(stats.events)],
    ["Repaired by sweeps", number(stats.sweep_repairs_total)],
  ]));
}

function showRates(rates, jobs) {
  const waits = jobs.filter((job) => job.started_at && job.attempt === 1).map((job) => Date.parse(job.started_at) - Date.parse(job.not_before && job.not_before > job.created_at ? job.not_before : job.created_at));
  const runs = jobs.filter((job) => job.finished_at && job.started_at).map((job) => Date.parse(job.finished_at) - Date.parse(job.started_at));
  const now = Date.now();
  const minutes = Array.from({ length: MINUTES }, (_, place) => {
    const age = MINUTES - 1 - place;
    const many = jobs.filter(({ created_at }) => Math.floor((now - Date.parse(created_at)) / 60_000) === age).length;
    return { label: age % 5 ? "" : age ? `−${age}` : "now", parts: [many], text: many ? String(many) : "" };
  });
  fill(rates,
    section("Jobs a minute", bars(minutes, { height: 110, label: `Jobs made in each of the last ${MINUTES} minutes` })),
    spread("Wait for a worker", waits), spread("Run time", runs));
}

function spread(name, values) {
  const [p50, p99] = [quantile(values, 0.5), quantile(values, 0.99)];
  return section(name, facts([["half within", span(p50)], ["99 % within", span(p99)], ["of the newest", values.length === 1 ? "job" : `${values.length} jobs`]]),
    values.length > 0 && histogram(values, { text: span, label: `${name}: half within ${span(p50)}, 99 percent within ${span(p99)}` }));
}
