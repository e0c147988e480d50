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
    this.calls = new Map(); // number → {at, row}
    this.deliveries = [];
    this.told = "";
  }

  clear() {
    this.calls.clear();
  }

  setCall(name, call) {
    if (call === null) this.calls.delete(name);
    else this.calls.set(name, { at: call.at, order: call.number, row: callRow(call) });
  }

  /** Returns whether they are news: a row that stays keeps its button's focus. */
  setDeliveries(deliveries) {
    const told = JSON.stringify(deliveries);
    if (told === this.told) return false;
    this.told = told;
    this.deliveries = deliveries.slice(-50).map((delivery, order) => (
      { at: moment(delivery.at), order, row: deliveryRow({ ...delivery, at: moment(delivery.at) }) }));
    return true;
  }

  render() {
    const entries = [...this.calls.values(), ...this.deliveries];
    entries.sort((a, b) => b.at - a.at || b.order - a.order);
    this.table.tBodies[0].replaceChildren(...entries.map((entry) => entry.row));
    this.table.hidden = entries.length === 0;
    this.quiet.hidden = entries.length > 0;
  }
}

/** Seconds since 1970, of a number or of a date as text. */
function moment(at) {
  return typeof at === "number" ? at : Date.parse(at) / 1000;
}
