/** One job: what it is, how it stands, every event, its result; now or as of any sequence. */

import { ago, agreed, badge, everyFrame, facts, fill, h, jobHref, number, progressBar, redraw, say, section, short, span, until, words } from "./dom.js";
import { EventList } from "./events.js";
import { tree } from "./json.js";
import { waterfall } from "./waterfall.js";
import { go, notice, permalink } from "./app.js";

const FINAL = new Set(["completed", "failed", "cancelled"]);
const TELLING = new Set(["submitted", "started", "retry", "interrupted", "cancel_requested", "complete", "error", "cancelled", "reopened"]);
const BAD = new Set(["retry", "interrupted", "error"]);
const INLINE_MAX = 2 * 1024 * 1024; // a larger result is shown when asked for
const LOOK_MS = 120;
const TICK_MS = 500;

export default function jobView(view) {
  new JobPage(view).start();
}

class JobPage {
  constructor(view) {
    Object.assign(this, view);
    this.id = view.argument;
    this.events = []; // what the page is drawn from; the list has all
    this.last = null;
    this.times = []; // of each sequence, in ms
    this.phase = null;
    this.job = null; // as of `at`, or now
    this.at = Number(view.query.get("at")) || null;
    this.skew = 0; // ms by which the server's clock is ahead, at least
    this.list = new EventList(this.id);
    this.list.until(this.at);
    this.parts = Object.fromEntries(["head", "failure", "result", "partials", "falls", "params", "chain", "use"].map((name) => [name, h("div")]));
    this.paint = everyFrame(() => this.draw());
    this.asked = 0;
    this.values = new Map(); // name of a partial result -> its elements
  }

  async start() {
    this.title(`Job ${short(this.id)}`);
    fill(this.page, h("p.soft", { role: "status" }, "Loading …"));
    try {
      this.job = await this.client.job(this.id, { signal: this.signal, at: this.at ?? undefined });
    } catch (failure) {
      if (this.signal.aborted) return;
      const missing = failure.status === 404 && this.at === null;
      return void fill(this.page, h("h1", missing ? "No such job" : "The job cannot be shown"), h("p", { role: "alert" }, failure.message),
        h("p.row", missing ? h("a", { href: "/jobs" }, "To the jobs") : h("button", { type: "button", onclick: () => this.start() }, "Try again"),
          this.at !== null && h("a", { href: jobHref(this.id) }, "As it stands now")));
    }
    this.title(`${this.job.engine} ${short(this.id)}`);
    const { head, failure, result, partials, falls, params, chain, use } = this.parts;
    this.makeHead();
    fill(this.page, head, failure,
      h("div.columns", h("div.stack", result, section("Events", this.list.element)),
        h("div.stack", section("Timeline", falls), partials, section("Params", params), chain, use)));
    fill(params, tree(this.job.params));
    this.showChain();
    this.showUse();
    this.draw();
    const follow = this.client.follow(this.id, {
      signal: this.signal,
      onConnection: (state) => this.connection(state),
      onReset: () => {
        this.events = [];
        this.list.clear();
        this.look();
      },
      onEvent: (event) => this.take(event),
    });
    const ticking = setInterval(() => this.job && !FINAL.has(this.job.status) && this.paint(), TICK_MS);
    this.signal.addEventListener("abort", () => clearInterval(ticking));
    try {
      await follow.done();
      if (!this.signal.aborted) this.connection("ended");
    } catch (failed) {
      if (!this.signal.aborted) notice(failed.message);
    }
    clearInterval(ticking);
    if (!this.signal.aborted) this.look();
  }

  take(event) {
    this.last = event;
    this.times[event.seq] = Date.parse(event.timestamp);
    if (event.type === "started") this.phase = null;
    // Of long jobs nearly all is this, and each look at them would go through all of it.
    const more = event.type === "log" || (event.type === "progress" && event.phase === this.phase);
    if (!more) this.events.push(event);
    if (event.type === "progress") this.phase = event.phase;
    this.list.add(event);
    this.skew = Math.max(this.skew, this.times[event.seq] - Date.now());
    if (event.type === "progress" && this.at === null) Object.assign(this.job, { progress: event.progress, phase: event.phase, message: event.message, attempt: event.attempt });
    if (TELLING.has(event.type)) this.look();
    this.paint();
  }

  /** Asks the server how the job stands, now or as of `at`: it folds the events, this page only shows them. */
  look() {
    clearTimeout(this.looking);
    this.looking = setTimeout(async () => {
      const mine = (this.asked += 1);
      try {
        const job = await this.client.job(this.id, { signal: this.signal, at: this.at ?? undefined });
        if (mine !== this.asked) return;
        this.job = job;
        this.paint();
      } catch (failed) {
        if (!this.signal.aborted) notice(failed.message);
      }
    }, LOOK_MS);
  }

