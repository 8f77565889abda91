/**
 * The JavaScript client of Phaseline: one ES module for browsers and Node 20+, without dependencies.
 *
 *     import { Phaseline } from "/client/phaseline.js";
 *     const phaseline = new Phaseline();
 *     const job = await phaseline.submit("countdown", { steps: 20 });
 *     for await (const event of phaseline.follow(job.id)) console.log(event.seq, event.type);
 *
 * Jobs, events and engines are the JSON objects of docs/protocol.md. A follow delivers every event once and in order,
 * whatever breaks on the way: it resumes after the last sequence, over WebSocket, server-sent events or polling.
 * Types: phaseline.d.ts.
 */

export const VERSION = "0.1.0";

const CALL_MS = 30_000; // a call ends within this, its repetitions included
const CONNECT_MS = 10_000; // for a connection to open, and again for its `hello`
const HEARTBEAT_S = 15; // until the `hello` says otherwise
const WATCHDOG_BEATS = 2.5;
const SETTLED_MS = 5_000; // a connection that lived this long, and caught up, makes the next wait short again
const WAIT_FIRST_MS = 500; // full jitter between zero and a cap that doubles
const WAIT_LAST_MS = 20_000;
const HINT_MAX_MS = 300_000; // past 2^31 ms a timer fires at once
const HELD_BYTES_MAX = 8 * 1024 * 1024; // a WebSocket cannot be slowed: what waits here is bounded, the log has the rest
const POLL_MS = 1_000;
const PROBE_MS = 2_000;
const POLLING_MS = 60_000; // then a better transport is tried again
const TRANSPORTS = ["websocket", "sse", "polling"];
const SCHEDULES = "/api/v1/schedules";
const FINAL = new Set(["completed", "failed", "cancelled"]);
const FINISHED = new Set([1000, 4000]);
const STOP = new Set([4004, 4400, 4403, 1002, 1003, 1007, 1009]);
const FOR_NOW = new Set(["overloaded", "unavailable", "too_many_subscriptions"]); // refusals of a feed
const STATUS_AFTER = {
  submitted: "queued", started: "running", retry: "queued", interrupted: "queued", complete: "completed",
  error: "failed", cancelled: "cancelled", reopened: "queued",
};

// ---- errors ---------------------------------------------------------------------------------------------------

/** The parent of everything this client throws. */
export class PhaselineError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** Nothing answers at the URL, or the connection broke and stayed broken. */
export class NotReachable extends PhaselineError {}

/** The limit the caller gave has passed; the job goes on. */
export class TimedOut extends PhaselineError {}

/** The server closed the stream in a way that says: do not come back. `code` is the close code, or the HTTP status. */
export class StreamRefused extends PhaselineError {
  constructor(code, reason) {
    super(`the server refused the stream: ${reason || "no reason given"} (${code})`);
    this.code = code;
    this.reason = reason;
  }
}

/** The server refused. `errors` are {field, message}; `document` is the whole RFC 9457 document. */
export class Problem extends PhaselineError {
  constructor(status, document, retryAfterMs) {
    super(document.detail || document.title || `HTTP ${status}`);
    this.status = status;
    this.document = document;
    this.errors = Array.isArray(document.errors) ? document.errors : [];
    this.retryAfterMs = retryAfterMs;
  }
}

export class Invalid extends Problem {}
export class NotAllowed extends Problem {}
export class NotFound extends Problem {}
export class Conflict extends Problem {}
export class Busy extends Problem {}

const BY_STATUS = { 400: Invalid, 401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict, 413: Invalid, 422: Invalid,
  429: Busy, 503: Busy };

/** The connection is gone: come back after the last sequence, in `hintMs` when the server named it. */
class Lost extends Error {
  constructor(cause, { hintMs, blocked = false, now = false } = {}) {
    super(String(cause));
    this.hintMs = hintMs;
    this.blocked = blocked; // this way of talking seems closed; another may be open
    this.now = now; // nothing went wrong: no wait
  }
}

/** The stream's end was sent. */
class Finished extends Error {}

// ---- the client -----------------------------------------------------------------------------------------------

