// Follows a job with npm's reconnecting-websocket, which asks for the address anew each time. Prints each seq.
import ReconnectingWebSocket from "reconnecting-websocket";
import WebSocket from "ws";

const [url] = process.argv.slice(2);
let after = 0;
let over = false;
const socket = new ReconnectingWebSocket(() => `${url}?after=${after}`, [], {
  WebSocket,
  minReconnectionDelay: 100,
  maxReconnectionDelay: 500,
});
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.attempt === undefined) return;
  after = frame.seq;
  over = ["complete", "error", "cancelled"].includes(frame.type);
  console.log(frame.seq);
};
socket.onclose = ({ code }) => {
  // It says 1000 of its own when a connection breaks, so the code alone tells nothing.
  if (over && (code === 1000 || code === 4000)) {
    console.log("stopped", code);
    process.exit(0);
  }
};
