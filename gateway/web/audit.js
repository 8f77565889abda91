/** Who administered what, whether the log still says what was written, and what happens now. */

import { ago, badge, everyFrame, fill, h, jobHref, number, say, section, short, span, table, told, words } from "./dom.js";

const FEED_ROWS = 200;
const FINDINGS_SHOWN = 200;
const UUID_TAIL = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const UUID = new RegExp(`^${UUID_TAIL.source}`);

export default function auditView({ client, page, signal, connection, title }) {
  title("Audit");
  const acts = h("div");
  const events = h("ol.feed", { tabindex: 0, "aria-label": "Events as they come" });
  fill(page, h("h1", "Audit"), check(signal), section("Administrative acts", acts),
    section("Feed", h("p.soft", "What happens from here on, the newest first."), events));
  const shown = new Map();
  let cursor = null;
  const paint = () => fill(acts, shown.size ? actsTable([...shown.values()]) : h("p.soft", "Nobody has administered anything yet."),
    cursor && h("p", h("button", { type: "button", onclick: () => load(cursor) }, "Older")));
  const load = async (from) => {
    try {
      const found = await asked(`/api/v1/audit${from ? `?cursor=${encodeURIComponent(from)}` : ""}`, signal);
      for (const act of found.events) shown.set(act.job_id, act);
      if (from || cursor === null) cursor = found.next_cursor;
      sort(shown);
      paint();
    } catch (failure) {
      if (!signal.aborted) fill(acts, h("p.soft", failure.message));
    }
  };
  let fresh = [];
  const show = everyFrame(() => {
    events.prepend(...fresh.slice(-FEED_ROWS).reverse().map(eventRow));
    fresh = [];
    while (events.children.length > FEED_ROWS) events.lastChild.remove();
  });
  const feed = client.feed({ signal, onConnection: (state) => {
    connection(state);
    if (state === "live") load();
  }, onEvent: (event) => {
    fresh.push(event);
    if (fresh.length > FEED_ROWS) fresh.shift();
    show();
    if (event.type !== "administered") return;
    shown.set(event.job_id, event);
    sort(shown);
    paint();
  } });
  feed.done().catch((failure) => signal.aborted || fill(events, h("li", failure.message)));
  load();
}

/** Newest first: ids begin with their time. */
function sort(shown) {
  const sorted = [...shown].sort(([one], [other]) => (one < other ? 1 : -1));
  shown.clear();
  for (const [id, act] of sorted) shown.set(id, act);
}

async function asked(where, signal) {
  const answer = await fetch(where, { signal, cache: "no-store", headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(await told(answer));
  return answer.json();
}

function actsTable(acts) {
  return table(["when", "who", "did", "to", "what it was made", "from", "why"], acts.map((act) => [
    ago(act.timestamp), act.actor, words(act.act), target(act.target), changes(act.changed), act.address ?? "–", act.reason ?? "–",
  ]), { caption: "Administrative acts" });
}

const target = (name) => (UUID.test(name) ? h("a.mono", { href: jobHref(name), title: name }, short(name)) : h("span.mono", name));

function changes(changed) {
  const said = Object.entries(changed ?? {}).filter(([name, value]) => value !== null && value !== "" && name !== "sha256");
  return said.map(([name, value]) => `${words(name)} ${Array.isArray(value) ? value.join(" ") : typeof value === "object" ? JSON.stringify(value) : value}`).join(", ") || "–";
}

function eventRow(event) {
  const what = event.type === "administered" ? [h("b", words(event.act)), " ", target(event.target)] : [h("b", words(event.type)), " ", target(event.job_id), ` ${event.seq}`];
  return h("li", ago(event.timestamp), h("span", what), h("span.soft", { title: event.actor }, event.actor.replace(UUID_TAIL, (id) => `…${short(id)}`)));
}

// ---- the check

/** Goes on from cursor to cursor until all was held against its seals, or much is wrong. */
function check(signal) {
  const status = h("p", { role: "status" }, "Not checked yet.");
  const found = h("ol.findings", { "aria-label": "Findings" });
  const button = h("button", { type: "button", onclick: () => run() }, "Verify");
  const run = async () => {
    button.disabled = true;
    fill(found);
    const sums = { seals: 0, acts: 0, jobs: 0, events: 0, unsealed: 0, erased: 0, unread: 0, findings: 0 };
    let cursor = null, oldest = null;
    try {
      do {
        const part = await once(cursor, signal, (finding) => found.children.length < FINDINGS_SHOWN && found.append(h("li", finding)), (line) => say(status, `Checking: ${counted(plus(sums, line))} …`));
        Object.assign(sums, plus(sums, part));
        oldest = Math.max(oldest ?? 0, part.oldest_unsealed_ms ?? 0);
        cursor = part.next_cursor;
      } while (cursor && sums.findings < FINDINGS_SHOWN);
      const waits = sums.unsealed ? ` ${number(sums.unsealed)} not sealed yet, the oldest ${span(oldest)} old.` : "";
      const unread = sums.unread ? ` ${number(sums.unread)} archived jobs could not be verified: this gateway knows no archive.` : "";
      const verdict = sums.findings ? `${number(sums.findings)} findings, the first: ${found.firstChild.textContent}` : `nothing is wrong${unread && " in what was read"}`;
      const whole = sums.findings ? badge("failed") : unread ? h("b", "not whole") : badge("completed");
      fill(status, whole, ` ${counted(sums)}: ${verdict}.${unread}${waits}`);
    } catch (failure) {
      if (!signal.aborted) say(status, failure.message);
    } finally {
      button.disabled = false;
    }
  };
  return section("Verify", h("p.soft", "Holds every event of this tenant's acts and jobs against its seal, and the chain of the whole log. What only the database's owner can see, and anchors: ", h("code", "phaseline audit verify"), "."),
    h("div.row", button, h("a.button", { href: "/api/v1/audit/export", download: "phaseline-audit.ndjson" }, "Export")), status, found);
}

/** One call: its last line. */
async function once(cursor, signal, onFinding, onProgress) {
  const answer = await fetch(`/api/v1/audit/check${cursor ? `?cursor=${encodeURIComponent(cursor)}` : ""}`, { signal, cache: "no-store" });
  if (!answer.ok) throw new Error(await told(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The check broke off; try again.");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((text) => JSON.parse(text))) {
      if (line.type === "done") return line;
      if (line.type === "finding") onFinding(sentence(line));
      else onProgress(line);
    }
  }
}

const sentence = ({ job_id, seq, seal, what, detail }) => `${job_id ? `stream ${job_id}` : seal ? `seal ${seal}` : "the log"}${seq ? ` event ${seq}` : ""}: ${what}: ${detail}`;
const plus = (sums, line) => Object.fromEntries(Object.entries(sums).map(([name, value]) => [name, value + (line[name] ?? 0)]));
const counted = ({ seals, acts, jobs, events }) => `${number(seals)} seals, ${number(acts)} acts, ${number(jobs)} jobs, ${number(events)} events`;