/** Talks to one gateway, or to a load balancer before many. */
export class Phaseline {
  constructor(baseUrl = globalThis.location?.origin ?? "http://127.0.0.1:8000", options = {}) {
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.timeoutMs = options.timeoutMs ?? CALL_MS;
    this.connectMs = options.connectMs ?? CONNECT_MS;
    this.heldBytesMax = options.heldBytesMax ?? HELD_BYTES_MAX;
    this.transports = options.transports ?? TRANSPORTS;
    this._token = options.token;
    this._fetch = options.fetch ?? ((...args) => globalThis.fetch(...args));
    this._WebSocket = options.WebSocket ?? globalThis.WebSocket;
  }

  /** Makes a job. The same `key` with the same request gives the same job; without one each call makes its own. */
  submit(engine, params = {}, { priority, notBefore, maxAttempts, timeouts, tags, uniqueKey, uniqueMode, concurrency, webhook, key, signal } = {}) {
    const body = { engine, params, priority, not_before: notBefore, max_attempts: maxAttempts, timeouts, tags, unique_key: uniqueKey, unique_mode: uniqueMode, concurrency, webhook };
    return this._make("/api/v1/jobs", body, key, signal);
  }

  /** The job now, or as of sequence `at`; `results: "inline"` brings a large result too. */
  job(id, { at, results, signal } = {}) {
    return this._json("GET", path(id), { query: { at, results }, signal });
  }

  /** One page, newest first: {jobs, next_cursor}. Further members of `query` are sent as they are. */
  jobs({ createdAfter, signal, ...query } = {}) {
    return this._json("GET", "/api/v1/jobs", { query: { created_after: createdAfter, ...query }, signal });
  }

  /** One page of recorded events: {job_id, head_seq, next_after, events}. */
  eventPage(id, { after, limit, order, signal } = {}) {
    return this._json("GET", path(id, "events"), { query: { after, limit, order }, signal });
  }

  /** The recorded events after `after` up to the head, page by page. */
  async *events(id, after = 0, { signal } = {}) {
    for (;;) {
      const page = await this.eventPage(id, { after, limit: 500, signal });
      yield* page.events;
      after = page.next_after;
      if (!page.events.length || after >= page.head_seq) return;
    }
  }

  /** A job's result. */
  results(id, { signal } = {}) {
    return this._json("GET", path(id, "results"), { signal });
  }

  /** Asks a job to stop; with `force` its engine is not waited for. */
  cancel(id, { force = false, graceS, reason, signal } = {}) {
    const body = { mode: force ? "force" : undefined, grace_s: graceS, reason };
    return this._json("POST", path(id, "cancel"), { body, signal });
  }

  /** Tries a failed or cancelled job again under the same id. */
  retry(id, { reason, signal } = {}) {
    return this._json("POST", path(id, "retry"), { body: { reason }, repeatable: false, signal });
  }

  /** A new job with the params of this one, or others; `fromPhase` reuses the phases recorded before it. */
  rerun(id, { fromPhase, params, key, signal } = {}) {
    return this._make(path(id, "rerun"), { from_phase: fromPhase, params }, key, signal);
  }

  /** The same to every job that `q` finds: first its {count, confirm}, then with `confirm` up to `limit` of them. */
  bulk(action, q, { confirm, limit, reason, signal } = {}) {
    return this._json("POST", "/api/v1/bulk", { body: { action, q, confirm, limit, reason }, signal });
  }

  /** Jobs made again and again, by name. */
  async schedules(options = {}) {
    return (await this._json("GET", SCHEDULES, options)).schedules;
  }

  /** One of them with its `acts`, newest first. */
  schedule(name, options = {}) {
    return this._json("GET", scheduled(name), options);
  }

  /** Makes `job` ({engine, params, …}) at every tick of `cron`; of ticks missed `catchUp` makes "skip", "last" or "all". */
  createSchedule(name, cron, job, { timezone, catchUp, catchUpMax, reason, signal } = {}) {
    const body = { name, cron, job, timezone, catch_up: catchUp, catch_up_max: catchUpMax, reason };
    return this._json("POST", SCHEDULES, { body, repeatable: false, signal });
  }

