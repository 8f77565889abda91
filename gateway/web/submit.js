/** A form made from an engine's JSON Schema. The server checks; its messages stand at their fields. */

import { fill, h, jobHref, words } from "./dom.js";
import { go } from "./app.js";

export default async function submitView({ client, page, argument, query, signal, connection, title }) {
  title("Submit");
  fill(page, h("h1", "Submit a job"), h("p.soft", { role: "status" }, "Loading …"));
  let engines, source;
  try {
    engines = await client.engines({ signal });
    source = query.get("from") && (await client.job(query.get("from"), { signal }));
    connection("live");
  } catch (failure) {
    if (signal.aborted) return;
    connection("waiting");
    return void fill(page, h("h1", "Submit a job"), h("p", failure.message));
  }
  if (!engines.length) return void fill(page, h("h1", "Submit a job"), h("p", "No engine is known yet: start a worker."));
  const engine = engines.find(({ name }) => name === argument) ?? (argument ? null : engines.find(({ name }) => name === "countdown") ?? engines[0]);
  const choice = h("select", { id: "engine", onchange: () => go(`/submit/${encodeURIComponent(choice.value)}`) },
    engines.map(({ name }) => h("option", { value: name, selected: name === engine?.name }, name)));
  const top = [h("h1", source ? "Rerun with changes" : "Submit a job"),
    h("section.card", { "aria-label": "Engine" }, h("div.field", h("label", { for: "engine" }, "Engine"), choice, engine && h("p.hint", engine.summary)))];
  if (!engine) return void fill(page, top, h("p", `There is no engine ${argument}.`));
  fill(page, top, new Form(client, engine, source).element);
}

class Form {
  constructor(client, engine, source) {
    this.client = client;
    this.engine = engine;
    this.source = source;
    this.fields = new Map(); // path -> { read, input, wrong }
    const { params_schema: schema } = engine;
    this.schema = schema;
    const required = new Set(schema.required ?? []);
    const given = source?.params ?? {};
    const inputs = Object.entries(schema.properties ?? {}).map(([name, property]) => [required.has(name) || plain(this.resolve(property)) , this.field(name, property, given[name], required.has(name))]);
    const often = inputs.filter(([first], place) => first && place < 8).map(([, field]) => field);
    const rest = inputs.map(([, field]) => field).filter((field) => !often.includes(field));
    this.general = h("p.wrong", { role: "alert" });
    this.tags = h("input", { id: "f-tags", value: source?.tags.join(", ") ?? "" });
    this.priority = h("select", { id: "f-priority" }, ["normal", "low", "high"].map((name) => h("option", { value: name, selected: name === source?.priority }, name)));
    this.send = h("button.primary", { type: "submit" }, source ? "Run again" : "Submit");
    this.element = h("form.card", { novalidate: true, "aria-label": `Params of ${engine.name}`, onsubmit: (event) => (event.preventDefault(), this.submit()) },
      often, rest.length > 0 && h("details.more", { open: !often.length }, h("summary", `${rest.length} more`), rest),
      !source && [wrap("f-tags", "Tags", this.tags, "comma-separated"), wrap("f-priority", "Priority", this.priority)],
      this.general, this.send);
  }

  resolve(property) {
    if (property.$ref) return { ...this.resolve(this.schema.$defs?.[property.$ref.split("/").pop()] ?? {}), ...property, $ref: undefined };
    const choices = (property.anyOf ?? []).filter(({ type }) => type !== "null");
    if (choices.length === 1) return { ...this.resolve(choices[0]), ...property, anyOf: undefined, nullable: true };
    return property;
  }