  shown() {
    return this.at === null ? this.events : this.events.filter(({ seq }) => seq <= this.at);
  }

  // -- the head
  makeHead() {
    this.bar = progressBar(0, "progress", this.phases());
    this.names = h("div.phases", { "aria-hidden": "true" });
    this.state = h("span.state");
    this.spoken = h("span.sr", { role: "status" }); // what is worth saying aloud: every percent is not
    this.meta = h("div");
    this.actions = h("div.row");
    this.slider = h("input", { type: "range", min: 1, max: this.job.seq, value: this.at ?? this.job.seq, "aria-label": "Sequence shown", oninput: () => this.replay(Number(this.slider.value)) });
    this.where = h("output.small.soft");
    this.live = h("button", { type: "button", onclick: () => this.replay(null) }, "Back to now");
    fill(this.parts.head, h("section.card.head", { "aria-label": "Job" },
      h("div.top", h("div", h("h1", this.job.engine, " ", h("span.mono.soft", short(this.id))), h("div.row.small", h("span.mono.soft", this.id), copyButton("Copy id", () => this.id))), this.actions),
      this.bar, this.names, h("div.row", this.state, this.spoken), this.meta,
      h("div.row", { css: { "margin-top": ".75rem" } }, h("span.small.soft", "Replay"), this.slider, this.where, this.live)));
  }

  phases() {
    return this.events[0]?.phases ?? [];
  }

  /** The last sequence known: events still come in when the job has told of a later one. */
  head() {
    return Math.max(this.last?.seq ?? 0, this.job.seq, this.at ?? 0);
  }

  replay(seq) {
    const head = this.head();
    this.at = seq !== null && seq < head ? seq : null;
    permalink(jobHref(this.id) + (this.at === null ? "" : `?at=${this.at}`));
    this.list.until(this.at);
    this.look();
    this.paint();
  }

  drawHead() {
    const { job, at } = this;
    const head = this.head();
    const phases = this.phases();
    if (phases.length && !this.bar.querySelector("b")) this.bar.append(...phases.slice(0, -1).map(({ until }) => h("b", { css: { left: `${until}%` } })));
    this.bar.show(job.progress ?? 0, job.status);
    let from = 0;
    const named = phases.map(({ name, until }) => {
      const label = h("span", { css: { left: `${from}%`, width: `${until - from}%` }, "data-now": job.status === "running" && job.phase === name ? "" : undefined, title: words(name) }, words(name));
      from = until;
      return label;
    });
    redraw(this.names, phases.length + job.phase + job.status, () => named);
    const phase = job.status === "running" ? `${(job.progress ?? 0).toFixed(0)} % · ${words(job.phase) || "starting"}` : job.status === "queued" ? "waiting for a worker" : "";
    redraw(this.state, job.status + phase + job.message, () => [badge(job.status), " ", phase, job.message && job.status === "running" ? h("span.soft", ` · ${job.message}`) : null]);
    say(this.spoken, [job.status, job.status === "running" && words(job.phase)].filter(Boolean).join(", "));
    const now = Date.now() + this.skew;
    const ended = job.finished_at ? Date.parse(job.finished_at) : now;
    const started = this.shown().findLast(({ type }) => type === "started");
    redraw(this.meta, [job.status, job.seq, Math.floor(ended / 1000), job.attempt, this.events.length > 0, started?.seq].join(), () => facts([
      ["made", ago(job.created_at)],
      ["by", this.events[0]?.actor],
      ["waited", started ? span(started.queue_wait_ms) : job.status === "queued" ? span(now - Date.parse(job.created_at)) : null],
      ["ran", job.started_at && span(ended - Date.parse(job.started_at))],
      ["attempt", job.attempt ? `${job.attempt}${job.failures ? `, ${job.failures} failed of ${job.max_attempts}` : ""}${job.losses ? `, ${job.losses} lost` : ""}` : null],
      ["priority", job.priority === "normal" ? null : job.priority],
      ["schedule", job.schedule && h("a.mono", { href: `/schedules/${encodeURIComponent(job.schedule)}` }, job.schedule)],
      ["unique key", job.unique_key],
      ["not before", job.not_before && job.status === "queued" ? new Date(job.not_before).toLocaleString() : null],
      ["tags", job.tags.length ? h("span.row", job.tags.map((tag) => h("a.tag", { href: `/jobs?q=${encodeURIComponent(`tag:"${tag}"`)}` }, tag))) : null],
      ...(at === null ? deadlines(this.events, this.last, job) : []).map(([name, at]) => [name, until(at, this.skew)]),
      ["worker", started && h("span.mono", short(started.worker ?? ""))],
    ]));
    this.slider.max = head;
    this.slider.value = at ?? head;
    this.where.textContent = at === null ? `at the head, ${head}` : `as of ${at} of ${head}`;
    this.live.hidden = at === null;
    this.parts.head.firstChild.dataset.past = at === null ? "" : "past";
    redraw(this.actions, job.status + (at === null), () => this.actionsOf(job.status, at === null));
  }