  pauseSchedule(name, { reason, signal } = {}) {
    return this._json("POST", scheduled(name, "pause"), { body: { reason }, signal });
  }

  resumeSchedule(name, { reason, signal } = {}) {
    return this._json("POST", scheduled(name, "resume"), { body: { reason }, signal });
  }

  /** Removes it; the jobs it made stay. */
  deleteSchedule(name, { reason, signal } = {}) {
    return this._json("DELETE", scheduled(name), { query: { reason }, repeatable: false, signal });
  }

  /** What can run: name, version, summary, phases, JSON Schemas of params and result. */
  async engines(options = {}) {
    return (await this._json("GET", "/api/v1/engines", options)).engines;
  }

  async workers(options = {}) {
    return (await this._json("GET", "/api/v1/workers", options)).workers;
  }

  stats(options = {}) {
    return this._json("GET", "/api/v1/stats", options);
  }

  /** The gateway that answers: what it serves, how late events reach it, what it repaired. */
  gateway(options = {}) {
    return this._json("GET", "/api/v1/gateway", options);
  }

  /** Every event of a job after `after`, then live ones until it ends: `for await`, or callbacks and `done()`. */
  follow(id, options = {}) {
    return new JobFollow(this, id, options);
  }

  /** Every event of every job, from `cursor` ("now" by default) on; it has no end but `stop()`. */
  feed(options = {}) {
    return new FeedFollow(this, options);
  }

  /** Follows a job to its end; the job then, with its result. */
  async wait(id, options = {}) {
    await this.follow(id, options).done();
    return this.job(id, { results: "inline", signal: options.signal });
  }

  // -- calls
  _make(where, body, key, signal) {
    return this._json("POST", where, { body, headers: { "Idempotency-Key": key ?? uuid() }, signal });
  }

  async _json(method, where, asked) {
    return (await this._call(method, where, asked)).json();
  }

  /** One answer below 400. Repeated within the time limit when the connection breaks or the server asks for it. */
  async _call(method, where, { query, body, headers = {}, repeatable = true, signal } = {}) {
    const ends = Date.now() + this.timeoutMs;
    const backoff = new Backoff();
    for (let refreshed = false; ; ) {
      const answer = await this._once(method, where, { query, body, headers, signal, limitMs: ends - Date.now(), refreshed });
      if (!(answer instanceof Error)) return answer;
      if (answer.status === 401 && !refreshed && typeof this._token === "function") {
        refreshed = true;
        continue;
      }
      const passing = answer instanceof NotReachable || answer instanceof Busy;
      const waitMs = backoff.next(answer.retryAfterMs);
      if (!passing || !repeatable || Date.now() + waitMs >= ends) throw answer;
      await pause(waitMs, signal);
    }
  }

  async _once(method, where, { query, body, headers, signal, limitMs, refreshed }) {
    const sent = { Accept: "application/json", ...(await this._authorization(refreshed)), ...headers };
    const limit = new Limit(signal, limitMs);
    try {
      if (body !== undefined) sent["Content-Type"] = "application/json";
      const answer = await this._fetch(this._url(where, query), {
        method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal: limit.signal,
      });
      // Read here, so that the limit holds for the body too.
      const text = await answer.text();
      if (answer.ok) return { json: () => parsed(text, this.baseUrl), headers: answer.headers, status: answer.status };
      return problemOf(answer, text);
    } catch (failure) {
      if (signal?.aborted) throw signal.reason;
      return new NotReachable(`${this.baseUrl} does not answer: ${failure.cause?.message ?? failure.message}`, { cause: failure });
    } finally {
      limit.end();
    }
  }

