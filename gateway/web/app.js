/** The shell: which view the address names, where the connection stands, what went wrong. */

import { h, fill, refreshAges } from "./dom.js";
import { Phaseline } from "/client/phaseline.js";
import { loginView, logout, session } from "./login.js";

const VIEWS = [
  [/^\/$/, "overview", () => import("./overview.js")],
  [/^\/jobs\/?$/, "jobs", () => import("./jobs.js")],
  [/^\/jobs\/([^/]+)\/?$/, "jobs", () => import("./job.js")],
  [/^\/submit(?:\/([^/]+))?\/?$/, "submit", () => import("./submit.js")],
  [/^\/schedules(?:\/([^/]+))?\/?$/, "schedules", () => import("./schedules.js")],
  [/^\/workers\/?$/, "workers", () => import("./workers.js")],
  [/^\/live\/?$/, "live", () => import("./live.js")],
  [/^\/audit\/?$/, "audit", () => import("./audit.js")],
];
const CONNECTIONS = { live: "live", catching_up: "catching up", waiting: "waiting for the server", ended: "complete" };
const AGES_MS = 1000;
const AWAY_MS = 2000;

// Calls and streams carry the cookie. A token is asked for again when that was refused: then the form may be due.
const client = new Phaseline(undefined, { token: ({ refreshed }) => void (refreshed && refused()) });
const main = document.getElementById("main");
const light = document.getElementById("connection");
let leaving = new AbortController();
let shown = "";

/** Goes to an address of these pages. */
export function go(address, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", address);
  if (location.pathname + location.search !== shown) show({ moved: !replace });
}

/** Changes the query of this address without going anywhere: the view has done so already. */
export function permalink(address) {
  history.replaceState(null, "", address);
  shown = location.pathname + location.search;
}

/** Tells something that went wrong, or that was done. */
export function notice(text, kind = "error") {
  const box = h("p.notice", { "data-kind": kind }, text, h("button.plain", { type: "button", "aria-label": "Dismiss", onclick: () => box.remove() }, "×"));
  const notices = document.getElementById("notices");
  notices.append(box);
  while (notices.children.length > 4) notices.firstChild.remove();
  if (kind !== "error") setTimeout(() => box.remove(), 6000);
}

function connection(state) {
  light.dataset.state = state;
  if (light.textContent !== CONNECTIONS[state]) light.textContent = CONNECTIONS[state];
}

async function refused() {
  const { asks, actor } = await session().catch(() => ({}));
  if (asks && !actor) show();
}

/** Says that a view cannot be loaded now, and tries again until it can. */
function away(failure, signal) {
  connection("waiting");
  if (!main.querySelector("[data-away]")) fill(main, h("h1", { "data-away": "" }, "The server does not answer"), h("p", { role: "alert" }, `${failure.message}. This page comes by itself once it does.`));
  const timer = setTimeout(show, AWAY_MS);
  signal.addEventListener("abort", () => clearTimeout(timer));
}

async function show({ moved = false } = {}) {
  shown = location.pathname + location.search;
  leaving.abort();
  const left = (leaving = new AbortController());
  const found = VIEWS.map(([pattern, name, load]) => [pattern.exec(location.pathname), name, load]).find(([match]) => match);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === found?.[1]) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    if (!found) throw new Error(`There is no page at ${location.pathname}.`);
    const loaded = await Promise.all([found[2](), session()]).catch((failure) => left.signal.aborted || away(failure, left.signal));
    if (left.signal.aborted || !loaded) return;
    const [view, { asks, actor }] = loaded;
    const page = h("div.view");
    const title = (text) => (document.title = `${text} · Phaseline`);
    document.getElementById("leave").hidden = !(asks && actor);
    if (asks && !actor) {
      fill(main, page);
      return loginView({ page, title, then: show });
    }
    const argument = found[0][1] === undefined ? null : decodeURIComponent(found[0][1]);
    fill(main, page);
    view.default({ client, page, argument, query: new URLSearchParams(location.search), signal: left.signal, connection, title });
  } catch (failure) {
    fill(main, h("h1", "Nothing here"), h("p", failure.message), h("p", h("a", { href: "/" }, "To the overview")));
  }
  if (moved) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/']");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.hasAttribute("download") || link.target || /^\/(api|client|web|metrics|docs|openapi|asyncapi|readyz|healthz)/.test(link.getAttribute("href"))) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
document.getElementById("leave").addEventListener("click", async () => {
  try {
    await logout();
    show();
  } catch (failure) {
    notice(`You are not logged out: ${failure.message}`);
  }
});
addEventListener("popstate", () => location.pathname + location.search !== shown && show());
setInterval(() => refreshAges(main), AGES_MS);
show();
