/** A TCP proxy that breaks what runs through it. */
import { createServer, connect } from "node:net";

export async function proxyTo(target) {
  const { hostname, port } = new URL(target);
  const sockets = new Set();
  const proxy = {
    refusing: false, // connections end at once
    silent: false, // nothing more passes, nothing is closed
    cutAfter: Infinity, // bytes from the server until the connection is reset
    stallAfter: Infinity, // bytes from the server until nothing more passes, and nothing is closed
    refuseUpgrades: false,
    holdEventStreams: false, // as a proxy that buffers does
  };
  const server = createServer((client) => {
    if (proxy.refusing) return client.destroy();
    const upstream = connect(Number(port), hostname);
    sockets.add(client).add(upstream);
    let passed = 0;
    let held = false;
    client.on("data", (data) => (held ||= proxy.holdEventStreams && data.includes("text/event-stream")));
    client.once("data", (first) => {
      const head = first.toString("latin1");
      if (proxy.refuseUpgrades && /^upgrade: websocket/im.test(head)) {
        return client.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      }
      upstream.write(first);
      client.on("data", (more) => proxy.silent || upstream.write(more));
    });
    upstream.on("data", (data) => {
      if (proxy.silent || held) return;
      passed += data.length;
      if (passed > proxy.stallAfter) {
        held = true;
        return void client.write(data.subarray(0, Math.max(0, data.length - (passed - proxy.stallAfter))));
      }
      if (passed <= proxy.cutAfter) return void client.write(data);
      client.write(data.subarray(0, Math.max(0, data.length - (passed - proxy.cutAfter))), () => client.destroy());
    });
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      one.on("error", () => {});
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxy.url = `http://127.0.0.1:${server.address().port}`;
  proxy.cut = () => sockets.forEach((socket) => socket.destroy());
  proxy.close = () => {
    proxy.cut();
    server.close();
  };
  return proxy;
}
