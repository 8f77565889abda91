/** The list of jobs: newest first, live by the feed, page by cursor. */

import { ago, agreed, badge, everyFrame, fill, h, jobHref, progressBar, say, short, words } from "./dom.js";
import { go, notice } from "./app.js";

const PAGE = 50;
const DONE = { cancel: "cancelled", retry: "tried again", rerun: "run again" };
const CHANGES = {
  started: (event) => ({ status: "running", attempt: event.attempt, progress: event.progress ?? 0, phase: null }),
  progress: ({ progress, phase }) => ({ progress, phase }),
  retry: ({ error }) => ({ status: "queued", error }),
  interrupted: () => ({ status: "queued" }),
  complete: ({ timestamp }) => ({ status: "completed", progress: 100, finished_at: timestamp }),
  error: ({ timestamp, message, code }) => ({ status: "failed", error: { message, code }, finished_at: timestamp }),
  cancelled: ({ timestamp }) => ({ status: "cancelled", finished_at: timestamp }),
  reopened: () => ({ status: "queued", finished_at: null, error: undefined }),
};

/** A job after one more event, for showing: the list asks the server again for the rest. */
export function changed(job, event) {
  return event.seq > job.seq ? { ...job, ...CHANGES[event.type]?.(event), seq: event.seq } : job;
}

/** Jobs as rows. A row stays the same element while its job is shown: what is focused, selected or being clicked stays so. */
export function jobList() {
  const shown = new Map();
  const element = h("ul.jobs");
  element.show = (jobs) => {
    const wanted = new Set(jobs.map(({ id }) => id));
    for (const [id, gone] of shown) if (!wanted.has(id)) gone.remove(), shown.delete(id);
    let place = element.firstChild;
    for (const job of jobs) {
      if (!shown.has(job.id)) shown.set(job.id, row(job));
      const one = shown.get(job.id);
      one.show(job);
      if (one === place) place = place.nextSibling;
      else element.insertBefore(one, place);
    }
  };
  return element;
}

function row({ id, engine, tags, created_at: made }) {
  const state = badge("");
  const bar = progressBar(0, `progress of ${engine} ${short(id)}`);
  const what = h("div.what");
  const attempt = h("div");
  const element = h("li", { "data-job": id }, state,
    h("div", h("div.name", h("a", { href: jobHref(id) }, engine, " ", h("span.mono.soft", short(id)))), h("div.row", tags.map((tag) => h("span.tag", tag)))),
    h("div.how", bar, what), h("div.when", ago(made), attempt));
  element.show = (job) => {
    const said = job.error && job.status !== "completed" ? job.error.message : job.status === "running" ? words(job.phase) || "starting" : "";
    state.dataset.status = job.status;
    say(state, job.status);
    bar.show(job.progress ?? 0, job.status);
    what.title = said;
    say(what, said || "\u00a0");
    say(attempt, job.attempt > 1 ? `attempt ${job.attempt}` : "");
  };
  return element;
}

export default function jobsView({ client, page, query, signal, connection, title }) {
  title("Jobs");
  const list = jobList();
  const more = h("button", { type: "button", hidden: true, onclick: () => older() }, "Older jobs");
  const message = h("p.soft", { role: "status" });
  const form = search(client, query.get("q") ?? "", signal);
  fill(page, h("div.top", h("h1", "Jobs"), h("a.button", { href: "/submit" }, "Submit a job")), h("section.card", { "aria-label": "Jobs" }, form, list, message, more));

  const q = query.get("q") ?? "";
  const asked = { limit: PAGE, signal, q };
  const filtered = q !== "";
  let jobs = new Map();
  let cursor = null;
  let paged = false; // older ones were asked for: they stay

  const paint = everyFrame(() => {
    list.show([...jobs.values()]);
    say(message, jobs.size ? "" : filtered ? "No job matches." : "No job yet.");
    more.hidden = !cursor;
  });
  const newer = (job) => [job.id, jobs.get(job.id)?.seq > job.seq ? jobs.get(job.id) : job];
  const load = async () => {
    try {
      const found = await client.jobs(asked);
      const last = found.jobs.at(-1)?.id;
      const kept = paged && last ? [...jobs].filter(([id]) => id < last) : [];
      jobs = new Map([...found.jobs.map(newer), ...kept]);
      if (!paged) cursor = found.next_cursor;
      paint();
    } catch (failure) {
      if (!signal.aborted) say(message, failure.message);
    }
  };
  const older = async () => {
    paged = more.disabled = true;
    try {
      const found = await client.jobs({ ...asked, cursor });
      for (const job of found.jobs) jobs.set(...newer(job));
      cursor = found.next_cursor;
      paint();
    } catch (failure) {
      if (!signal.aborted) notice(failure.message);
    } finally {
      more.disabled = false;
    }
  };
  let due = null;
  const again = () => (due ??= setTimeout(() => ((due = null), paged || signal.aborted || load()), 400));
  const feed = client.feed({ signal, onConnection: (state) => {
    connection(state);
    if (state === "live") load();
  }, onEvent: (event) => {
    const job = jobs.get(event.job_id);
    if (job) {
      jobs.set(event.job_id, changed(job, event));
      paint();
    }
    // A new job, or one that now matches or no longer does.
    if (event.type === "submitted" || (filtered && event.type in CHANGES && event.type !== "progress")) again();
  } });
  feed.done().catch((failure) => notice(failure.message));
  load();
}

function search(client, q, signal) {
  const input = h("input", { name: "q", type: "search", value: q, "aria-label": "Query", placeholder: "status:failed engine:fpl tag:weekly created_after:1h", autocomplete: "off", spellcheck: "false" });
  const bulk = (action) => h("button", { type: "button", onclick: () => all(client, action, q, signal) }, `${action[0].toUpperCase()}${action.slice(1)} all …`);
  return h("form.row.query", { role: "search", "aria-label": "Jobs", onsubmit: (event) => {
    event.preventDefault();
    const text = input.value.trim();
    go(text ? `/jobs?q=${encodeURIComponent(text)}` : "/jobs");
  } }, input, h("button", { type: "submit" }, "Search"), q && [h("a.button", { href: "/jobs" }, "Clear"), ["cancel", "retry", "rerun"].map(bulk)]);
}

/** Counts first, asks, then goes on until all that were counted are done. */
async function all(client, action, q, signal) {
  try {
    let { count, confirm } = await client.bulk(action, q, { signal });
    if (!count) return notice(`There is nothing to ${action} here.`, "done");
    if (!(await agreed(`${action[0].toUpperCase()}${action.slice(1)} ${count === 1 ? "one job" : `${count} jobs`} that ${q} finds?`))) return;
    const refused = [];
    while (confirm) {
      const done = await patiently(() => client.bulk(action, q, { confirm, limit: 500, signal }));
      refused.push(...done.refused);
      confirm = done.next;
    }
    const why = refused.length ? ` Not the others: ${[...new Set(refused.map(({ detail }) => detail))].slice(0, 3).join(" ")}` : "";
    notice(`${count - refused.length} of ${count} jobs ${DONE[action]}.${why}`, why ? "error" : "done");
  } catch (failure) {
    if (!signal.aborted) notice(failure.message);
  }
}

/** Calls again as long as there is no room for more of what it asks for. */
async function patiently(call) {
  for (;;) {
    try {
      return await call();
    } catch (failure) {
      if (failure.status !== 429) throw failure;
      await new Promise((resolve) => setTimeout(resolve, failure.retryAfterMs ?? 1000));
    }
  }
}
