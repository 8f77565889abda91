/**
 * Drives the JavaScript client by lines of JSON: a command in, its news out, `end` or `failed` last.
 * See tests/conformance/judge.py, which drives the Python client in the same way.
 */
import { createInterface } from "node:readline";
import WebSocket from "ws";

import { Phaseline, PhaselineError } from "../phaseline.js";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (news) => process.stdout.write(`${JSON.stringify(news)}\n`);

async function heard() {
  const { value, done } = await lines.next();
  return done ? null : JSON.parse(value);
}

function breaks() {
  throw new Error("a reader that always breaks: nobody may notice");
}

async function follow(client, { job, after, epoch }) {
  const following = client.follow(job, {
    after,
    epoch,
    onEvent: [breaks],
    onConnection: (connection) => say({ connection }),
    onReset: (snapshot) => say({ reset: snapshot.seq }),
  });
  for await (const { seq, type } of following) {
    say({ event: [seq, type] });
    if (!(await heard())) break;
  }
  return { status: following.status, after: following.after, epoch: following.epoch };
}

async function call(asked) {
  const { url, transports, job } = asked;
  const timeoutMs = asked.timeout_s && asked.timeout_s * 1000;
  const client = new Phaseline(url, { WebSocket, transports, timeoutMs });
  const given = asked.with ?? {};
  switch (asked.do) {
    case "follow":
      return follow(client, asked);
    case "submit":
      return client.submit(given.engine, given.params, { key: given.key, tags: given.tags });
    case "job":
      return client.job(job, { at: given.at });
    case "events": {
      const seqs = [];
      for await (const { seq } of client.events(job, given.after)) seqs.push(seq);
      return seqs;
    }
    case "results":
      return client.results(job);
    case "cancel":
      return client.cancel(job, { reason: given.reason });
    case "retry":
      return client.retry(job);
    case "rerun":
      return client.rerun(job, { fromPhase: given.from_phase });
  }
  throw new Error(asked.do);
}

console.error = () => {};
Math.random = () => 0.01; // short waits: they are not what is tested
for (let asked; (asked = await heard()); ) {
  try {
    say({ end: await call(asked) });
  } catch (failure) {
    if (!(failure instanceof PhaselineError)) throw failure;
    say({ failed: [failure.name, failure.code ?? failure.status ?? null] });
  }
}
