/** Types of phaseline.js. Jobs, events and engines are the JSON objects of docs/protocol.md. */

export declare const VERSION: string;

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Status = "queued" | "running" | "completed" | "failed" | "cancelled";
export type Connection = "live" | "catching_up" | "waiting";
export type Transport = "websocket" | "sse" | "polling";

export interface Job {
  id: string;
  engine: string;
  engine_version: number;
  status: Status;
  phase: string | null;
  progress: number;
  attempt: number;
  failures: number;
  losses: number;
  max_attempts: number;
  priority: "low" | "normal" | "high";
  params: { [name: string]: Json };
  tags: string[];
  seq: number;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  not_before: string | null;
  rerun_of: string | null;
  unique_key: string | null;
  concurrency: { key: string; limit: number } | null;
  /** The name of the schedule that made it. */
  schedule: string | null;
  stream_url: string;
  webhook?: string;
  results?: Json;
  results_ref?: { url: string; sha256: string; size: number };
  error?: { message: string; code?: string; details?: Json };
}

/** One recorded event; its further fields depend on `type` (docs/protocol.md §1). */
export interface Event {
  job_id: string;
  seq: number;
  type:
    | "submitted" | "started" | "progress" | "checkpoint" | "partial" | "log" | "retry" | "interrupted"
    | "cancel_requested" | "complete" | "error" | "cancelled" | "reopened" | "administered";
  attempt: number;
  timestamp: string;
  actor: string;
  [field: string]: any;
}

export interface Engine {
  name: string;
  version: number;
  summary: string;
  phases: { name: string; until: number }[];
  params_schema: { [name: string]: Json };
  result_schema: { [name: string]: Json };
}

export interface Call {
  signal?: AbortSignal;
}

export interface Look extends Call {
  /** False for one try: for who looks again anyway. */
  repeatable?: boolean;
}

export interface Submission extends Call {
  priority?: "low" | "normal" | "high";
  webhook?: string;
  /** RFC 3339 */
  notBefore?: string;
  maxAttempts?: number;
  timeouts?: { start_s?: number | null; attempt_s?: number | null; total_s?: number | null; stall_s?: number | null };
  tags?: string[];
  /** While a job with this key has not ended, no other is made: that one is the answer, unless uniqueMode says otherwise. */
  uniqueKey?: string;
  uniqueMode?: "return" | "refuse" | "replace";
  /** Of jobs with this key at most so many run at once. */
  concurrency?: { key: string; limit?: number };
  /** The same key with the same request gives the same job. */
  key?: string;
}

export interface FollowOptions extends Call {
  onEvent?: ((event: Event) => unknown) | ((event: Event) => unknown)[];
  onProgress?: ((event: Event) => unknown) | ((event: Event) => unknown)[];
  onConnection?: (connection: Connection) => unknown;
  /** After this many milliseconds in all the follow throws `TimedOut`; the job goes on. */
  timeoutMs?: number;
}

export interface JobFollowOptions extends FollowOptions {
  after?: number;
  epoch?: string;
  onHead?: (seq: number) => unknown;
  /** The log does not know our sequence: drop what was built from it. The next event waits for it. */
  onReset?: (snapshot: Job) => unknown;
}

export interface Follow extends AsyncIterable<Event> {
  readonly connection: Connection;
  readonly transport: Transport | null;
  readonly epoch: string | undefined;
  done(): Promise<Status | undefined>;
  stop(): void;
  /** Gives the connection up, as a broken network would. */
  drop(): void;
}

export interface JobFollow extends Follow {
  readonly jobId: string;
  /** The last sequence delivered, and whose handling ended. */
  readonly after: number;
  readonly headSeq: number;
  readonly status: Status;
}

export interface FeedFollow extends Follow {
  /** Behind the last events that came together and were all handled: of those left in the middle some come again. */
  readonly cursor: string;
}

export interface Options {
  /** A function is asked before each call, with `refreshed` once its last answer was refused; undefined is no token. */
  token?: string | ((why: { refreshed: boolean }) => string | undefined | void | Promise<string | undefined | void>);
  timeoutMs?: number;
  /** For a connection to open, and again for its `hello`; default 10 000. */
  connectMs?: number;
  /** What a slow reader may let wait in memory; the rest is read again from the log. Default 8 MiB. */
  heldBytesMax?: number;
  transports?: Transport[];
  fetch?: typeof fetch;
  /** Node before 22 has none: give that of the package `ws`, or follow over server-sent events. */
  WebSocket?: unknown;
}