  async _authorization(refreshed = false) {
    const token = typeof this._token === "function" ? await this._token({ refreshed }) : this._token;
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  _url(where, query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
    const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
    return this.baseUrl + where + (text && `?${text}`);
  }
}

// ---- following ------------------------------------------------------------------------------------------------

/**
 * What all follows share: connections, waits, fall-backs. A position is remembered only after whoever got the event is
 * done with it: callbacks returned and the body of `for await` finished.
 */
class Follow {
  constructor(client, options) {
    this.connection = "waiting"; // live, catching_up or waiting
    this.transport = null; // websocket, sse or polling: the one in use
    this.epoch = options.epoch;
    this.headSeq = 0;
    this._client = client;
    this._options = options;
    this._backoff = new Backoff();
    this._ways = client.transports.filter((name) => name !== "websocket" || client._WebSocket);
    if (!this._ways.length) throw new PhaselineError("there is no WebSocket here: give { WebSocket }, or more transports");
    this._way = 0;
    this._misses = 0;
    this._ended = new AbortController();
    this._link = null;
    this._refreshed = false;
  }

  [Symbol.asyncIterator]() {
    return (this._events ??= this._run());
  }

  /** Follows to the end for the callbacks' sake. */
  async done() {
    this._alone = true;
    for await (const _ of this);
    return this.status;
  }

  /** Ends the follow: the loop over it ends, nothing more is delivered. */
  stop() {
    this._end(new Finished());
  }

  /** Gives the connection up, as a broken network would; the follow comes back after the last event. */
  drop() {
    this._link?.abort(new Lost("dropped", { now: true }));
  }

  _end(reason) {
    this._ended.abort(reason);
    this._link?.abort();
  }

  async *_run() {
    const forget = this._listen();
    const { timeoutMs } = this._options;
    const late = timeoutMs && setTimeout(() => this._end(new TimedOut(`no end within ${timeoutMs} ms`)), timeoutMs);
    try {
      while (!this._over()) {
        const link = (this._link = new Link(this._client.connectMs));
        this.transport = this._ways[this._way];
        try {
          for await (const frame of this[`_${this.transport}`](link)) {
            const events = await this._read(link, frame);
            for (const event of events) {
              if (this._over()) return;
              await this._tell(event);
              if (this._alone) this._remember(link, event); // else not before the loop's body is done with it
              if (this._over()) return;
              yield event;
              this._remember(link, event);
            }
            // Only here: the cursor of a feed stands behind all of a frame.
            if (events.length) this._handled(frame);
            if (link.failure) throw link.failure;
          }
          throw new Lost("the connection ended", { hintMs: link.hintMs });
        } catch (failure) {
          if (this._ended.signal.aborted) failure = this._ended.signal.reason;
          if (failure instanceof Finished) return;
          if (!(failure instanceof Lost)) throw failure;
          if (link.settled()) this._backoff.reset();
          this._show("waiting");
          await this._choose(link, failure);
          await this._pause(failure);
        } finally {
          link.abort();
        }
      }
    } finally {
      clearTimeout(late);
      forget();
      this._show("waiting");
    }
  }

  /** Whether the follow was stopped. Throws when it ended otherwise, such as by its limit. */
  _over() {
    const { aborted, reason } = this._ended.signal;
    if (aborted && !(reason instanceof Finished)) throw reason;
    return aborted;
  }

  /** The way to talk on the next connection: another when this one seems closed while the server is there. */
  async _choose(link, lost) {
    if (lost.best) this._way = 0;
    if (link.greeted || !lost.blocked || !(await this._answers())) {
      this._misses = 0;
      return;
    }
    this._misses += 1;
    if (this.transport === "websocket" && this._misses < 2) return;
    this._way = (this._way + 1) % this._ways.length;
    this._misses = 0;
  }

  /** Whether the server is there at all. */
  async _answers() {
    const limit = new Limit(this._ended.signal, PROBE_MS);
    try {
      return (await this._client._fetch(this._client._url("/healthz"), { signal: limit.signal, cache: "no-store" })).ok;
    } catch {
      return false;
    } finally {
      limit.end();
    }
  }

  async _pause(lost) {
    const waitMs = lost.now ? 0 : this._backoff.next(lost.hintMs);
    const wake = new AbortController();
    this._wake = () => wake.abort();
    try {
      await pause(waitMs, anyOf(this._ended.signal, wake.signal));
    } catch {
      // woken
    } finally {
      this._wake = null;
      wake.abort(); // takes its listeners off
    }
  }

