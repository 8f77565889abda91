/** Asks for a key. It goes into a cookie no script can read, and is kept nowhere else. */

import { fill, h, told } from "./dom.js";

/** Who this browser is to the server: {asks, tenant, actor, scopes}. */
export async function session() {
  const answer = await fetch("/api/v1/session", { cache: "no-store" });
  if (!answer.ok) throw new Error(await told(answer));
  return answer.json();
}

/** Shows the form; `then` is called once a key was good. */
export function loginView({ page, title, then }) {
  title("Key");
  const said = h("p", { role: "alert" });
  const key = h("input", { id: "key", type: "password", name: "key", autocomplete: "current-password", required: true, spellcheck: "false" });
  const form = h("form.stack", { onsubmit: (event) => (event.preventDefault(), send()) },
    h("div.field", h("label", { for: "key" }, "API key"), key), h("div.row", h("button", { type: "submit" }, "Log in")), said);
  const send = async () => {
    try {
      const answer = await fetch("/api/v1/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: key.value.trim() }) });
      if (answer.ok) return then();
      key.value = "";
      said.textContent = await told(answer);
    } catch (failure) {
      said.textContent = `The server does not answer: ${failure.message}. The key is kept here; try again.`;
    }
    key.focus();
  };
  fill(page, h("h1", "A key is needed"), h("p.soft", "An operator makes one: ", h("code", "phaseline keys create"), "."), form);
  key.focus();
}

/** Forgets the key. */
export async function logout() {
  const answer = await fetch("/api/v1/session", { method: "DELETE" });
  if (!answer.ok) throw new Error(await told(answer));
}
