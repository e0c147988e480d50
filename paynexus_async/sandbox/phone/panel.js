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
    this.faults = document.querySelector("#faults");
    this.kinds = [];
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
    const kind = form.elements.kind;
    const explain = () => {
      const chosen = this.kinds.find(({ name }) => name === kind.value);
      document.querySelector("#happens").textContent = chosen?.happens ?? "";
      if (chosen?.calls) options(form.elements.call, chosen.calls);
    };
    kind.addEventListener("change", explain);
    act(form, async (fields) => {
      const times = fields.times === "" ? {} : { times: Number(fields.times) };
      await call("POST", "/sandbox/faults", { kind: fields.kind, call: fields.call, ...times });
      await this.refreshFaults();
      return `Ordered: ${fields.kind}.`;
    });
    this.showFaults = ({ kinds, rules }) => {
      this.faults.hidden = false;
      if (JSON.stringify(kinds) !== JSON.stringify(this.kinds)) {
        this.kinds = kinds;
        options(kind, kinds.map(({ name }) => name));
        explain();
      }
      document.querySelector("#rules").replaceChildren(...rules.map((rule) => this.#rule(rule)));
    };
  }

  #rule(rule) {
    const often = { 1: "once" }[rule.times] ?? (rule.times ? `${rule.times} times` : "every time");
    const struck = rule.struck ? ` · struck ${rule.struck}` : "";
    const words = `${rule.kind} · ${rule.call ?? "any"} · ${often}${struck}`;
    const remove = element("button", { type: "button", className: "quiet", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${words}`);
    remove.addEventListener("click", async () => {
      await call("DELETE", `/sandbox/faults/${encodeURIComponent(rule.id)}`).catch(() => {});
      await this.refreshFaults();
    });
    return element("li", {}, element("span", { textContent: words }), remove);
  }

  /** Show the ordered faults; return whether this sandbox has any to order. */
  async refreshFaults() {
    try {
      this.showFaults(await call("GET", "/sandbox/faults"));
    } catch (error) {
      this.faults.hidden = true;
      return error.status !== 404;
    }
    return true;
  }
}
