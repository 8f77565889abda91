/** The client against a real gateway at PHASELINE_URL, through a proxy that breaks connections. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, beforeEach, test } from "node:test";
import WebSocket, { WebSocketServer } from "ws";

import { Conflict, Invalid, NotFound, NotReachable, Phaseline, StreamRefused, TimedOut } from "../phaseline.js";
import { proxyTo } from "./proxy.js";

const URL_ = process.env.PHASELINE_URL;
const direct = new Phaseline(URL_, { WebSocket });
let proxy, client;

before(async () => {
  proxy = await proxyTo(URL_);
});
after(() => proxy.close());
beforeEach(() => {
  Object.assign(proxy, { refusing: false, silent: false, cutAfter: Infinity, stallAfter: Infinity, refuseUpgrades: false, holdEventStreams: false });
  proxy.cut(); // idle connections of the test before
  client = new Phaseline(proxy.url, { WebSocket });
});

const seqs = (events) => events.map((event) => event.seq);
const oneTo = (n) => Array.from({ length: n }, (_, index) => index + 1);

async function collected(follow, each = () => {}) {
  const events = [];
  for await (const event of follow) {
    events.push(event);
    await each(event, events);
  }
  return events;
}

/** A finished job of some events. */
async function finished(params = { steps: 5, step_s: 0 }) {
  const { id } = await direct.submit("countdown", params, { maxAttempts: 1 });
  return direct.wait(id);
}

for (const transport of ["websocket", "sse", "polling"]) {
  test(`a follow over ${transport} gives every event once, in order, to the end`, async () => {
    const only = new Phaseline(proxy.url, { WebSocket, transports: [transport] });
    const { id } = await only.submit("countdown", { steps: 10, step_s: 0.05 });
    const follow = only.follow(id);
    const events = await collected(follow);
    assert.equal(follow.transport, transport);
    assert.equal(follow.status, "completed");
    assert.deepEqual(seqs(events), oneTo(events.length));
    assert.deepEqual([events[0].type, events.at(-1).type], ["submitted", "complete"]);
    assert.equal(events.length, (await only.job(id)).seq);
  });

  test(`a follow over ${transport} whose connections break at every turn still gives every event once`, async () => {
    const only = new Phaseline(proxy.url, { WebSocket, transports: [transport] });
    const job = await finished({ steps: 200, step_s: 0 });
    const follow = only.follow(job.id);
    follow._backoff.next = () => 1; // the waits are not what is tested
    let cuts = 0;
    const events = await collected(follow, ({ seq }) => {
      if (seq % 2) {
        cuts += 1;
        proxy.cut();
      }
    });
    assert.ok(cuts > 3, `${cuts} cuts`);
    assert.deepEqual(seqs(events), oneTo(job.seq));
  });

  test(`a follow over ${transport} of a job nobody has ends with an error`, async () => {
    const only = new Phaseline(proxy.url, { WebSocket, transports: [transport] });
    const nobody = "01a20cae-f0fd-7c5c-90af-8d1914daffc9";
    await assert.rejects(collected(only.follow(nobody)), (failure) => failure.code === 4004 || failure instanceof NotFound);
  });
}

test("a connection cut in the middle of a frame costs nothing", async () => {
  const job = await finished();
  proxy.cutAfter = 900;
  const follow = client.follow(job.id, { onConnection: () => (proxy.cutAfter += 400) });
  follow._backoff.next = () => 1;
  assert.deepEqual(seqs(await collected(follow)), oneTo(job.seq));
});

test("a follow begins after the sequence it is given", async () => {
  const job = await finished();
  assert.deepEqual(seqs(await collected(client.follow(job.id, { after: 3 }))), oneTo(job.seq).slice(3));
});

test("a sequence counts as seen only after the loop's body ended", async () => {
  const job = await finished();
  const follow = client.follow(job.id);
  for await (const event of follow) if (event.seq === 2) break;
  assert.equal(follow.after, 1);
});