  actionsOf(status, now) {
    if (!now) return [badge("as it was")];
    const act = (label, run, kind = "") => h(`button${kind}`, { type: "button", onclick: () => this.act(run) }, label);
    const rerun = act("Rerun", async () => go(jobHref((await this.client.rerun(this.id)).id)));
    if (!FINAL.has(status)) {
      return [act("Cancel", () => this.client.cancel(this.id, { reason: "from the pages" })), act("Force", async () => (await agreed("Kill this attempt now?")) && this.client.cancel(this.id, { force: true, reason: "from the pages" }), ".danger"), rerun];
    }
    const change = h("a.button", { href: `/submit/${encodeURIComponent(this.job.engine)}?from=${encodeURIComponent(this.id)}` }, "Rerun with changes");
    return [status !== "completed" && act("Retry", async () => (await this.client.retry(this.id), go(jobHref(this.id), { replace: true }), location.reload()), ".primary"), rerun, change];
  }

  async act(run) {
    try {
      await run();
      if (!this.signal.aborted) this.look();
    } catch (failed) {
      notice(failed.message);
    }
  }

  // -- the rest
  draw() {
    if (!this.job) return;
    this.drawHead();
    const events = this.shown();
    const running = !FINAL.has(this.job.status);
    redraw(this.parts.falls, `${events.filter(({ type }) => type !== "partial").length}/${running && Math.floor(Date.now() / TICK_MS)}`,
      () => waterfall(events, this.at === null ? Date.now() + this.skew : this.times[this.at] ?? this.times.at(-1)));
    this.drawFailure(events);
    this.drawPartials(events);
    this.drawResult(events);
  }

  async drawFailure(events) {
    const key = `${events.filter(({ type }) => BAD.has(type)).length}${this.job.status}`;
    if (key === this.failureKey) return;
    this.failureKey = key;
    let content = [];
    if (!key.startsWith("0") && this.job.status !== "completed") {
      const part = await import("./failures.js").catch(() => null);
      if (key !== this.failureKey) return;
      if (!part) return void (this.failureKey = null); // the server is away: at the next look again
      const { badEnds, compared, summaryOf } = part;
      const ends = badEnds(events);
      const last = ends.at(-1);
      content = [h("section.card.error", { "aria-label": "Error" }, h("h2", words(last.type ?? last.code ?? last.event.type)), h("pre", { tabindex: 0 }, last.message),
        ends.length > 1 && h("details", h("summary", summaryOf(ends)), compared(ends)))];
    }
    fill(this.parts.failure, content);
    this.parts.failure.hidden = !content.length;
  }

  drawPartials(events) {
    const latest = new Map();
    for (const event of events) if (event.type === "partial") latest.set(event.name, event);
    // Each keeps its elements: what is open stays open when a newer value comes.
    for (const name of latest.keys()) {
      if (this.values.has(name)) continue;
      const [said, value] = [h("span.soft.small"), h("div")];
      this.values.set(name, { said, value, element: h("details", h("summary", h("b", words(name)), said), value) });
    }
    redraw(this.parts.partials, [...latest.keys()].join("\n"), () => (latest.size ? [section("Partial results", [...latest.keys()].map((name) => this.values.get(name).element))] : []));
    for (const [name, event] of latest) {
      const { said, value } = this.values.get(name);
      say(said, ` ${words(event.phase)}, sequence ${event.seq}`);
      redraw(value, event.seq, () => [tree(event.value)]);
    }
  }

  async drawResult(events) {
    const { job } = this;
    const fpl = job.engine === "fpl";
    const incumbents = fpl ? events.filter(({ type, name }) => type === "partial" && name === "incumbent") : [];
    const key = `${job.status}${job.seq * FINAL.has(job.status)}/${incumbents.length}/${FINAL.has(job.status) && events.length > 0}`;
    if (key === this.resultKey) return;
    this.resultKey = key;
    let content = [];
    const value = job.results ?? null;
    if (fpl) {
      const part = await import("./fpl.js").catch(() => null);
      await part?.styled;
      if (key !== this.resultKey) return;
      if (!part) return void (this.resultKey = null);
      const { decision, search } = part;
      const started = events.findLast(({ type }) => type === "started");
      content = [value && decision(value, job.status), incumbents.length > 0 && section("The solver's gap", search(incumbents, started))];
    }
    if (job.results_ref) content.push(section("Result", this.stored(job.results_ref)));
    else if (value !== null) {
      const title = job.status === "completed" ? "Result" : "Best so far";
      content.push(fpl ? h("details.card", h("summary", `${title} as JSON`), tree(value)) : section(title, tree(value)));
    }
    fill(this.parts.result, h("div.stack", content));
    this.parts.result.hidden = !content.some(Boolean);
  }