  /** A browser says when the network goes and comes, and when a page is shown again. */
  _listen() {
    const outer = this._options.signal;
    const abort = () => this.stop();
    if (outer?.aborted) this.stop();
    outer?.addEventListener("abort", abort);
    const heard = [];
    if (typeof document !== "undefined") {
      const on = (name, act) => {
        globalThis.addEventListener(name, act);
        heard.push([name, act]);
      };
      on("offline", () => this._link?.abort(new Lost("offline")));
      on("online", () => this._wake?.());
      on("pageshow", () => this._wake?.());
    }
    return () => {
      outer?.removeEventListener("abort", abort);
      for (const [name, act] of heard) globalThis.removeEventListener(name, act);
    };
  }

  // -- the three ways
  async *_websocket(link) {
    const { Authorization } = await this._client._authorization(this._refreshed);
    const protocols = Authorization ? ["phaseline.v1", `bearer.${Authorization.slice(7)}`] : [];
    const url = this._client._url(this._streamPath(), this._streamQuery()).replace(/^http/, "ws");
    if (link.signal.aborted) throw link.failure ?? new Lost("aborted"); // while the token was fetched
    let socket;
    try {
      socket = new this._client._WebSocket(url, protocols);
    } catch (failure) {
      throw new Lost(failure.message, { blocked: true });
    }
    const inbox = new Inbox(this._client.heldBytesMax, () => socket.close());
    link.onAbort = () => {
      inbox.end(link.failure ?? new Lost("aborted"));
      try {
        socket.close();
      } catch {
        // it was closing already
      }
    };
    socket.onopen = () => this._opened(socket);
    socket.onmessage = ({ data }) => inbox.put(data);
    socket.onclose = ({ code, reason }) => inbox.end(this._closed(link, code, reason));
    socket.onerror = () => {}; // a close follows and says more
    for (;;) {
      const text = await inbox.take(link.watchdogMs);
      yield decoded(text);
    }
  }

  async *_sse(link) {
    const answer = await this._open(link, this._eventsPath(), this._eventsQuery(), "text/event-stream");
    if (answer.status === 204) throw new Finished();
    let id = null;
    for await (const line of linesOf(answer, link)) {
      if (line.startsWith("data:")) {
        const frame = decoded(line.slice(5));
        if (id !== null) Object.defineProperty(frame, "cursor", { value: id });
        if (frame.type === "end") throw new Finished();
        yield frame;
      } else if (line.startsWith("id:")) id = line.slice(3).trim();
      else if (line === "") id = null;
    }
  }

  async *_polling(link) {
    const ends = Date.now() + POLLING_MS;
    for (;;) {
      yield* this._poll(link);
      if (Date.now() >= ends && this._ways.length > 1) {
        throw Object.assign(new Lost("trying a better way"), { now: true, best: true });
      }
      await pause(POLL_MS, link.signal).catch(() => {
        throw link.failure ?? new Lost("aborted");
      });
    }
  }

  /** A streaming answer, or with `read` what that makes of it in time. Throws `Lost`, or the problem when coming back would not help. */
  async _open(link, where, query, accept, read = (answer) => answer) {
    const timer = setTimeout(() => link.abort(new Lost("no answer in time", { blocked: true })), this._client.connectMs);
    try {
      const headers = { Accept: accept, ...(await this._client._authorization(this._refreshed)) };
      const answer = await this._client._fetch(this._client._url(where, query), { headers, signal: link.signal, cache: "no-store" });
      if (answer.ok) return await read(answer);
      const problem = problemOf(answer, await answer.text());
      if (answer.status === 401 && !this._refreshed && typeof this._client._token === "function") {
        this._refreshed = true;
        throw new Lost("the token was refused", { now: true });
      }
      if (answer.status >= 500 || [408, 425, 429].includes(answer.status)) {
        throw new Lost(problem.message, { hintMs: problem.retryAfterMs, blocked: answer.status === 501 });
      }
      throw problem;
    } catch (failure) {
      if (failure instanceof Lost || failure instanceof PhaselineError) throw failure;
      throw link.failure ?? new Lost(failure.message);
    } finally {
      clearTimeout(timer);
    }
  }

  _ask(link, where, query) {
    return this._open(link, where, query, "application/json", async (answer) => decoded(await answer.text()));
  }