test("a sequence beyond the head is reset to the job as it stands, and its end comes again", async () => {
  for (const transport of ["websocket", "sse", "polling"]) {
    const job = await finished();
    const resets = [];
    const only = new Phaseline(proxy.url, { WebSocket, transports: [transport] });
    const events = await collected(only.follow(job.id, { after: 900, onReset: (snapshot) => resets.push(snapshot.seq) }));
    assert.deepEqual([resets, seqs(events)], [[job.seq], [job.seq]], transport);
  }
});

test("another epoch is a reset too", async () => {
  const job = await finished();
  const resets = [];
  const follow = client.follow(job.id, { after: 2, epoch: "9-00000000", onReset: ({ seq }) => resets.push(seq) });
  assert.deepEqual([seqs(await collected(follow)), resets], [[job.seq], [job.seq]]);
  assert.notEqual(follow.epoch, "9-00000000");
});

test("a callback that throws harms neither the others nor the stream", async (context) => {
  context.mock.method(console, "error", () => {});
  const job = await finished();
  const heard = [];
  const broken = () => {
    throw new Error("of the page");
  };
  const status = await client.follow(job.id, { onEvent: [broken, (event) => heard.push(event.seq)] }).done();
  assert.deepEqual([status, heard], ["completed", oneTo(job.seq)]);
  assert.equal(console.error.mock.callCount(), job.seq);
});

test("without WebSockets a follow goes on over server-sent events", async () => {
  proxy.refuseUpgrades = true;
  const job = await finished();
  const follow = client.follow(job.id);
  assert.deepEqual(seqs(await collected(follow)), oneTo(job.seq));
  assert.equal(follow.transport, "sse");
});

test("behind a proxy that holds streams back a follow goes on by polling", async () => {
  Object.assign(proxy, { refuseUpgrades: true, holdEventStreams: true });
  const job = await finished();
  const follow = new Phaseline(proxy.url, { WebSocket, connectMs: 500 }).follow(job.id);
  assert.deepEqual(seqs(await collected(follow)), oneTo(job.seq));
  assert.equal(follow.transport, "polling");
});

test("while nobody answers a follow waits, and says so; then it goes on over its best transport", async () => {
  const { id } = await direct.submit("countdown", { steps: 30, step_s: 0.05 });
  const shown = [];
  const follow = client.follow(id, { onConnection: (connection) => shown.push(connection) });
  follow._backoff.next = () => 20;
  const events = await collected(follow, ({ seq }) => {
    if (seq !== 4) return;
    proxy.refusing = true;
    proxy.cut();
    setTimeout(() => (proxy.refusing = false), 300);
  });
  assert.deepEqual(seqs(events), oneTo(events.length));
  assert.equal(follow.transport, "websocket");
  assert.deepEqual(shown.slice(0, 1), ["catching_up"]);
  assert.ok(shown.includes("waiting") && shown.includes("live"), shown.join());
});

test("a connection that falls silent is given up after 2.5 heartbeats", async () => {
  const { id } = await direct.submit("countdown", { steps: 4, step_s: 2 });
  const follow = client.follow(id);
  follow._streamQuery = () => ({ after: follow.after, batch: 1, heartbeat: 2 });
  const began = Date.now();
  const events = await collected(follow, ({ seq }) => {
    if (seq !== 2) return;
    proxy.silent = true;
    follow._options.onConnection = (connection) => connection === "waiting" && (proxy.silent = false);
  });
  assert.deepEqual(seqs(events), oneTo(events.length));
  assert.ok(Date.now() - began >= 4_500);
});

test("a slow reader's backlog is bounded, and it misses nothing", async () => {
  const { id, seq } = await finished({ steps: 10, step_s: 0.1 });
  const follow = new Phaseline(proxy.url, { WebSocket, heldBytesMax: 100 }).follow(id);
  assert.deepEqual(seqs(await collected(follow, () => new Promise(setImmediate))), oneTo(seq));
});

