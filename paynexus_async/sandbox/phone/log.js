// What the code under test did: its API calls, and the webhooks that went to it.

import { call, clock, element } from "./dom.js";

const KEYS = { sk_: "secret", pk_: "public", sb_: "sandbox", "": "none" };

function tone(code) {
  if (code === null || code >= 500) return "bad";
  return code >= 400 ? "odd" : "good";
}

function cell(text, className = "") {
  return element("td", { className, textContent: text, title: text });
}

/** The fault that a call met, and what is true, where its caller was told otherwise. */
function fault(call) {
  if (!call.fault) return [];
  const truth = call.true_status_code ?? "nothing happened";
  return [element("small", { textContent: `${call.fault}: in truth ${truth}` })];
}

function callRow(call) {
  return element("tr", {},
    cell(clock(call.at), "time"),
    element("td", { className: "call", title: `${call.method} ${call.path}` },
      element("b", { textContent: call.method }), ` ${call.path}`, ...fault(call)),
    cell(KEYS[call.key_kind] ?? "", "key"),
    element("td", {},
      element("span", {
        className: `code ${tone(call.status_code)}`, textContent: call.status_code ?? "none",
      })),
    cell(call.remaining ?? "–", "left"));
}

function deliveryRow(delivery) {
  const where = delivery.error ? `${delivery.url}: ${delivery.error}` : delivery.url;
  return element("tr", { className: "webhook" },
    cell(clock(delivery.at), "time"),
    element("td", { className: "call", title: where },
      element("b", { textContent: "WEBHOOK" }), ` ${delivery.event}`,
      element("small", { textContent: where })),
    cell(delivery.attempt > 1 ? `try ${delivery.attempt}` : "", "key"),
    element("td", {}, element("span", {
      className: `code ${delivery.acknowledged ? "good" : tone(delivery.status_code)}`,
      textContent: delivery.status_code ?? (delivery.error ? "none" : "…"),
    })),
    element("td", { className: "left" }, sendAgain(delivery)));
}

function sendAgain({ id, event, url }) {
  const label = `Send ${event} to ${url} again`;
  const button = element("button", {
    type: "button", className: "again", textContent: "↻", "aria-label": label, title: label,
  });
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await call("POST", `/sandbox/webhooks/deliveries/${id}/resend`);
    } catch (error) {
      button.title = error.message;
      button.textContent = "!";
    }
  });
  return button;
}

export class Log {
  constructor() {
    this.table = document.querySelector("#log");
    this.quiet = document.querySelector("#quiet");
    this.entries = new Map(); // name → {at, order, row}
  }

  clear() {
    this.entries.clear();
  }

  setCall(name, call) {
    this.#set(name, call && { at: call.at, order: call.number, row: callRow(call) });
  }

  setDelivery(name, told) {
    this.#set(name, told && { at: told.at, order: told.id, row: deliveryRow(told) });
  }

  #set(name, entry) {
    if (entry === null) this.entries.delete(name);
    else this.entries.set(name, entry);
  }

  render() {
    const entries = [...this.entries.values()];
    entries.sort((a, b) => b.at - a.at || b.order - a.order);
    const focused = document.activeElement;
    this.table.tBodies[0].replaceChildren(...entries.map((entry) => entry.row));
    // A row that is put back has lost its button's focus.
    if (this.table.contains(focused)) focused.focus({ preventScroll: true });
    this.table.hidden = entries.length === 0;
    this.quiet.hidden = entries.length > 0;
  }
}
