/** Elements made by call. Whatever is shown is text: nothing here, and nothing on the pages, ever parses markup. */

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "rect", "circle", "line", "text", "polyline"]);
const PROPERTIES = new Set(["value", "checked", "disabled", "open", "hidden", "selected", "indeterminate"]);

/** `h("a.button", { href: "/jobs" }, "Jobs")`; children may be nested lists, null and false are left out. */
export function h(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag || "div");
  if (classes.length) element.setAttribute("class", classes.join(" "));
  if (attributes && (typeof attributes !== "object" || attributes instanceof Node || Array.isArray(attributes))) {
    children.unshift(attributes);
  } else {
    for (const [key, value] of Object.entries(attributes ?? {})) set(element, key, value);
  }
  element.append(...flat(children));
  return element;
}

function set(element, key, value) {
  if (value === undefined || value === null) return;
  if (key.startsWith("on")) {
    if (typeof value !== "function") throw new TypeError(`${key} must be a function`);
    element.addEventListener(key.slice(2), value);
  } else if (key === "css") {
    for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
  } else if (PROPERTIES.has(key)) element[key] = value;
  else if (key === "href" && !/^(\/(?!\/)|#|\?)/.test(value)) throw new TypeError("links lead to places of this server");
  else if (key.startsWith("aria-")) element.setAttribute(key, String(value)); // "false" is a value there
  else if (value !== false) element.setAttribute(key, value === true ? "" : String(value));
}

function flat(children) {
  return children.flat(9).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Puts other children into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...flat(children));
  return element;
}

/** Fills an element again only when what it shows is another. */
export function redraw(element, key, make) {
  if (element.shownKey === key) return;
  element.shownKey = key;
  fill(element, make());
  element.hidden = !element.firstChild;
}

/** Sets an element's text, touching the document only when it changed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Why the server did not do what it was asked. */
export async function told(answer) {
  return (await answer.json().catch(() => ({}))).detail ?? `The server answered ${answer.status}.`;
}

let ids = 0;
/** A section with a heading that names it. */
export function section(title, ...children) {
  const id = `s${(ids += 1)}`;
  return h("section.card", { "aria-labelledby": id }, h("h2", { id }, title), ...children);
}

export function badge(status) {
  return h("span.badge", { "data-status": status }, status);
}

export function progressBar(value, label, phases = []) {
  const bar = h("div.progress", { role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 },
    h("i"), phases.slice(0, -1).map(({ until }) => h("b", { css: { left: `${until}%` } })));
  bar.show = (percent, status) => {
    bar.setAttribute("aria-valuenow", Math.round(percent));
    bar.firstChild.style.setProperty("width", `${percent}%`);
    if (status) bar.dataset.status = status;
    return bar;
  };
  return bar.show(value);
}

/** A table with a heading row; cells are elements or text. `numbers` are the columns set to the right. */
export function table(headings, rows, { numbers = [], caption } = {}) {
  const cell = (kind) => (content, column) => h(numbers.includes(column) ? `${kind}.number` : kind, kind === "th" ? { scope: "col" } : null, content);
  return h("div.scroll", { tabindex: 0, role: "region", "aria-label": caption },
    h("table", h("thead", h("tr", headings.map(cell("th")))), h("tbody", rows.map((row) => h("tr", row.map(cell("td")))))));
}

/** What `name: value` pairs are shown as. */
export function facts(pairs) {
  return h("dl.facts", pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(
    ([name, value]) => h("div", h("dt", name), h("dd", value))));
}

/** Asks a person; whether the answer was yes. */
export function agreed(question) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-label": question, onclose: () => (dialog.remove(), resolve(dialog.returnValue === "yes")) }, h("p", question),
      h("div.row", h("button.danger", { type: "button", onclick: () => dialog.close("yes") }, "Yes"), h("button", { type: "button", onclick: () => dialog.close("no") }, "No")));
    document.body.append(dialog);
    dialog.showModal();
  });
}

// ---- words ----------------------------------------------------------------------------------------------------

/** 950 ms, 4.2 s, 3 min 5 s, 2 h 10 min, 3 d 4 h. */
export function span(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms < 0) ms = 0;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A moment as its age, with the moment itself behind it; `refresh` brings it up to date. */
export function ago(timestamp) {
  if (!timestamp) return h("span", "–");
  const at = Date.parse(timestamp);
  const element = h("time", { datetime: timestamp, title: new Date(at).toLocaleString() });
  element.refresh = () => say(element, Date.now() - at < 1500 ? "just now" : `${span(Date.now() - at)} ago`);
  element.refresh();
  return element;
}

/** A moment to come as how long it is until then, by a clock that is `skew` ms ahead of ours. */
export function until(ms, skew = 0) {
  const element = h("time", { datetime: new Date(ms).toISOString(), title: new Date(ms).toLocaleString() });
  element.refresh = () => say(element, ms <= Date.now() + skew ? "now" : `in ${span(Math.round((ms - Date.now() - skew) / 1000) * 1000)}`);
  element.refresh();
  return element;
}

export function refreshAges(root) {
  for (const element of root.querySelectorAll("time")) element.refresh?.();
}

export const words = (name) => (name ?? "").replaceAll("_", " ");
export const short = (id) => id.slice(-8);
export const number = (value) => (typeof value === "number" ? value.toLocaleString("en") : "–");
export const points = (value, sign = false) => (typeof value === "number" ? `${sign && value > 0 ? "+" : ""}${value.toFixed(2)}` : "–");
export const money = (tenths) => (typeof tenths === "number" ? `£${(tenths / 10).toFixed(1)}m` : "–");
export const jobHref = (id) => `/jobs/${encodeURIComponent(id)}`;

/** Runs `act` at most once a frame. */
export function everyFrame(act) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    const run = () => {
      due = false;
      act();
    };
    // A hidden page gets no frames; what it shows must be right all the same.
    if (document.hidden) setTimeout(run, 100);
    else requestAnimationFrame(run);
  };
}
