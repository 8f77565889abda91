/**
 * Looks again and again, one at a time: a slow server gets no second question before it answered the first. What is asked in a
 * look need not be repeatable: the next look is its repetition, and a server that is away is told at once.
 */

const SOON_MS = 1000;

/**
 * Looks now and `everyMs` after each look, one at a time, until `signal`. What it returns asks for a look sooner: once a
 * second at most, however often it is called.
 */
export function looking(look, everyMs, signal) {
  let timer = null;
  let asked = true;
  let busy = false;
  let ended = 0;
  const run = async () => {
    asked = false;
    busy = true;
    try {
      await look();
    } finally {
      busy = false;
      ended = Date.now();
      if (!signal.aborted) timer = setTimeout(run, asked ? SOON_MS : everyMs);
    }
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  run();
  return () => {
    if (asked || signal.aborted) return;
    asked = true;
    if (busy) return;
    clearTimeout(timer);
    timer = setTimeout(run, Math.max(0, ended + SOON_MS - Date.now()));
  };
}