test("stop ends the loop, a limit throws and leaves the job alone", async () => {
  const { id } = await direct.submit("countdown", { steps: 100, step_s: 0.1 });
  const stopped = client.follow(id);
  await collected(stopped, ({ seq }) => seq === 2 && stopped.stop());
  await assert.rejects(collected(client.follow(id, { timeoutMs: 300 })), TimedOut);
  const aborter = new AbortController();
  setTimeout(() => aborter.abort(), 200);
  await collected(client.follow(id, { signal: aborter.signal }));
  assert.equal((await client.cancel(id, { force: true })).status, "cancelled");
});

test("a follow stopped while it waits opens no further connection and delivers nothing more", async () => {
  const opened = [];
  class Counted extends WebSocket {
    constructor(...asked) {
      super(...asked);
      opened.push(this);
    }
  }
  const { id } = await direct.submit("countdown", { steps: 100, step_s: 0.1 });
  const heard = [];
  const follow = new Phaseline(proxy.url, { WebSocket: Counted, transports: ["websocket"] }).follow(id, {
    onEvent: ({ seq }) => heard.push(seq) === 3 && proxy.cut(),
    onConnection: (state) => state === "waiting" && setImmediate(() => follow.stop()),
  });
  follow._backoff.next = () => 60_000;
  await follow.done();
  assert.deepEqual([opened.length, heard, follow.after], [1, oneTo(heard.length), heard.length]);
  await new Phaseline(proxy.url, { WebSocket: Counted }).follow(id, { signal: AbortSignal.abort(), onEvent: ({ seq }) => heard.push(-seq) }).done();
  assert.deepEqual([opened.length, heard], [1, oneTo(heard.length)]);
  await direct.cancel(id, { force: true });
});

test("an event counts as seen by the callbacks that stopped the follow, not by a loop that did not get it", async () => {
  const { id } = await finished();
  const told = client.follow(id, { onEvent: ({ seq }) => seq === 3 && told.stop() });
  await told.done();
  assert.equal(told.after, 3);
  const looped = client.follow(id, { onEvent: ({ seq }) => seq === 3 && looped.stop() });
  assert.deepEqual([seqs(await collected(looped)), looped.after], [[1, 2], 2]);
});

test("a poll whose answer breaks off in the middle costs nothing", async () => {
  const job = await finished({ steps: 40, step_s: 0 });
  proxy.cutAfter = 900;
  const only = new Phaseline(proxy.url, { transports: ["polling"] });
  const follow = only.follow(job.id, { onConnection: () => (proxy.cutAfter += 400) });
  follow._backoff.next = () => 1;
  assert.deepEqual(seqs(await collected(follow)), oneTo(job.seq));
  const { next_cursor: cursor } = await (await fetch(`${URL_}/api/v1/events?cursor=now`)).json();
  const other = await finished({ steps: 40, step_s: 0 });
  proxy.cut();
  proxy.cutAfter = 900;
  const feed = only.feed({ cursor, onConnection: () => (proxy.cutAfter += 400) });
  feed._backoff.next = () => 1;
  const got = await collected(feed, ({ job_id, type }) => job_id === other.id && type === "complete" && feed.stop());
  assert.deepEqual(seqs(got.filter(({ job_id }) => job_id === other.id)), oneTo(other.seq));
});

test("a poll whose answer stops in the middle is given up, and the next one goes on", { timeout: 60_000 }, async () => {
  const job = await finished({ steps: 40, step_s: 0 });
  proxy.stallAfter = 900;
  const waited = [];
  const only = new Phaseline(proxy.url, { transports: ["polling"], connectMs: 2_000 });
  const follow = only.follow(job.id, { onConnection: (state) => state === "waiting" && waited.push((proxy.stallAfter = Infinity)) });
  assert.deepEqual(seqs(await collected(follow)), oneTo(job.seq));
  assert.ok(waited.length > 1, "it never stalled"); // the last time is the end
});

