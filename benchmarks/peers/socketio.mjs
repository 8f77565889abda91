// Socket.IO with connection-state recovery on its Redis-streams adapter: a process that emits, a gateway, a client here.
//
// Asked as the other peers are (driving.py). Redis appends to its file and syncs it at each write, to be as durable as
// what it is compared with; without that the adapter keeps nothing over a restart of Redis.
import { fork, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";
import { io } from "socket.io-client";

const now = () => Number(process.hrtime.bigint()); // the system's monotonic clock, one for all processes

async function serve(redisPort) {
  const redis = createClient({ url: `redis://127.0.0.1:${redisPort}` });
  await redis.connect();
  const server = new Server({
    adapter: createAdapter(redis),
    connectionStateRecovery: { maxDisconnectionDuration: 120_000 },
  });
  server.on("connection", (socket) => socket.join("job"));
  return server;
}

async function gateway(redisPort, port) {
  (await serve(redisPort)).listen(port);
  process.send({ ready: true });
}

async function writer(redisPort) {
  const server = await serve(redisPort);
  process.on("message", async ({ events, pauseMs }) => {
    for (let seq = 0; seq < events; seq++) {
      server.to("job").emit("said", { seq, at_ns: now(), text: "as engines say" });
      await new Promise((resume) => setTimeout(resume, pauseMs));
    }
  });
  process.send({ ready: true });
}

class Driver {
  async open() {
    const [redisPort, port] = [await freePort(), await freePort()];
    const folder = `${process.env.BENCH_FOLDER}/redis`;
    mkdirSync(folder, { recursive: true });
    const options = { port: redisPort, bind: "127.0.0.1", dir: folder, appendonly: "yes", appendfsync: "always", save: "" };
    const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, `${value}`]);
    this.redis = spawn("redis-server", words, { stdio: "ignore" });
    const failed = new Promise((_, reject) => this.redis.on("error", () => reject(new Error("redis-server is not installed"))));
    await Promise.race([answering(redisPort), failed]);
    this.gateway = await child("gateway", redisPort, port);
    this.writer = await child("writer", redisPort);
    this.socket = io(`http://127.0.0.1:${port}`, { transports: ["websocket"] });
    await new Promise((resolve, reject) => {
      this.socket.on("connect", resolve);
      this.socket.on("connect_error", reject);
    });
    await this.live({ events: 5 }); // recovery begins with a first event
    return { ready: true };
  }

  live({ events }) {
    return new Promise((resolve) => {
      const values = [];
      this.socket.off("said");
      this.socket.on("said", ({ at_ns: at }) => {
        values.push((now() - at) / 1e6);
        if (values.length === events) resolve({ values });
      });
      this.writer.send({ events, pauseMs: 5 });
    });
  }

  close() {
    for (const process_ of [this.gateway, this.writer, this.redis]) process_?.kill("SIGKILL");
  }
}

function child(role, ...words) {
  return new Promise((resolve) => {
    const started = fork(fileURLToPath(import.meta.url), [role, ...words.map(String)], { stdio: ["ignore", 2, 2, "ipc"] });
    started.once("message", () => resolve(started));
  });
}

async function freePort() {
  const probe = createServer();
  await new Promise((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function answering(port) {
  for (;;) {
    const redis = createClient({ url: `redis://127.0.0.1:${port}`, socket: { reconnectStrategy: false } });
    redis.on("error", () => {});
    try {
      await redis.connect();
      await redis.quit();
      return;
    } catch {
      await new Promise((resume) => setTimeout(resume, 50));
    }
  }
}

const [role, ...words] = process.argv.slice(2);
if (role === "gateway") await gateway(...words);
else if (role === "writer") await writer(...words);
else {
  const driver = new Driver();
  const lines = createInterface({ input: process.stdin });
  for await (const line of lines) {
    const { do: act, ...more } = JSON.parse(line);
    let answer;
    try {
      answer = await driver[act](more);
    } catch (failure) {
      answer = { failed: `${failure.name}: ${failure.message}` };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  driver.close();
  process.exit(0);
}