  _closed(link, code, reason) {
    if (FINISHED.has(code) && link.greeted) return new Finished();
    if (code === 4401 && !this._refreshed && typeof this._client._token === "function") {
      this._refreshed = true;
      return new Lost("the token was refused", { now: true });
    }
    if (STOP.has(code) || code === 4401) return new StreamRefused(code, link.complaint || reason);
    const hint = /retry_after=(\d+(?:\.\d+)?)/.exec(reason ?? "");
    return new Lost(`close code ${code} ${reason ?? ""}`.trim(), {
      hintMs: hint ? hint[1] * 1000 : link.hintMs, blocked: !link.greeted && code === 1006,
    });
  }

  // -- frames
  /** The events of a frame; none in a control frame. */
  async _read(link, frame) {
    switch (frame.type) {
      case "hello":
        link.greeted = true;
        this._refreshed = false;
        link.watchdogMs = WATCHDOG_BEATS * 1000 * (frame.heartbeat_s ?? HEARTBEAT_S);
        this._greet(link, frame);
        this._show("catching_up");
        return [];
      case "caught_up":
        link.caughtUp = true;
        this._show("live");
        return [];
      case "heartbeat":
        this._beat(link, frame);
        return [];
      case "reset":
        await this._startOver(link, frame);
        return [];
      case "goodbye":
        link.hintMs = frame.reconnect_after_ms;
        return [];
      case "command_error":
        link.complaint = frame.message;
        return [];
      case "batch":
        return this._unseen(frame.events, frame);
      default:
        // Control frames newer than this client carry no `seq` of an event and are passed over.
        return "job_id" in frame && "seq" in frame ? this._unseen([frame], frame) : [];
    }
  }

  async _tell(event) {
    for (const callback of [this._options.onEvent ?? []].flat()) await heed(callback, event);
    if (event.type === "progress") for (const callback of [this._options.onProgress ?? []].flat()) await heed(callback, event);
  }

  _show(connection) {
    if (connection === this.connection) return;
    this.connection = connection;
    if (this._options.onConnection) heed(this._options.onConnection, connection);
  }

  _opened() {}
  _greet() {}
  _beat() {}
  _handled() {}
}

class JobFollow extends Follow {
  constructor(client, id, options) {
    super(client, options);
    this.jobId = id;
    this.after = options.after ?? 0; // the last sequence delivered
    this.status = "queued"; // the newest known; at the end the job's
  }

  _streamPath() {
    return path(this.jobId, "stream");
  }

  _streamQuery() {
    return { after: this.after, batch: 1, epoch: this.epoch };
  }

  _eventsPath() {
    return path(this.jobId, "events");
  }

  _eventsQuery() {
    return this._streamQuery();
  }

  _greet(link, hello) {
    link.epoch = hello.epoch;
    if (hello.resume !== "reset") this.epoch = hello.epoch; // else ours stays with our sequence until the snapshot is taken
    this.status = hello.status ?? this.status;
    this._head(hello.head_seq);
  }

  /** Two heartbeats in a row with the same events missing: this connection lost them. */
  _beat(link, { seq }) {
    this._head(seq);
    const behind = seq > this.after ? this.after : null;
    if (behind !== null && behind === link.missed) throw new Lost(`the stream is at ${seq}, only ${this.after} arrived`);
    link.missed = behind;
  }

  _head(seq) {
    if (!(seq > this.headSeq)) return;
    this.headSeq = seq;
    if (this._options.onHead) heed(this._options.onHead, seq);
  }

  _unseen(events) {
    const fresh = events.filter((event) => event.seq > this.after);
    if (fresh.some((event, place) => event.seq !== this.after + 1 + place)) throw new Lost("a sequence is missing");
    if (fresh.length) this._head(fresh.at(-1).seq);
    return fresh;
  }

  _remember(link, event) {
    this.after = event.seq;
    this.epoch = link.epoch ?? this.epoch;
    this.status = STATUS_AFTER[event.type] ?? this.status;
  }