  stored({ size, sha256 }) {
    const place = h("div");
    const show = async () => {
      try {
        fill(place, tree(await this.client.results(this.id)));
      } catch (failed) {
        notice(failed.message);
      }
    };
    if (size <= INLINE_MAX) show();
    else fill(place, h("button", { type: "button", onclick: show }, `Show all ${number(size)} bytes`));
    return [h("p.soft.small", `${number(size)} bytes, SHA-256 `, h("span.mono", sha256.slice(0, 16)), "…"), place];
  }

  showChain() {
    const { rerun_of: source } = this.job;
    const line = (job) => h("li", h("a", { href: jobHref(job.id) }, job.engine, " ", h("span.mono", short(job.id))), " ", badge(job.status), " ", h("span.soft.small", ago(job.created_at)));
    const from = h("ol"), into = h("ol");
    const climb = async (id, depth) => {
      const job = await this.client.job(id, { signal: this.signal });
      from.append(line(job));
      if (job.rerun_of && depth < 8) await climb(job.rerun_of, depth + 1);
    };
    const made = async () => {
      const { jobs } = await this.client.jobs({ q: `rerun_of:${this.id}`, limit: 20, signal: this.signal });
      into.append(...jobs.map(line));
      fill(this.parts.chain, source ? section("Made from", from) : null, jobs.length ? section("Made from it", into) : null);
    };
    if (source) climb(source, 0).catch(() => from.append(h("li.soft", "no longer kept")));
    made().catch(() => fill(this.parts.chain, source ? section("Made from", from) : null));
  }

  showUse() {
    const { origin } = location;
    const { engine, params } = this.job;
    const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
    const body = JSON.stringify({ engine, params });
    const ways = {
      "Follow with curl": `curl -N -H 'Accept: text/event-stream' ${origin}/api/v1/jobs/${this.id}/events`,
      "Submit with curl": `curl -X POST ${origin}/api/v1/jobs -H 'Content-Type: application/json' -d ${quoted(body)}`,
      "Follow in a terminal": `phaseline follow ${this.id} --url ${origin}`,
      "Submit in a terminal": `phaseline submit ${engine} --params ${quoted(JSON.stringify(params))} --url ${origin}`,
      "Python": `import asyncio\n\nfrom phaseline import Client\n\n\nasync def main():\n    async with Client("${origin}") as phaseline:\n        async for event in phaseline.follow("${this.id}"):\n            print(event["seq"], event["type"])\n\n\nasyncio.run(main())`,
      "JavaScript": `import { Phaseline } from "${origin}/client/phaseline.js";\n\nconst phaseline = new Phaseline("${origin}");\nfor await (const event of phaseline.follow("${this.id}")) console.log(event.seq, event.type);`,
    };
    fill(this.parts.use, section("Use it from", Object.entries(ways).map(([name, code]) =>
      h("details", h("summary", name), h("pre", { tabindex: 0 }, code), h("p", copyButton(`Copy ${name}`, () => code))))));
  }
}

/** When which timeout would end the job, or its attempt, as it stands: `[[name, instant in ms]]`. */
function deadlines(events, last, job) {
  const timeouts = events[0]?.timeouts;
  if (!timeouts || FINAL.has(job.status)) return [];
  const at = (event) => Date.parse(event.timestamp);
  const opening = events.findLast(({ type }) => type === "submitted" || type === "reopened");
  const opened = Math.max(at(opening), opening.not_before ? Date.parse(opening.not_before) : 0);
  const started = job.status === "running" && events.findLast(({ type }) => type === "started");
  return [
    ["must start", job.status === "queued" && !job.started_at && [opened, timeouts.start_s]],
    ["attempt must end", started && [at(started), timeouts.attempt_s]],
    ["next sign of life", started && [at(last), timeouts.stall_s]],
    ["must end", [opened, timeouts.total_s]],
  ].filter(([, limit]) => limit && limit[1] !== null).map(([name, [from, seconds]]) => [name, from + 1000 * seconds]);
}

function copyButton(label, text) {
  const button = h("button.small", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      notice("The browser does not let this page copy; select the text instead.");
    }
    setTimeout(() => (button.textContent = label), 1500);
  } }, label);
  return button;
}