export interface Schedule {
  name: string;
  cron: string;
  timezone: string;
  catch_up: "skip" | "last" | "all";
  catch_up_max: number;
  /** What is submitted at each tick. */
  job: { engine: string; params: { [name: string]: Json }; [name: string]: Json };
  paused: boolean;
  next_at: string | null;
  last_at: string | null;
  last_job_id: string | null;
  created_at: string;
  created_by: string;
}

export interface ScheduleAct {
  act: "created" | "paused" | "resumed" | "deleted" | "skipped" | "failed";
  at: string;
  actor: string;
  address?: string;
  detail?: string;
}

export declare class Phaseline {
  constructor(baseUrl?: string, options?: Options);
  readonly baseUrl: string;
  submit(engine: string, params?: { [name: string]: unknown }, submission?: Submission): Promise<Job>;
  job(id: string, options?: Call & { at?: number; results?: "inline" }): Promise<Job>;
  jobs(query?: Call & {
    /** Such as `status:failed engine:fpl tag:weekly created_after:1h`, instead of the others. */
    q?: string;
    status?: string; engine?: string; tag?: string; createdAfter?: string; cursor?: string; limit?: number;
    [name: string]: unknown;
  }): Promise<{ jobs: Job[]; next_cursor: string | null }>;
  eventPage(id: string, query?: Call & { after?: number; limit?: number; order?: "asc" | "desc" }):
    Promise<{ job_id: string; head_seq: number; next_after: number; events: Event[] }>;
  events(id: string, after?: number, options?: Call): AsyncGenerator<Event>;
  results(id: string, options?: Call): Promise<Json>;
  cancel(id: string, options?: Call & { force?: boolean; graceS?: number; reason?: string }): Promise<Job>;
  retry(id: string, options?: Call & { reason?: string }): Promise<Job>;
  rerun(id: string, options?: Call & { fromPhase?: string; params?: { [name: string]: unknown }; key?: string }): Promise<Job>;
  bulk(action: "cancel" | "retry" | "rerun", q: string, options?: Call & { confirm?: string; limit?: number; reason?: string }):
    Promise<{ count: number; confirm?: string; jobs?: Job[]; refused?: { job_id: string; detail: string }[]; next?: string | null }>;
  schedules(options?: Look): Promise<Schedule[]>;
  schedule(name: string, options?: Look): Promise<Schedule & { acts: ScheduleAct[] }>;
  createSchedule(name: string, cron: string, job: { engine: string; params?: { [name: string]: unknown }; [name: string]: unknown },
    options?: Call & { timezone?: string; catchUp?: "skip" | "last" | "all"; catchUpMax?: number; reason?: string }): Promise<Schedule>;
  pauseSchedule(name: string, options?: Call & { reason?: string }): Promise<Schedule>;
  resumeSchedule(name: string, options?: Call & { reason?: string }): Promise<Schedule>;
  deleteSchedule(name: string, options?: Call & { reason?: string }): Promise<Schedule>;
  engines(options?: Look): Promise<Engine[]>;
  workers(options?: Look): Promise<{ [name: string]: any }[]>;
  stats(options?: Look): Promise<{ [name: string]: any }>;
  gateway(options?: Look): Promise<{ [name: string]: any }>;
  follow(id: string, options?: JobFollowOptions): JobFollow;
  feed(options?: FollowOptions & { cursor?: string }): FeedFollow;
  wait(id: string, options?: JobFollowOptions): Promise<Job>;
}

export declare class PhaselineError extends Error {}
export declare class NotReachable extends PhaselineError {}
export declare class TimedOut extends PhaselineError {}
export declare class StreamRefused extends PhaselineError {
  readonly code: number;
  readonly reason: string;
}
export declare class Problem extends PhaselineError {
  readonly status: number;
  readonly document: { [name: string]: Json };
  readonly errors: { field: string; message: string }[];
  readonly retryAfterMs?: number;
}
/** The request cannot be served as it is; `errors` says what to change. */
export declare class Invalid extends Problem {}
/** The token is missing, expired or not good for this. */
export declare class NotAllowed extends Problem {}
/** There is no such thing, or it belongs to somebody else. */
export declare class NotFound extends Problem {}
/** The job's status does not allow this. */
export declare class Conflict extends Problem {}
/** The server cannot take this now. */
export declare class Busy extends Problem {}