  /** The log knows nothing of our sequence, such as after a restore: take its snapshot and go on from there. */
  async _startOver(link, { snapshot, head_seq: headSeq }) {
    const head = snapshot?.seq ?? headSeq ?? 0;
    this.status = snapshot?.status ?? this.status;
    if (this._options.onReset) await heed(this._options.onReset, snapshot); // before the next event
    // Of a finished job the terminal event comes again, so that a reader who waits for it gets it.
    this.after = FINAL.has(this.status) && head ? head - 1 : head;
    this.headSeq = head;
    this.epoch = link.epoch;
  }

  async *_poll(link) {
    const job = await this._ask(link, path(this.jobId), {});
    if (job.seq < this.after) yield { type: "reset", reason: "seq_ahead", snapshot: job };
    if (!link.greeted) yield { type: "hello", status: job.status, head_seq: job.seq, epoch: this.epoch };
    while (this.after < job.seq) {
      const { events } = await this._ask(link, path(this.jobId, "events"), { after: this.after, limit: 500 });
      if (!events.length) throw new Lost("a sequence is missing");
      yield { type: "batch", events };
    }
    if (!link.caughtUp) yield { type: "caught_up", seq: this.after };
    this.status = job.status;
    if (FINAL.has(job.status)) throw new Finished();
  }
}

class FeedFollow extends Follow {
  constructor(client, options) {
    super(client, options);
    this.cursor = options.cursor ?? "now"; // where to go on
  }

  _streamPath() {
    return "/api/v1/stream";
  }

  _streamQuery() {
    return { batch: 1 };
  }

  _eventsPath() {
    return "/api/v1/events";
  }

  _eventsQuery() {
    return { cursor: this.cursor };
  }

  _opened(socket) {
    socket.send(JSON.stringify({ op: "subscribe", feed: true, cursor: this.cursor }));
  }

  async _read(link, frame) {
    if (frame.type === "command_error") {
      throw FOR_NOW.has(frame.code) ? new Lost(frame.message) : new StreamRefused(frame.code === "forbidden" ? 4403 : 4400, frame.message);
    }
    const events = await super._read(link, frame);
    if (["caught_up", "heartbeat"].includes(frame.type)) this._handled(frame);
    return events;
  }

  _unseen(events) {
    return events;
  }

  _remember() {}

  /** A cursor stands behind all events of its frame. */
  _handled({ cursor }) {
    if (cursor) this.cursor = cursor;
  }

  _startOver() {}

  async *_poll(link) {
    if (!link.greeted) yield { type: "hello", feed: true };
    for (;;) {
      const { events, next_cursor: cursor } = await this._ask(link, this._eventsPath(), { cursor: this.cursor, limit: 500 });
      // Also an empty page says where it ends: `now` is another place each time.
      if (!events.length) return void (yield { type: "caught_up", cursor });
      yield { type: "batch", events, cursor };
    }
  }
}

// ---- parts ----------------------------------------------------------------------------------------------------

/** One connection: what the server said on it so far. */
class Link {
  constructor(connectMs) {
    this.watchdogMs = connectMs;
    this.greeted = this.caughtUp = false;
    this._opened = Date.now();
    this._abort = new AbortController();
    this.signal = this._abort.signal;
  }

  abort(failure) {
    if (this.signal.aborted) return;
    this.failure = failure;
    this._abort.abort(failure);
    this.onAbort?.();
  }

  settled() {
    return this.caughtUp && Date.now() - this._opened >= SETTLED_MS;
  }
}

/** Frames that arrived and wait to be taken. Over its bound it closes the connection: the log has the rest. */
class Inbox {
  constructor(bytesMax, close) {
    this._bytesMax = bytesMax;
    this._close = close;
    this._texts = [];
    this._size = 0;
    this._end = null;
    this._full = false;
    this._silent = true; // so far
  }

  put(text) {
    if (this._full || this._end) return;
    this._texts.push(text);
    this._size += text.length;
    this._waiting?.();
    if (this._size > this._bytesMax && this._texts.length > 1) {
      this._full = true;
      this._end = new Lost("read later", { now: true });
      this._close();
    }
  }

  end(failure) {
    this._end ??= failure;
    this._waiting?.();
  }

