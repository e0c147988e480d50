// The forms: send a prompt, set a balance, script the next payment, order a fault.

import { call, element, local, shillings } from "./dom.js";

/** Let a form act by *work*, which returns what to say; its errors are said as they are. */
function act(form, work) {
  const said = form.querySelector("output");
  let busy = false; // not a disabled button, which would lose the focus
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    const fields = Object.fromEntries(new FormData(form));
    try {
      said.textContent = await work(fields);
      said.dataset.tone = "good";
    } catch (error) {
      said.textContent = error.message;
      said.dataset.tone = "bad";
    }
    busy = false;
  });
}

function options(select, names) {
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => element("option", { textContent: name })));
  if (names.includes(chosen)) select.value = chosen;
}

export class Panel {
  constructor(key) {
    this.kinds = [];
    this.rules = new Map(); // id → row
    this.list = document.querySelector("#rules");
    const scripted = document.querySelector("#script");
    this.scenarios = scripted.elements.scenario;
    this.money = document.querySelector("#money");

    act(document.querySelector("#send"), async ({ phone, amount, description }) => {
      const body = { phone, amount: Number(amount), description: description || null };
      const { data } = await call("POST", "/api/mpesa/payment/initiate", body, { "X-API-Key": key() });
      return `Sent: ${data.reference}`;
    });
    act(this.money, async ({ phone, balance }) => {
      const { data } = await call("POST", "/sandbox/phones", { phone, balance: Number(balance) });
      return `${local(data.phone)} has ${shillings(data.balance)}.`;
    });
    act(scripted, async ({ scenario, phone }) => {
      await call("POST", "/sandbox/script", { scenario, phone: phone || null });
      return `The next payment${phone ? ` to ${phone}` : ""} plays ${scenario}.`;
    });
    this.#prepareFaults(document.querySelector("#fault"));
  }

  setScenarios(names) {
    options(this.scenarios, names);
  }

  /** Open the form of a phone's balance. */
  editBalance(phone) {
    this.money.closest("details").open = true;
    this.money.elements.phone.value = local(phone);
    this.money.elements.balance.focus();
    this.money.elements.balance.select();
  }

  #prepareFaults(form) {
    this.fault = form.elements;
    this.fault.kind.addEventListener("change", () => this.#explain());
    act(form, async (fields) => {
      const times = fields.times === "" ? {} : { times: Number(fields.times) };
      await call("POST", "/sandbox/faults", { kind: fields.kind, call: fields.call, ...times });
      return `Ordered: ${fields.kind}.`;
    });
  }

  #explain() {
    const chosen = this.kinds.find(({ name }) => name === this.fault.kind.value);
    document.querySelector("#happens").textContent = chosen.happens;
    options(this.fault.call, chosen.calls);
  }

  setKinds(kinds) {
    this.kinds = kinds;
    options(this.fault.kind, kinds.map(({ name }) => name));
    this.#explain();
  }

  /** Show an ordered fault, or take it away. */
  setFault(id, rule) {
    const before = this.rules.get(id);
    if (rule === null) {
      before?.remove();
      this.rules.delete(id);
      return;
    }
    const row = this.#rule(rule);
    const focused = before?.contains(document.activeElement);
    if (before) before.replaceWith(row);
    else this.list.append(row);
    if (focused) row.querySelector("button").focus({ preventScroll: true });
    this.rules.set(id, row);
  }

  clear() {
    this.rules.clear();
    this.list.replaceChildren();
  }

  #rule(rule) {
    const often = { 1: "once" }[rule.times] ?? (rule.times ? `${rule.times} times` : "every time");
    const struck = rule.struck ? ` · struck ${rule.struck}` : "";
    const words = `${rule.kind} · ${rule.call ?? "any"} · ${often}${struck}`;
    const remove = element("button", { type: "button", className: "quiet", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${words}`);
    remove.addEventListener("click", () => {
      call("DELETE", `/sandbox/faults/${encodeURIComponent(rule.id)}`).catch(() => {});
    });
    return element("li", {}, element("span", { textContent: words }), remove);
  }
}