test("a reset's callback is done before the next event comes", async () => {
  const job = await finished();
  const told = [];
  const follow = client.follow(job.id, {
    after: 900,
    onReset: async () => {
      await new Promise(setImmediate);
      told.push("reset");
    },
    onEvent: ({ seq }) => told.push(seq),
  });
  await follow.done();
  assert.deepEqual(told, ["reset", job.seq]);
});

test("a feed that is refused for good ends with what was said, one that is refused for now comes back", async (t) => {
  const answers = ["unavailable", "too_many_subscriptions", "forbidden"];
  const asked = [];
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  server.on("connection", (socket) => {
    socket.on("message", (text) => {
      asked.push(JSON.parse(text).op);
      socket.send(JSON.stringify({ type: "command_error", code: answers[asked.length - 1], message: "not yours", feed: true }));
    });
  });
  await once(server, "listening");
  const feed = new Phaseline(`http://127.0.0.1:${server.address().port}`, { WebSocket, transports: ["websocket"] }).feed();
  feed._backoff.next = () => 1;
  await assert.rejects(feed.done(), (failure) => {
    assert.ok(failure instanceof StreamRefused, failure);
    assert.deepEqual([failure.code, failure.reason], [4403, "not yours"]);
    return true;
  });
  assert.deepEqual(asked, ["subscribe", "subscribe", "subscribe"]);
});

test("a hint of when to come back is followed for five minutes at most, and one that is no time not at all", () => {
  const { _backoff: backoff } = client.follow("01a20cae-f0fd-7c5c-90af-8d1914daffc9");
  assert.deepEqual([0, 7, 300_001, 2 ** 31, Infinity].map((hint) => backoff.next(hint)), [0, 7, 300_000, 300_000, 300_000]);
  for (const hint of [-1, NaN, undefined, "soon"]) assert.ok(backoff.next(hint) <= 20_000);
});

test("a feed that gives its connection up in the middle of a frame brings every event once", async () => {
  const { next_cursor: cursor } = await (await fetch(`${URL_}/api/v1/events?cursor=now`)).json();
  const job = await finished({ steps: 40, step_s: 0 });
  const feed = client.feed({ cursor });
  feed._backoff.next = () => 1;
  const got = [];
  await collected(feed, ({ job_id, seq, type }) => {
    if (job_id !== job.id) return;
    if (got.push(seq) === 3) feed.drop();
    if (type === "complete") feed.stop();
  });
  assert.deepEqual(got, oneTo(job.seq));
});

test("without any way to talk, and when something else answers, it says so", async () => {
  assert.throws(() => new Phaseline(proxy.url, { WebSocket: false, transports: ["websocket"] }).follow("x"), /there is no WebSocket/);
  const portal = new Phaseline(proxy.url, { fetch: async () => new Response("<html>Please log in") });
  await assert.rejects(portal.job("x"), /did not answer with JSON; is it a Phaseline server/);
  const keyless = new Phaseline(proxy.url, { token: async () => Promise.reject(new Error("no key today")) });
  await assert.rejects(keyless.job("x"), /^Error: no key today/);
});

test("what the server refuses names the field", async () => {
  await assert.rejects(client.submit("countdown", { steps: "many" }), (problem) => {
    assert.ok(problem instanceof Invalid);
    assert.equal(problem.errors[0].field, "params.steps");
    return true;
  });
  await assert.rejects(client.submit("nothing"), NotFound);
  const job = await finished();
  await assert.rejects(client.cancel(job.id), Conflict);
});

test("a submit whose answer is lost makes one job", async () => {
  const lossy = new Phaseline(proxy.url, {
    fetch: async (...asked) => {
      const answer = await fetch(...asked);
      if (lossy.lost) return answer;
      lossy.lost = await answer.json();
      throw new TypeError("the connection broke");
    },
  });
  assert.equal((await lossy.submit("countdown", { steps: 1, step_s: 0 })).id, lossy.lost.id);
});

test("a server that is not there is said to be unreachable, within the limit", async () => {
  proxy.refusing = true;
  const hasty = new Phaseline(proxy.url, { timeoutMs: 300 });
  await assert.rejects(hasty.job("x"), NotReachable);
});

