// Follows a job with npm's EventSource, which resumes and stops by itself. Prints each seq.
import { EventSource } from "eventsource";

const [url] = process.argv.slice(2);
const source = new EventSource(url);
source.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.attempt !== undefined) console.log(frame.seq);
};
source.onerror = ({ code }) => {
  // 204 after the end: the standard says that it never comes back then.
  if (code === 204 || source.readyState === EventSource.CLOSED) {
    console.log("stopped", code);
    process.exit(0);
  }
};
