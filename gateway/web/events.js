/** The list of a job's events: every sequence once, followed or paused, filtered, each with its raw JSON. */

import { everyFrame, h, say, span, told, words } from "./dom.js";
import { notice } from "./app.js";

const CHUNK = 100;
const HAND_MS = 1000;
const CHUNKS_MAX = 200; // 20 000 rows; earlier ones are in the download
const TYPES = ["submitted", "started", "progress", "checkpoint", "partial", "log", "retry", "interrupted", "cancel_requested", "complete", "error", "cancelled", "reopened"];

/** One line about an event. */
export function summary(event) {
  switch (event.type) {
    case "submitted": return `${event.engine} by ${event.actor}${event.rerun_of ? ", a rerun" : ""}`;
    case "started": return `attempt ${event.attempt}, waited ${span(event.queue_wait_ms)}`;
    case "progress": return [`${event.progress.toFixed(1)} % ${words(event.phase)}`, event.message, event.total !== undefined && event.total !== null && `${event.done} of ${event.total} ${event.unit ?? ""}`].filter(Boolean).join(" · ");
    case "checkpoint": return `${words(event.phase)} recorded after ${span(event.duration_ms)}`;
    case "partial": return `${event.name}: ${brief(event.value)}`;
    case "log": return `${event.level}: ${event.message}`;
    case "retry": return `${event.error?.message ?? ""}; attempt ${event.next_attempt} follows`;
    case "interrupted": return event.reason;
    case "cancel_requested": return [event.mode, event.reason].filter(Boolean).join(", ");
    case "complete": return event.results_ref ? `result of ${event.results_ref.size} bytes` : brief(event.results);
    case "error": return `${event.code}: ${event.message}`;
    case "cancelled": return event.reason ?? "";
    case "reopened": return event.reason ?? "tried again";
    default: return "";
  }
}

function brief(value) {
  const text = JSON.stringify(value) ?? "";
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}

export class EventList {
  constructor(jobId) {
    this._from = null;
    this._pending = [];
    this._follow = true;
    this._until = Infinity;
    this._box = h("div.events", { tabindex: 0, role: "region", "aria-label": "Events", onscroll: () => this._scrolled() });
    // A scroll is a reader's when it comes just after his hand; layout scrolls too.
    for (const hand of ["wheel", "touchmove", "pointerdown", "keydown"]) this._box.addEventListener(hand, () => (this._hand = Date.now()), { passive: true });
    this._count = h("span.soft.small");
    this._note = h("p.soft.small", { hidden: true }, "Earlier events are in the download.");
    this._followButton = h("button", { type: "button", "aria-pressed": true, onclick: () => this.follow(!this._follow) }, "Follow");
    this._type = h("select", { "aria-label": "Show only", onchange: () => this._filter() }, h("option", { value: "" }, "all types"), TYPES.map((type) => h("option", { value: type }, words(type))));
    this._text = h("input", { type: "search", placeholder: "filter", "aria-label": "Filter events", size: 10, oninput: () => this._filter() });
    const jump = h("input", { type: "number", min: 1, "aria-label": "Jump to sequence", placeholder: "seq", css: { width: "5.5rem" }, onkeydown: (event) => {
      if (event.key === "Enter") this.jump(Number(jump.value));
    } });
    this.element = h("div",
      h("div.row", this._followButton, this._type, this._text, jump, h("button", { type: "button", onclick: () => this.jump(Number(jump.value)) }, "Jump"),
        h("button", { type: "button", onclick: () => this.download(jobId) }, "Download"), this._count),
      this._note, this._box);
    this._paint = everyFrame(() => this._append());
  }

  add(event) {
    this._pending.push(event);
    this._paint();
  }

  clear() {
    this._pending.length = 0;
    this._box.replaceChildren();
    this._note.hidden = true;
    this._from = null;
  }

  /** Shows the events up to a sequence only. */
  until(seq) {
    this._until = seq ?? Infinity;
    this._filter();
  }

