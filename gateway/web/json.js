/** Any JSON as a tree that opens on demand: children are made when their branch is opened. */

import { h } from "./dom.js";

const SHOWN_MAX = 200;

export function tree(value, { open = true } = {}) {
  return h("ul.tree", branch(null, value, open));
}

function branch(name, value, open) {
  const key = name === null ? null : h("span.key", `${name}: `);
  if (value === null || typeof value !== "object") return h("li", key, leaf(value));
  const entries = Array.isArray(value) ? value.map((item, place) => [place, item]) : Object.entries(value);
  const size = Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`;
  if (!entries.length) return h("li", key, size);
  const inside = h("ul");
  const show = (from) => {
    inside.append(...entries.slice(from, from + SHOWN_MAX).map(([child, item]) => branch(child, item, false)));
    const left = entries.length - from - SHOWN_MAX;
    if (left > 0) {
      const more = h("li", h("button.plain", { type: "button", onclick: () => (more.remove(), show(from + SHOWN_MAX)) }, `${left} more`));
      inside.append(more);
    }
  };
  const details = h("details", { open, ontoggle: () => details.open && !inside.firstChild && show(0) }, h("summary", key, h("span.soft", size)), inside);
  if (open) show(0);
  return h("li", details);
}

function leaf(value) {
  if (typeof value === "string") return h("span.string", JSON.stringify(value));
  return h(typeof value === "number" ? "span.num" : "span.word", String(value));
}
