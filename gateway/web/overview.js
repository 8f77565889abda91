/** How it goes: counts, ages, rates of the newest jobs, and whether the parts are well. */

import { badge, facts, fill, h, number, say, section, span } from "./dom.js";
import { looking } from "./looking.js";
import { bars, histogram, quantile } from "./plots.js";
import { jobList } from "./jobs.js";

const LOOK_MS = 5000;
const NEWEST = 200;
const MINUTES = 15;
const STATUSES = ["queued", "running", "completed", "failed", "cancelled"];

export default function overview({ client, page, signal, connection, title }) {
  title("Overview");
  const counts = tiles();
  const trouble = h("p.soft", { role: "status" });
  const rates = h("div.stack");
  const health = h("div");
  const newest = jobList();
  const none = h("p.soft");
  fill(page, h("div.top", h("h1", "Overview"), h("a.button", { href: "/submit" }, "Submit a job")), trouble, counts,
    h("div.columns", h("div.stack", section("Newest jobs", newest, none)), h("div.stack", section("Health", health), rates)));

  const soon = looking(async () => {
    try {
      const [stats, list, ready, workers] = await Promise.all([
        client.stats({ signal }), client.jobs({ limit: NEWEST, signal }), readiness(signal), forOperators(client.workers({ signal }))]);
      say(trouble, "");
      counts.show(stats, list.jobs);
      showHealth(health, stats, ready, workers);
      showRates(rates, list.jobs);
      newest.show(list.jobs.slice(0, 8));
      say(none, list.jobs.length ? "" : "No job yet.");
    } catch (failure) {
      if (!signal.aborted) say(trouble, failure.message);
    }
  }, LOOK_MS, signal);
  const feed = client.feed({ signal, onConnection: (state) => {
    connection(state);
    if (state === "live") soon();
  }, onEvent: ({ type }) => type !== "progress" && type !== "log" && type !== "partial" && soon() });
  feed.done().catch(() => {});
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

/** Numbers that change in their places: a tile that is being clicked stays. */
function tiles() {
  const numbers = {};
  const tile = (name, text, href) => h(href ? "a.tile" : "div.tile", { href }, (numbers[name] = h("b", "–")), h("span", text));
  const element = h("div.tiles", STATUSES.map((status) => tile(status, status, `/jobs?q=status:${status}`)),
    tile("oldest", "oldest waiting"), tile("minute", "jobs in the last minute"));
  element.show = (stats, jobs) => {
    const lastMinute = jobs.filter(({ created_at }) => Date.now() - Date.parse(created_at) < 60_000).length;
    for (const status of STATUSES) say(numbers[status], number(stats.jobs[status] ?? 0));
    say(numbers.oldest, stats.oldest_due_ms === null ? "–" : span(stats.oldest_due_ms));
    say(numbers.minute, lastMinute === NEWEST ? `${NEWEST}+` : number(lastMinute));
  };
  return element;
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
