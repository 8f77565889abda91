/** The list of jobs: newest first, live by the feed, page by cursor. */

import { ago, agreed, badge, everyFrame, fill, h, jobHref, progressBar, short, words } from "./dom.js";
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

/** The jobs as rows. */
export function rows(jobs) {
  return h("ul.jobs", jobs.map(row));
}

function row(job) {
  const bar = progressBar(job.progress ?? 0, `progress of ${job.engine} ${short(job.id)}`).show(job.progress ?? 0, job.status);
  const what = job.error && job.status !== "completed" ? job.error.message : job.status === "running" ? words(job.phase) || "starting" : "";
  return h("li", { "data-job": job.id },
    badge(job.status),
    h("div", h("div.name", h("a", { href: jobHref(job.id) }, job.engine, " ", h("span.mono.soft", short(job.id)))), h("div.row", job.tags.map((tag) => h("span.tag", tag)))),
    h("div.how", bar, h("div.what", { title: what }, what || " ")),
    h("div.when", ago(job.created_at), job.attempt > 1 && h("div", `attempt ${job.attempt}`)));
}

export default function jobsView({ client, page, query, signal, connection, title }) {
  title("Jobs");
  const list = h("div");
  const more = h("button", { type: "button", hidden: true, onclick: () => older() }, "Older jobs");
  const message = h("p.soft", { role: "status" });
  const form = search(client, query.get("q") ?? "", signal);
  fill(page, h("div.top", h("h1", "Jobs"), h("a.button", { href: "/submit" }, "Submit a job")), h("section.card", { "aria-label": "Jobs" }, form, list, message, more));

  const q = query.get("q") ?? "";
  const asked = { limit: PAGE, signal, q };
  const filtered = q !== "";
  let jobs = new Map();
  let cursor = null;

  const paint = everyFrame(() => {
    const focused = document.activeElement?.closest?.("[data-job]")?.dataset.job;
    fill(list, rows([...jobs.values()]));
    if (focused) list.querySelector(`[data-job="${CSS.escape(focused)}"] a`)?.focus();
    message.textContent = jobs.size ? "" : filtered ? "No job matches." : "No job yet.";
    more.hidden = !cursor;
  });
  const load = async () => {
    try {
      const found = await client.jobs(asked);
      const kept = jobs;
      jobs = new Map(found.jobs.map((job) => [job.id, kept.get(job.id)?.seq > job.seq ? kept.get(job.id) : job]));
      cursor = found.next_cursor;
      paint();
    } catch (failure) {
      if (!signal.aborted) message.textContent = failure.message;
    }
  };
  const older = async () => {
    const found = await client.jobs({ ...asked, cursor });
    for (const job of found.jobs) jobs.set(job.id, job);
    cursor = found.next_cursor;
    paint();
  };
  let due = null;
  const again = () => (due ??= setTimeout(() => ((due = null), jobs.size <= PAGE && load()), 400));
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
  feed.done().catch((failure) => (message.textContent = failure.message));
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
