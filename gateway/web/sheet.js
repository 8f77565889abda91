/** Styles that come with the part that needs them. */

import { h } from "./dom.js";

/** Ends when they are there, or cannot be had: better without them than not at all. */
export function sheet(name) {
  return new Promise((resolve) => {
    document.head.append(h("link", { rel: "stylesheet", href: `/web/${name}`, onload: resolve, onerror: resolve }));
  });
}