  follow(on) {
    this._follow = on;
    this._followButton.setAttribute("aria-pressed", on);
    if (on) this._box.scrollTop = this._box.scrollHeight;
  }

  jump(seq) {
    const row = this._box.querySelector(`[data-seq="${Number(seq)}"]`);
    if (!row) return notice(`Event ${seq} is not in the list`);
    this.follow(false);
    for (const lit of this._box.querySelectorAll("[data-lit]")) delete lit.dataset.lit;
    row.dataset.lit = "";
    row.hidden = false;
    row.scrollIntoView({ block: "nearest" });
    row.querySelector("button").focus({ preventScroll: true });
  }

  async download(jobId) {
    try {
      const answer = await fetch(`/api/v1/jobs/${encodeURIComponent(jobId)}/events`, { headers: { Accept: "application/x-ndjson" } });
      if (!answer.ok) throw new Error(await told(answer));
      const address = URL.createObjectURL(await answer.blob());
      save(address, `${jobId}.ndjson`);
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (failure) {
      notice(`The events were not downloaded: ${failure.message}`);
    }
  }

  _append() {
    const fresh = this._pending.splice(0);
    if (!fresh.length) return;
    let chunk = this._box.lastElementChild;
    for (const event of fresh) {
      this._from ??= Date.parse(event.timestamp);
      if (!chunk || chunk.childElementCount >= CHUNK) {
        if (chunk) chunk.dataset.full = "";
        this._box.append((chunk = h("ol")));
      }
      chunk.append(this._row(event));
    }
    while (this._box.childElementCount > CHUNKS_MAX) {
      this._box.firstElementChild.remove();
      this._note.hidden = false;
    }
    this._tally();
    if (this._follow) this._box.scrollTop = this._box.scrollHeight;
  }

  _row(event) {
    const text = summary(event);
    const toggle = () => {
      const open = row.lastElementChild.tagName === "PRE";
      if (open) row.lastElementChild.remove();
      else row.append(h("pre", { tabindex: 0 }, JSON.stringify(event, null, 2)));
      button.setAttribute("aria-expanded", !open);
      if (!open) this.follow(false);
    };
    const button = h("button", { type: "button", "aria-expanded": "false", onclick: toggle },
      h("span.seq", String(event.seq)), h("span.at", { title: event.timestamp }, `+${span(Date.parse(event.timestamp) - this._from)}`),
      h("span.type", words(event.type)), h("span.text", text));
    const row = h("li", { "data-seq": event.seq, "data-type": event.type }, button);
    row.hidden = !this._wanted(row);
    return row;
  }

  _filtered() {
    return this._until < Infinity || this._type.value || this._text.value;
  }

  _wanted(row) {
    const words = this._text.value.toLowerCase();
    return Number(row.dataset.seq) <= this._until && (!this._type.value || row.dataset.type === this._type.value) && (!words || row.textContent.toLowerCase().includes(words));
  }

  _filter() {
    for (const row of this._box.querySelectorAll("li")) row.hidden = !this._wanted(row);
    this._tally();
  }

  _tally() {
    // Not counted by its rows, each frame: all chunks but the last are full.
    const chunks = this._box.children, all = chunks.length && (chunks.length - 1) * CHUNK + chunks[chunks.length - 1].childElementCount;
    const hidden = this._filtered() && this._box.querySelectorAll("li[hidden]").length;
    say(this._count, `${hidden ? `${all - hidden} of ` : ""}${this._note.hidden ? "" : "the last "}${all} events`);
  }

  _scrolled() {
    if (!(Date.now() - this._hand < HAND_MS)) return;
    const { scrollTop, scrollHeight, clientHeight } = this._box;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    if (atEnd !== this._follow) this.follow(atEnd);
  }
}

function save(address, name) {
  const link = document.createElement("a");
  Object.assign(link, { href: address, download: name });
  link.click();
}
