/** Jobs made again and again: when the next one comes, what was done with a schedule and by it, and a form for a new one. */

import { ago, agreed, badge, facts, fill, h, jobHref, say, section, short, table, until, words } from "./dom.js";
import { looking } from "./looking.js";
import { go, notice } from "./app.js";
import { tree } from "./json.js";

const LOOK_MS = 5000;
const CATCH_UPS = { last: "make the last one", all: "make all of them, the newest ten", skip: "make none" };

export default function schedulesView({ client, page, argument, signal, connection, title }) {
  title(argument ?? "Schedules");
  const shown = h("div");
  fill(page, argument ? h("h1", "Schedule ", h("span.mono", argument)) : h("h1", "Schedules"), shown);
  let before = "";
  const once = { signal, repeatable: false };
  const look = async () => {
    try {
      const found = argument ? await client.schedule(argument, once) : await client.schedules(once);
      connection("live");
      if (before === (before = JSON.stringify(found))) return; // what is focused or open stays so
      if (argument) fill(shown, one(found), acts(found.acts));
      else fill(shown, section("All", found.length ? list(found) : h("p.soft", "There is none yet.")));
    } catch (failure) {
      if (signal.aborted) return;
      if (failure.status === 404 || failure.status === 403) return void fill(shown, h("p", failure.message), h("p", h("a", { href: "/schedules" }, "All schedules")));
      connection("waiting");
    }
  };
  const act = async (doing) => {
    try {
      await doing();
      await look();
    } catch (failure) {
      if (!signal.aborted) notice(failure.message);
    }
  };
  const buttons = ({ name, paused }) => h("div.row",
    paused ? h("button", { type: "button", onclick: () => act(() => client.resumeSchedule(name, { signal })) }, "Resume", h("span.sr", ` ${name}`))
      : h("button", { type: "button", onclick: () => act(() => client.pauseSchedule(name, { signal })) }, "Pause", h("span.sr", ` ${name}`)),
    h("button", { type: "button", onclick: async () => (await agreed(`Delete the schedule ${name}? The jobs it made stay.`))
      && act(async () => (await client.deleteSchedule(name, { signal }), argument && go("/schedules"))) }, "Delete", h("span.sr", ` ${name}`)));
  const list = (schedules) => table(["name", "engine", "when", "next", "last", "", ""], schedules.map((schedule) => [
    h("a.mono", { href: `/schedules/${encodeURIComponent(schedule.name)}` }, schedule.name), schedule.job.engine, when(schedule),
    next(schedule), last(schedule), badge(schedule.paused ? "paused" : "on"), buttons(schedule),
  ]), { caption: "Schedules" });
  const one = (schedule) => section("What it does", facts([
    ["engine", schedule.job.engine], ["when", when(schedule)], ["next", next(schedule)], ["last", last(schedule)],
    ["ticks missed in an outage", CATCH_UPS[schedule.catch_up]], ["made", [ago(schedule.created_at), ` by ${schedule.created_by}`]],
    ["state", badge(schedule.paused ? "paused" : "on")],
  ]), buttons(schedule), h("h3", "What is submitted"), tree(schedule.job));
  looking(look, LOOK_MS, signal);
  if (!argument) form({ client, page, signal, made: look });
}

const when = ({ cron, timezone }) => [h("code", cron), ` ${timezone}`];
const last = ({ last_at: at, last_job_id: id }) => (id ? [ago(at), " ", h("a.mono", { href: jobHref(id), title: id }, short(id))] : "–");

const next = ({ next_at: at }) => (at ? until(Date.parse(at)) : "–");

function acts(done) {
  return section("What was done", table(["when", "who", "did", "from", "more"],
    done.map((act) => [ago(act.at), act.actor, words(act.act), act.address ?? "–", act.detail ?? "–"]), { caption: "Acts, the newest first" }));
}

// ---- a new one

async function form({ client, page, signal, made }) {
  let engines;
  try {
    engines = await client.engines({ signal });
  } catch (failure) {
    return void (signal.aborted || notice(failure.message));
  }
  const inputs = {
    name: h("input", { id: "s-name", size: 30, autocomplete: "off" }),
    cron: h("input", { id: "s-cron", size: 30, value: "0 6 * * 5", spellcheck: "false" }),
    timezone: h("input", { id: "s-timezone", size: 30, value: Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC" }),
    catch_up: h("select", { id: "s-catch_up" }, Object.entries(CATCH_UPS).map(([value, text]) => h("option", { value }, text))),
    engine: h("select", { id: "s-engine" }, engines.map(({ name }) => h("option", { value: name }, name))),
    params: h("textarea", { id: "s-params", spellcheck: "false", value: "{}" }),
  };
  const labels = { name: ["Name", "letters, digits, - _ ."], cron: ["When", "minute, hour, day of month, month, day of week: 0 6 * * 5 is Friday at six"],
    timezone: ["Time zone", "such as Europe/Zurich"], catch_up: ["Of ticks missed in an outage"], engine: ["Engine"], params: ["Params", "a JSON object"] };
  const wrong = {};
  const fields = Object.entries(inputs).map(([name, input]) => {
    wrong[name] = h("p.wrong", { id: `s-${name}-wrong`, hidden: true });
    input.setAttribute("aria-describedby", `s-${name}-hint s-${name}-wrong`);
    return h("div.field", h("label", { for: `s-${name}` }, labels[name][0]), input, h("p.hint", { id: `s-${name}-hint` }, labels[name][1]), wrong[name]);
  });
  const general = h("p.wrong", { role: "alert" });
  const complain = (name, message) => {
    inputs[name].setAttribute("aria-invalid", "true");
    say(wrong[name], message);
    wrong[name].hidden = false;
  };
  const create = async () => {
    say(general, "");
    for (const [name, input] of Object.entries(inputs)) {
      input.removeAttribute("aria-invalid");
      wrong[name].hidden = true;
    }
    let params;
    try {
      params = JSON.parse(inputs.params.value || "{}");
    } catch {
      complain("params", "must be JSON");
      return inputs.params.focus();
    }
    try {
      const { name, cron, timezone, catch_up: catchUp, engine } = Object.fromEntries(Object.entries(inputs).map(([key, { value }]) => [key, value.trim()]));
      await client.createSchedule(name, cron, { engine, params }, { timezone, catchUp, signal });
      inputs.name.value = "";
      notice(`The schedule ${name} is made.`, "done");
      await made();
    } catch (failure) {
      if (signal.aborted) return;
      const left = [];
      for (const { field, message } of failure.errors ?? []) {
        const name = field.startsWith("job.params") ? "params" : field.startsWith("job.") ? "engine" : field;
        if (inputs[name]) complain(name, field.startsWith("job.params.") ? `${field.slice(11)}: ${message}` : message);
        else left.push(`${field}: ${message}`);
      }
      if (left.length || !failure.errors?.length) say(general, left.join("; ") || failure.message);
      page.querySelector("[aria-invalid]")?.focus();
    }
  };
  page.append(section("A new one", engines.length ? h("form", { novalidate: true, "aria-label": "A new schedule", onsubmit: (event) => (event.preventDefault(), create()) },
    fields, general, h("button.primary", { type: "submit" }, "Create")) : h("p.soft", "No engine is known yet: start a worker.")));
}
