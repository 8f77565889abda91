/** Who runs jobs, and until when their leases hold. */

import { ago, badge, fill, h, number, progressBar, redraw, section, short, table } from "./dom.js";
import { looking } from "./looking.js";

const LOOK_MS = 2000;

export default function workersView({ client, page, signal, connection, title }) {
  title("Workers");
  const list = h("div");
  const engines = h("div");
  const numbers = h("div.tiles");
  fill(page, h("h1", "Workers"), numbers, section("Workers", list), section("Engines", engines));
  const once = { signal, repeatable: false };
  const look = async () => {
    try {
      const [workers, known, stats] = await Promise.all([client.workers(once), client.engines(once), client.stats(once)]);
      connection("live");
      fill(numbers, [["workers", stats.workers], ["slots", stats.slots], ["jobs running", stats.running], ["viewers of this gateway", stats.viewers], ["holes repaired by sweeps", stats.sweep_repairs_total]].map(
        ([name, value]) => h("div.tile", h("b", number(value)), h("span", name))));
      fill(list, workers.length ? table(["worker", "host", "running", "engines", "beat", ""], workers.map((worker) => [
        h("span.mono", { title: worker.id }, short(worker.id)), `${worker.host}, process ${worker.pid}`,
        h("span.row", progressBar((100 * worker.running) / worker.slots, `slots in use of ${short(worker.id)}`), `${worker.running} of ${worker.slots}`),
        Object.keys(worker.engines).join(", "), ago(worker.beat_at), badge(worker.draining ? "draining" : "up"),
      ]), { caption: "Workers" }) : h("p.soft", "No worker runs. Jobs wait until one does: ", h("code", "phaseline worker"), "."));
      redraw(engines, JSON.stringify(known), () => [table(["engine", "version", "what it does", "phases", ""], known.map((engine) => [
        h("b", engine.name), engine.version, engine.summary, engine.phases.map(({ name }) => name.replaceAll("_", " ")).join(" → "),
        h("a.button", { href: `/submit/${encodeURIComponent(engine.name)}` }, "Submit", h("span.sr", ` a job of ${engine.name}`)),
      ]), { caption: "Engines" })]);
    } catch (failure) {
      if (failure.status === 403) return void fill(list, h("p.soft", failure.message));
      if (!signal.aborted) connection("waiting");
    }
  };
  looking(look, LOOK_MS, signal);
}
