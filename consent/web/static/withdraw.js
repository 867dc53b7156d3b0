// Withdrawing: with the key if this browser holds it. Without it, or if anything fails, the form goes as it is, and the
// institution attests the withdrawal: a lost key traps nobody.

import { findKey } from "./keys.js";
import { ask, say, signed } from "./signing.js";

const form = document.querySelector("#withdraw");
const status = document.querySelector("#status");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (form.dataset.busy === "yes") return;
  form.dataset.busy = "yes";
  say(status, form.dataset.working);
  try {
    const key = await findKey(form.dataset.key);
    if (key !== null && key.did === form.dataset.did) {
      const prepared = await ask("/api/prepare-withdrawal", { did: key.did });
      const stored = await ask("/api/sign", { record: await signed(prepared, key) });
      location.assign(stored.receipt);
      return;
    }
  } catch (error) {
    console.warn(error);
  }
  form.submit(); // no submit event: straight to the server
});