  /** The next frame. Throws how the connection ended after the last one, `Lost` when nothing comes for `limitMs`. */
  async take(limitMs) {
    if (!this._texts.length && !this._end) {
      let timer;
      await new Promise((resolve) => {
        this._waiting = resolve;
        timer = setTimeout(resolve, limitMs);
      });
      clearTimeout(timer);
      this._waiting = null;
    }
    if (this._texts.length) {
      const text = this._texts.shift();
      this._silent = false;
      this._size -= text.length;
      return text;
    }
    throw this._end ?? new Lost(`nothing arrived for ${limitMs} ms`, { blocked: this._silent });
  }
}

class Backoff {
  constructor() {
    this.reset();
  }

  /** Milliseconds to wait now. A server's hint wins over the draw, and still counts as one more failure. */
  next(hintMs) {
    const cap = this._cap;
    this._cap = Math.min(WAIT_LAST_MS, cap * 2);
    return hintMs >= 0 ? Math.min(hintMs, HINT_MAX_MS) : Math.random() * cap;
  }

  reset() {
    this._cap = WAIT_FIRST_MS;
  }
}

/** A signal that also fires after some time. */
class Limit {
  constructor(outer, limitMs) {
    this._abort = new AbortController();
    this.signal = this._abort.signal;
    this._outer = outer;
    this._timer = setTimeout(() => this._abort.abort(new Error(`no answer within ${limitMs} ms`)), Math.max(0, limitMs));
    this._heard = () => this._abort.abort(outer.reason);
    if (outer?.aborted) this._heard();
    outer?.addEventListener("abort", this._heard);
  }

  end() {
    clearTimeout(this._timer);
    this._outer?.removeEventListener("abort", this._heard);
  }
}

async function* linesOf(answer, link) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const limitMs = link.watchdogMs;
      const timer = setTimeout(() => {
        link.abort(new Lost(`nothing arrived for ${limitMs} ms`, { blocked: !link.greeted }));
      }, limitMs);
      let part;
      try {
        part = await reader.read();
      } finally {
        clearTimeout(timer);
      }
      if (part.done) return;
      const lines = (rest + decoder.decode(part.value, { stream: true })).split(/\r?\n/);
      rest = lines.pop();
      yield* lines;
    }
  } catch (failure) {
    if (failure instanceof Lost || failure instanceof PhaselineError) throw failure;
    throw link.failure ?? new Lost(failure.message);
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function heed(callback, value) {
  try {
    await callback(value);
  } catch (failure) {
    // A reader that breaks harms no other reader and not the stream.
    console.error("phaseline: a callback failed", failure);
  }
}

function problemOf(answer, text) {
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    // Something in between answered, such as a proxy: its text is the best explanation there is.
    document = { detail: text.slice(0, 200).trim() };
  }
  const seconds = Number(answer.headers.get("Retry-After") ?? NaN);
  return new (BY_STATUS[answer.status] ?? Problem)(answer.status, document ?? {}, seconds >= 0 ? seconds * 1000 : undefined);
}

function parsed(text, url) {
  try {
    return JSON.parse(text);
  } catch (failure) {
    throw new PhaselineError(`${url} did not answer with JSON; is it a Phaseline server?`, { cause: failure });
  }
}

function decoded(text) {
  try {
    const frame = JSON.parse(text);
    if (frame && typeof frame === "object") return frame;
  } catch {
    // told below
  }
  throw new StreamRefused(1002, "a frame was no JSON object; is this Phaseline?");
}

function path(id, part) {
  return `/api/v1/jobs/${encodeURIComponent(id)}${part ? `/${part}` : ""}`;
}

function scheduled(name, part) {
  return `${SCHEDULES}/${encodeURIComponent(name)}${part ? `/${part}` : ""}`;
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const woken = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", woken);
      resolve();
    }, ms);
    signal?.addEventListener("abort", woken, { once: true });
  });
}

function anyOf(...signals) {
  const either = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) either.abort(signal.reason);
    signal.addEventListener("abort", () => either.abort(signal.reason), { once: true, signal: either.signal });
  }
  return either.signal;
}

/** `crypto.randomUUID` exists on secure pages only; a gateway in a home network is none. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
