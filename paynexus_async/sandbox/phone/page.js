// The page: keeps what the sandbox tells, and hands each part to whoever shows it.

import { Log } from "./log.js";
import { Panel } from "./panel.js";
import { Phone } from "./phone.js";

const find = (selector) => document.querySelector(selector);

const page = {
  business: "",
  pin: "",
  key: "",
  behind: 0, // the ledger's clock less the browser's, in seconds
  now: () => performance.now() / 1000 + page.behind,
  news: (text) => { find("#news").textContent = text; },
  setBalance: (number) => panel.editBalance(number),
  leave,
};
const phones = new Map();
const log = new Log();
const panel = new Panel(() => page.key);

find("#command").textContent =
  `paynexus pay 0746990866 100 \\\n  --sandbox${location.port === "8765" ? "" : ` --port ${location.port}`}`;

// --- What the sandbox tells

function showSandbox(sandbox) {
  page.business = sandbox.business;
  page.pin = sandbox.pin;
  page.key = sandbox.key;
  panel.setScenarios(sandbox.scenarios);
  find("#rule").textContent = sandbox.customer === "person"
    ? "No money moves. The customer is you: answer the prompts."
    : `No money moves. Customers play ${sandbox.customer}.`;
  find("#hidden").hidden = sandbox.phones_hidden === 0;
  find("#hidden").textContent = `${sandbox.phones_hidden} quieter phones are not shown.`;
}

function phone(number) {
  if (!phones.has(number)) {
    phones.set(number, new Phone(number, page));
    find("#phones").insertBefore(phones.get(number).node, find("#hidden"));
  }
  return phones.get(number);
}

const owners = new Map(); // reference → number, for payments that are no longer told of

function show(name, part) {
  const slash = name.indexOf("/");
  const [kind, id] = slash < 0 ? [name, ""] : [name.slice(0, slash), name.slice(slash + 1)];
  if (kind === "sandbox") showSandbox(part);
  else if (kind === "call") log.setCall(name, part);
  else if (kind === "delivery") log.setDelivery(name, part);
  else if (kind === "faults") panel.setKinds(part);
  else if (kind === "fault") panel.setFault(id, part);
  else if (kind === "phone" && part === null) {
    phones.get(id)?.node.remove();
    phones.delete(id);
  } else if (kind === "phone") phone(id).setBalance(part.balance);
  else if (kind === "payment") {
    const number = part?.phone ?? owners.get(id);
    if (part) owners.set(id, number);
    else owners.delete(id);
    if (part) phone(number).setPayment(id, part);
    else phones.get(number)?.setPayment(id, null);
  }
}

function receive({ now, parts }) {
  page.behind = now - performance.now() / 1000;
  for (const [name, part] of Object.entries(parts)) show(name, part);
  const appeared = [...phones.values()].map((one) => one.render()).filter((one) => one?.pin);
  find("#empty").hidden = phones.size > 0;
  log.render();
  // Whoever is typing a PIN goes on; everybody else is led to the prompt.
  if (appeared.length && !document.activeElement?.matches(".pin")) appeared[0].focus();
}

/** Lead whoever has answered a prompt on: to the next one, or back to where they were. */
function leave(prompt, answered) {
  const waiting = [...phones.values()].map((one) => one.prompt).find((one) => one?.pin);
  const { before } = prompt;
  if (waiting) waiting.focus();
  else if (before?.isConnected && before !== document.body) before.focus({ preventScroll: true });
  else answered.node.focus({ preventScroll: true });
}

function forget() {
  for (const one of phones.values()) one.node.remove();
  phones.clear();
  owners.clear();
  log.clear();
  panel.clear();
}

function link(state, words) {
  find("#link").dataset.state = state;
  find("#link").textContent = words;
}

function listen() {
  const source = new EventSource("/sandbox/events");
  source.addEventListener("open", () => link("live", "live"));
  source.addEventListener("snapshot", (event) => {
    forget();
    receive(JSON.parse(event.data));
  });
  source.addEventListener("change", (event) => receive(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    link("lost", "reconnecting: is the sandbox running?");
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
}

listen();
setInterval(() => { for (const one of phones.values()) one.tick(); }, 250);