test("jobs, events as of a sequence, retry, rerun", async () => {
  const job = await finished({ steps: 5, step_s: 0, fail_at: 3 });
  assert.equal(job.status, "failed");
  const tried = await client.retry(job.id);
  assert.equal(tried.id, job.id);
  assert.ok(tried.seq > job.seq && tried.status !== "completed", tried.status); // a free worker may have failed it again
  const again = await client.rerun(job.id, { params: { steps: 2, step_s: 0 } });
  const ended = await client.wait(again.id);
  assert.deepEqual([ended.status, ended.results.steps, ended.rerun_of], ["completed", 2, job.id]);
  assert.equal((await client.job(again.id, { at: 1 })).status, "queued");
  const { jobs } = await client.jobs({ limit: 1 });
  assert.equal(jobs[0].id, again.id);
  const recorded = [];
  for await (const event of client.events(again.id)) recorded.push(event.seq);
  assert.deepEqual(recorded, oneTo(ended.seq));
  assert.equal((await client.results(again.id)).steps, 2);
});

for (const transport of ["websocket", "sse", "polling"]) {
  test(`the feed over ${transport} brings every event of new jobs once, across broken connections`, async () => {
    const only = new Phaseline(proxy.url, { WebSocket, transports: [transport] });
    const { next_cursor: cursor } = await (await fetch(`${URL_}/api/v1/events?cursor=now`)).json();
    const job = await finished({ steps: 40, step_s: 0 });
    const feed = only.feed({ cursor });
    feed._backoff.next = () => 1;
    const got = [];
    await collected(feed, (event) => {
      if (event.job_id !== job.id) return;
      got.push(event.seq);
      if (event.seq === 5) proxy.cut();
      if (event.type === "complete") feed.stop();
    });
    assert.deepEqual(got, oneTo(job.seq));
  });

  test(`the feed over ${transport} without a cursor brings all that happens once it is live`, async () => {
    const only = new Phaseline(proxy.url, { WebSocket, transports: [transport] });
    const got = [];
    let job;
    const feed = only.feed({
      onConnection: (state) => state === "live" && (job ??= finished()),
      onEvent: async (event) => {
        got.push(event);
        if (!job) return;
        const { id, seq } = await job;
        if (got.filter((one) => one.job_id === id).length >= seq) feed.stop();
      },
    });
    await feed.done();
    const { id, seq } = await job;
    assert.deepEqual(seqs(got.filter((event) => event.job_id === id)), oneTo(seq));
  });
}

test("a stream that ends for good is told apart from one that broke", async () => {
  const bad = client.follow((await finished()).id);
  bad._streamQuery = () => ({ after: "x" });
  await assert.rejects(collected(bad), (failure) => failure instanceof StreamRefused && failure.code === 4400);
});

test("a schedule is made, paused, resumed and removed, and what is wrong is named", async () => {
  const name = `js-${Date.now()}`;
  await assert.rejects(client.createSchedule(name, "0 6 * *", { engine: "countdown" }), (failure) => failure instanceof Invalid && failure.errors[0].field === "cron");
  const made = await client.createSchedule(name, "0 6 * * 5", { engine: "countdown", params: { steps: 2 } }, { timezone: "Europe/Zurich", catchUp: "skip", reason: "weekly" });
  assert.deepEqual([made.name, made.catch_up, made.paused, made.job.params.steps], [name, "skip", false, 2]);
  await assert.rejects(client.createSchedule(name, "0 6 * * 5", { engine: "countdown" }), Conflict);
  assert.ok((await client.schedules()).some((one) => one.name === name));
  assert.equal((await client.pauseSchedule(name)).next_at, null);
  assert.equal((await client.resumeSchedule(name, { reason: "again" })).paused, false);
  assert.deepEqual((await client.schedule(name)).acts.map(({ act }) => act), ["resumed", "paused", "created"]);
  assert.equal((await client.deleteSchedule(name)).name, name);
  await assert.rejects(client.schedule(name), NotFound);
});
