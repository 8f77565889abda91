/** How attempts ended badly, each beside the one before it: what is the same, what changed. */

import { badge, h, span, words } from "./dom.js";

const FIELDS = ["type", "code", "exit_code", "signal", "retryable"];

/** The bad ends among some events: {event, attempt, phase, ran_ms, message, type, code, …}. */
export function badEnds(events) {
  const found = [];
  let started = null;
  let phase = null;
  for (const event of events) {
    if (event.type === "started") [started, phase] = [event, null];
    else if (event.type === "progress") phase = event.phase;
    else if (event.type === "retry" || event.type === "interrupted" || event.type === "error") {
      const error = event.error ?? event.details ?? { code: event.code };
      const ran_ms = started ? Date.parse(event.timestamp) - Date.parse(started.timestamp) : null;
      found.push({ ...error, event, phase, ran_ms, message: event.error?.message ?? event.message ?? words(event.reason) });
      started = null;
    }
  }
  return found;
}

/** One line on all of them. */
export function summaryOf(ends) {
  const ways = new Set(ends.map(({ code, type, message }) => JSON.stringify([code, type, message]))).size;
  return `${ends.length} attempts ended badly, ${ways === 1 ? "all in the same way" : ways === ends.length ? "each in another way" : `in ${ways} ways`}`;
}

/** The list of them. */
export function compared(ends) {
  return h("ol.ends", ends.map((end, place) => {
    const before = ends[place - 1];
    const same = before && before.message === end.message && FIELDS.every((field) => before[field] === end[field]);
    return h("li",
      h("div.row", h("b", `Attempt ${end.event.attempt}`), badge(end.code ?? end.event.reason ?? end.event.type),
        h("span.soft.small", [end.type, end.ran_ms !== null && `after ${span(end.ran_ms)}`, end.phase && `in ${words(end.phase)}`, `sequence ${end.event.seq}`].filter(Boolean).join(" · "))),
      same ? h("p.soft.small", "the same as before") : [before && changes(before, end), h("pre", { tabindex: 0, "aria-label": `message of attempt ${end.event.attempt}` }, before ? lines(before.message ?? "", end.message ?? "") : end.message)]);
  }));
}

function changes(before, end) {
  const found = FIELDS.filter((field) => before[field] !== end[field]).map((field) => `${words(field)} ${said(before[field])} → ${said(end[field])}`);
  if (before.message === end.message) found.push("the same message");
  return h("p.soft.small", found.join(", ") || "another message:");
}

const said = (value) => (value === undefined || value === null ? "none" : words(String(value)));

/** The lines of a message beside those of the one before: kept, gone and new ones, what differs within a line marked. */
function lines(before, after) {
  if (before === after) return after;
  const [old, fresh] = [before.split("\n"), after.split("\n")];
  let [head, tail] = [0, 0];
  while (head < Math.min(old.length, fresh.length) && old[head] === fresh[head]) head += 1;
  while (tail < Math.min(old.length, fresh.length) - head && old.at(-1 - tail) === fresh.at(-1 - tail)) tail += 1;
  const gone = old.slice(head, old.length - tail);
  const came = fresh.slice(head, fresh.length - tail);
  const pairs = gone.length === came.length;
  return [
    fresh.slice(0, head).map((line) => `  ${line}\n`),
    gone.map((line, place) => h("del", "− ", pairs ? marked(line, came[place]) : line, "\n")),
    came.map((line, place) => h("ins", "+ ", pairs ? marked(line, gone[place]) : line, "\n")),
    fresh.slice(fresh.length - tail).map((line) => `  ${line}\n`),
  ];
}

/** A line, the part in which it differs from another in bold. */
function marked(line, other) {
  let [head, tail] = [0, 0];
  const most = Math.min(line.length, other.length);
  while (head < most && line[head] === other[head]) head += 1;
  while (tail < most - head && line.at(-1 - tail) === other.at(-1 - tail)) tail += 1;
  return [line.slice(0, head), h("b", line.slice(head, line.length - tail)), line.slice(line.length - tail)];
}