  field(name, raw, given, required) {
    const property = this.resolve(raw);
    const id = `f-${name}`;
    const value = given === undefined ? property.default : given;
    const [input, read] = control(id, property, value);
    const wrong = h("p.wrong", { id: `${id}-wrong`, hidden: true });
    const limits = [["minimum", "≥"], ["maximum", "≤"], ["exclusiveMinimum", ">"], ["exclusiveMaximum", "<"]].filter(([key]) => property[key] !== undefined).map(([key, sign]) => `${sign} ${property[key]}`).join(", ");
    const hint = [property.description, limits].filter(Boolean).join(" · ");
    input.setAttribute("aria-describedby", `${id}-hint ${id}-wrong`);
    if (required) input.setAttribute("aria-required", "true");
    this.fields.set(name, { read, input, wrong, given });
    return h("div.field", h("label", { for: id }, words(name), required && h("span.soft", " (needed)")), input, h("p.hint", { id: `${id}-hint` }, hint), wrong);
  }

  async submit() {
    this.clear();
    const params = {};
    for (const [name, { read, input, given }] of this.fields) {
      try {
        const value = read();
        if (value !== undefined) params[name] = value;
        else if (given === null) params[name] = null; // left empty as it was: not the default
      } catch (failure) {
        this.complain(name, failure.message);
        return input.focus();
      }
    }
    this.send.disabled = true;
    try {
      const tags = this.tags.value.split(",").map((tag) => tag.trim()).filter(Boolean);
      const job = this.source ? await this.client.rerun(this.source.id, { params })
        : await this.client.submit(this.engine.name, params, { tags, priority: this.priority.value });
      go(jobHref(job.id));
    } catch (failure) {
      this.refused(failure);
    } finally {
      this.send.disabled = false;
    }
  }

  refused(failure) {
    const left = [];
    for (const { field, message } of failure.errors ?? []) {
      const name = /^params\.([^.[]+)/.exec(field)?.[1];
      if (this.fields.has(name)) this.complain(name, field === `params.${name}` ? message : `${field.slice(7)}: ${message}`);
      else left.push(field ? `${field}: ${message}` : message);
    }
    if (left.length || !failure.errors?.length) this.general.textContent = left.join("; ") || failure.message;
    this.element.querySelector("[aria-invalid]")?.focus();
  }

  complain(name, message) {
    const { input, wrong } = this.fields.get(name);
    input.setAttribute("aria-invalid", "true");
    wrong.textContent = message;
    wrong.hidden = false;
    const folded = input.closest("details");
    if (folded) folded.open = true;
  }

  clear() {
    this.general.textContent = "";
    for (const { input, wrong } of this.fields.values()) {
      input.removeAttribute("aria-invalid");
      wrong.hidden = true;
    }
  }
}

const plain = ({ type, enum: choices }) => (choices !== undefined || ["integer", "number", "boolean", "string"].includes(type));

function wrap(id, label, input, hint) {
  return h("div.field", h("label", { for: id }, label), input, hint && h("p.hint", hint));
}

/** An input for a property, and what reads it: undefined is "leave it out". */
function control(id, { type, enum: choices, minimum, maximum, nullable }, value) {
  if (type === "boolean" && nullable) choices = [true, false]; // a box knows no third answer
  if (choices) {
    const select = h("select", { id }, h("option", { value: "" }, "–"), choices.map((choice, place) => h("option", { value: String(place), selected: choice === value }, String(choice))));
    return [select, () => (select.value === "" ? undefined : choices[Number(select.value)])];
  }
  if (type === "boolean") {
    const box = h("input", { id, type: "checkbox", checked: value === true });
    return [box, () => box.checked];
  }
  if (type === "integer" || type === "number") {
    const input = h("input", { id, type: "number", step: type === "integer" ? 1 : "any", min: minimum, max: maximum, value: value ?? "" });
    return [input, () => {
      if (input.validity.badInput) throw new Error("is no number");
      return input.value === "" ? undefined : Number(input.value);
    }];
  }
  if (type === "string") {
    const input = h("input", { id, value: value ?? "", size: 30 });
    return [input, () => (input.value === "" ? undefined : input.value)];
  }
  const area = h("textarea", { id, spellcheck: "false", value: value === undefined || value === null ? "" : JSON.stringify(value, null, 1) });
  return [area, () => {
    if (!area.value.trim()) return undefined;
    try {
      return JSON.parse(area.value);
    } catch {
      throw new Error("must be JSON");
    }
  }];
}
