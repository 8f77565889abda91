/** The gateways that serve these pages: their streams, how late events reach them, what they repaired. */

import { ago, badge, facts, fill, h, number, say, section, short, span } from "./dom.js";
import { looking } from "./looking.js";
import { trace } from "./plots.js";

const LOOK_MS = 2000;
const LOOKS = 150; // five minutes
const FORGOTTEN_MS = 60_000; // a gateway that answered no look for this long

export default function liveView({ client, page, signal, connection, title }) {
  title("Live");
  const known = new Map();
  const list = h("div.stack");
  const many = h("p.soft", { role: "status" });
  fill(page, h("h1", "Live"), list, many);

  const look = async () => {
    try {
      const state = await client.gateway({ signal, repeatable: false });
      if (signal.aborted) return;
      connection("live");
      if (!known.has(state.id)) {
        known.set(state.id, new Gateway());
        list.append(known.get(state.id).element);
      }
      known.get(state.id).take(state);
      for (const [id, gateway] of known) {
        if (Date.now() - gateway.seen > FORGOTTEN_MS) gateway.element.remove(), known.delete(id);
      }
      say(many, known.size > 1 ? `${known.size} gateways answered in the last minute.` : "Gateways do not know of each other: this one tells of itself. Behind a load balancer each that answers is shown.");
    } catch (failure) {
      if (failure.status === 403) return void say(many, failure.message);
      if (!signal.aborted) connection("waiting");
    }
  };
  looking(look, LOOK_MS, signal);
}

/** One gateway process: what it said last, and the looks before. */
class Gateway {
  constructor() {
    this.looks = [];
    this.body = h("div.stack");
    this.element = h("div", this.body);
  }

  take(state) {
    this.seen = Date.now();
    const before = this.looks.at(-1);
    const seconds = before ? (Date.parse(state.now) - Date.parse(before.now)) / 1000 : 0;
    const rate = (total) => (seconds > 0 ? (state[total] - before[total]) / seconds : null);
    this.looks.push({ ...state, frames_per_s: rate("frames_sent_total"), bytes_per_s: rate("frame_bytes_sent_total") });
    if (this.looks.length > LOOKS) this.looks.shift();
    this.draw(this.looks.at(-1));
  }

  draw(now) {
    const { lag } = now;
    const tile = (value, name, title) => h("div.tile", { title }, h("b", value), h("span", name));
    const series = (read) => this.looks.map(read);
    fill(this.body,
      section(`Gateway ${short(now.id)}`,
        h("div.row", badge(now.closing ? "draining" : "up"), h("span.soft.small", `${now.host}, process ${now.pid}, version ${now.version}, started `, ago(now.started_at))),
        facts([["Database", now.log], ["Bus", h("span.row", badge(now.bus.connected ? "up" : "down"), now.bus.name)]])),
      h("div.tiles",
        tile(number(now.connections), `connections of ${number(now.connections_max)}`),
        tile(number(now.viewers), "viewers"),
        tile(number(now.watched_jobs), `jobs watched of ${number(now.watched_jobs_max)}`),
        tile(span(lag.p50_ms), "lag, half within", "From an event's commit to the socket of a viewer that waits for it, in the last five minutes"),
        tile(span(lag.p99_ms), "lag, 99 % within"),
        tile(now.frames_per_s === null ? "–" : number(Math.round(now.frames_per_s)), "frames a second"),
        tile(number(now.repairs_total), "holes repaired", "Events a hint should have brought, read from the log instead"),
        tile(number(now.sweep_repairs_total), "found by comparing", "Lost hints that nothing after them gave away; should stay 0")),
      h("div.halves",
        section("Lag", trace(series((look) => look.lag.p99_ms), { also: series((look) => look.lag.p50_ms), text: span, label: `Lag from commit to socket: half within ${span(lag.p50_ms)}, 99 percent within ${span(lag.p99_ms)}, of ${lag.samples} events sampled in five minutes` }),
          h("p.legend", h("span", h("i"), "99 % within"), h("span", h("i.faint"), "half within"), h("span", `${number(lag.samples)} events sampled in five minutes`))),
        section("Frames a second", trace(series((look) => look.frames_per_s), { text: (value) => number(Math.round(value)), label: `Frames a second: ${number(Math.round(now.frames_per_s ?? 0))}` }),
          h("p.legend", `${bytes(now.bytes_per_s ?? 0)} a second; ${number(now.frames_sent_total)} frames, ${bytes(now.frame_bytes_sent_total)} since it started`))),
      section("Memory", facts([
        ["Rings", `${bytes(now.ring_bytes)} of ${bytes(now.ring_bytes_max)}`],
        ["Pages kept for replays", bytes(now.page_bytes)],
        ["Pages read from the log", number(now.page_reads_total)],
        ["WebSockets that compress", number(now.compressed)]])));
  }
}

/** 812 B, 4.2 KiB, 3.0 MiB. */
function bytes(count) {
  if (count < 1024) return `${Math.round(count)} B`;
  const power = Math.min(Math.floor(Math.log2(count) / 10), 4);
  return `${(count / 1024 ** power).toFixed(1)} ${["", "Ki", "Mi", "Gi", "Ti"][power]}B`;
}
