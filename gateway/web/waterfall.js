/** Attempts and phases over time, waits included. */

import { h, span, words } from "./dom.js";

/** The bars of some events: {name, kind, from, to, first}; `to` is null of what has not ended. Instants in ms. */
export function bars(events) {
  const found = [];
  let open = null;
  let since = null;
  const close = (at, kind) => {
    if (open) Object.assign(open, { to: at, kind: kind ?? open.kind });
    open = null;
  };
  const begin = (name, kind, from, first = false) => found.push((open = { name, kind, from, to: null, first }));
  for (const event of events) {
    if (event.type === "partial") continue;
    const at = Date.parse(event.timestamp);
    switch (event.type) {
      case "submitted":
      case "reopened":
        since = Math.max(at, event.not_before ? Date.parse(event.not_before) : at);
        begin("waiting", "wait", since, true);
        break;
      case "started":
        close(at);
        if (event.reused_phases?.length) found.push({ name: `${event.reused_phases.length} phase${event.reused_phases.length === 1 ? "" : "s"} kept`, kind: "reused", from: at, to: at, first: false });
        begin("starting", "run", at);
        break;
      case "progress":
        if (!open || open.kind !== "run" || open.name === event.phase) break;
        if (open.name === "starting" && at - open.from < 250) found.pop(), begin(event.phase, "run", open.from);
        else close(at), begin(event.phase, "run", at);
        break;
      case "retry":
      case "interrupted":
        close(at, "failed");
        begin("waiting", "wait", at, true);
        break;
      case "complete":
      case "cancelled":
        close(at);
        break;
      case "error":
        close(at, open?.kind === "run" ? "failed" : undefined);
        break;
    }
  }
  return found;
}

/** The bars as a list, on one scale that ends `now`. */
export function waterfall(events, now) {
  const shown = bars(events);
  if (!shown.length) return h("p.soft", "Nothing yet.");
  const first = shown[0].from;
  const last = Math.max(...shown.map(({ to }) => to ?? now), first + 1);
  const share = (at) => (100 * (at - first)) / (last - first);
  return h("ol.waterfall", shown.map(({ name, kind, from, to, first: begins }) => {
    const end = Math.max(to ?? now, from);
    return h("li", { "data-kind": kind, "data-first": begins && from > first ? "" : undefined },
      h("span", { title: words(name) }, words(name)),
      h("span.track", { "aria-hidden": "true" }, h("i", { css: { left: `${share(from)}%`, width: `${share(end) - share(from)}%` } })),
      h("span", to === null ? `${span(end - from)} …` : span(end - from)));
  }));
}
