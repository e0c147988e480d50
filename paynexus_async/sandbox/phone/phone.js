// One phone: its balance, the prompt that it shows, and the messages that came.

import {
  call, calm, dayAndMinute, element, local, minuteOf, shillings, withCents,
} from "./dom.js";

const ENDS = ["completed", "cancelled", "failed", "expired"];

/** What the customer reads about a payment whose prompt is no longer open. */
function message(payment, business) {
  const asked = `${withCents(payment.amount)} to ${business}`;
  switch (payment.status) {
    case "completed": {
      const account = payment.description ? ` for account ${payment.description}` : "";
      const paid = `${payment.receipt} Confirmed. ${withCents(payment.amount)} paid to ${business}`;
      const left = payment.balance === null
        ? "" : ` New M-PESA balance is ${withCents(payment.balance)}.`;
      const when = dayAndMinute(payment.since);
      return `${paid}${account} on ${when}.${left} Transaction cost, Ksh0.00.`;
    }
    case "cancelled":
      return `You cancelled the request to pay ${asked}.`;
    case "expired":
      return `The request to pay ${asked} ran out: nobody answered.`;
    case "failed":
      return `${payment.failure_reason ?? "It did not go through"}. The request to pay ${asked} failed; no money was taken.`;
    default:
      return `The payment of ${asked} is being processed.`;
  }
}

export class Phone {
  constructor(number, page) {
    this.number = number;
    this.page = page; // business, pin, now(), news(), setBalance(number)
    this.balance = null;
    this.payments = new Map();
    this.notes = new Map();
    this.prompt = null;

    this.time = element("span");
    this.amount = element("span", { className: "amount" });
    this.delta = element("span", { className: "delta", ariaHidden: "true" });
    this.messages = element("ol", { className: "messages", ariaLabel: "Messages" });
    this.place = element("div", { className: "place" });
    this.tag = element("p", { className: "tag", hidden: true });
    const set = element("button", { type: "button", className: "quiet", textContent: "Set balance" });
    set.setAttribute("aria-label", `Set balance of ${local(number)}`);
    set.addEventListener("click", () => page.setBalance(number));
    this.node = element(
      "article", { className: "phone", tabIndex: -1, ariaLabel: `Phone ${local(number)}` },
      element("div", { className: "screen" },
        element("div", { className: "bar", ariaHidden: "true" }, this.time,
          element("span", { className: "glyphs" },
            element("i", { className: "signal" }), element("i", { className: "battery" }))),
        element("div", { className: "account" },
          element("div", { className: "owner" },
            element("h2", { textContent: local(number) }), set),
          element("div", { className: "balance" }, this.amount, this.delta)),
        this.messages,
        this.place),
      this.tag);
  }

  setBalance(balance) {
    const before = this.balance;
    this.balance = balance;
    if (before === null || before === balance || calm.matches) {
      this.amount.textContent = shillings(balance);
    } else {
      this.#roll(before, balance);
    }
  }

  #roll(from, to) {
    const began = performance.now();
    const change = to - from;
    this.delta.textContent = `${change < 0 ? "−" : "+"}${shillings(Math.abs(change))}`;
    this.delta.classList.remove("shown");
    void this.delta.offsetWidth; // so that the animation begins anew
    this.delta.classList.add("shown");
    const step = (now) => {
      if (this.balance !== to) return; // it moved on
      const done = Math.min(1, (now - began) / 700);
      this.amount.textContent = shillings(to - Math.round(change * (1 - done) ** 3));
      if (done < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  setPayment(reference, payment) {
    if (payment === null) {
      this.payments.delete(reference);
      this.notes.get(reference)?.remove();
      this.notes.delete(reference);
      return;
    }
    const before = this.payments.get(reference);
    this.payments.set(reference, payment);
    if (ENDS.includes(payment.status) && before && before.status !== payment.status) {
      this.page.news(`${local(this.number)}: ${message(payment, this.page.business)}`);
    }
  }

  /** Show what has changed; return a prompt that has just appeared. */
  render() {
    const newestFirst = [...this.payments.values()].sort((a, b) => b.sent_at - a.sent_at);
    this.#renderMessages(newestFirst);
    this.time.textContent = minuteOf(this.page.now());
    const [newest] = newestFirst;
    const played = newest !== undefined && newest.scenario !== "person";
    this.node.classList.toggle("played", played);
    this.tag.hidden = !played;
    this.tag.textContent = played ? `played by scenario ${newest.scenario}` : "";
    return this.#renderPrompt(newestFirst.filter((p) => p.status === "initiated"));
  }

  #renderMessages(newestFirst) {
    const notes = newestFirst.filter((p) => p.status !== "initiated").map((payment) => {
      let note = this.notes.get(payment.reference);
      if (!note) {
        note = element("li", {}, element("strong"), element("time"), element("p"));
        this.notes.set(payment.reference, note);
      }
      const [title, time, text] = note.children;
      note.dataset.end = ENDS.includes(payment.status) ? payment.status : "processing";
      title.textContent = payment.status === "completed" ? "M-PESA" : note.dataset.end;
      time.textContent = minuteOf(payment.since);
      text.textContent = message(payment, this.page.business);
      return note;
    });
    this.messages.replaceChildren(...notes);
  }

  #renderPrompt(open) {
    const shown = open.at(-1); // a phone shows one prompt at a time, the first that came
    if (this.prompt && this.prompt.payment.reference === shown?.reference) {
      this.prompt.more(open.length - 1);
      return null;
    }
    const left = this.place.contains(document.activeElement) ? this.prompt : null;
    this.prompt = shown ? new Prompt(shown, this.page) : null;
    this.place.replaceChildren(...(this.prompt ? [this.prompt.node] : []));
    if (left) this.page.leave(left, this);
    if (!this.prompt) return null;
    this.prompt.more(open.length - 1);
    this.page.news(`${local(this.number)}: ${this.page.business} asks for ${shillings(shown.amount)}.`);
    return this.prompt;
  }

  tick() {
    this.time.textContent = minuteOf(this.page.now());
    this.prompt?.tick();
  }
}

let prompts = 0;

class Prompt {
  constructor(payment, page) {
    this.payment = payment;
    this.page = page;
    this.pin = null;
    this.before = null; // what had the focus
    this.busy = false;
    this.left = element("span", { className: "countdown" });
    this.gauge = element("i");
    this.queue = element("p", { className: "hint", hidden: true });
    const id = `prompt-${(prompts += 1)}`;
    const described = payment.description
      ? [element("p", { className: "for", textContent: payment.description })] : [];
    this.node = element("form", { className: "prompt", noValidate: true, autocomplete: "off" });
    this.node.setAttribute("role", "dialog");
    this.node.setAttribute("aria-labelledby", id);
    this.node.append(
      element("div", { className: "gauge", ariaHidden: "true" }, this.gauge),
      element("p", { className: "who", id },
        element("span", { textContent: "Pay " }),
        element("b", { textContent: page.business })),
      element("p", { className: "sum", textContent: shillings(payment.amount) }),
      ...described,
      ...(payment.waits ? this.#answers(id) : this.#playing()),
      this.queue);
    this.tick();
  }

  #playing() {
    return [
      element("p", { className: "robot" },
        "Played by a scenario: ", element("b", { textContent: this.payment.scenario })),
      this.left];
  }

  #answers(id) {
    this.pin = element("input", {
      name: "pin", type: "text", inputMode: "numeric", maxLength: 4, autocomplete: "off",
      className: "pin", required: true,
    });
    this.pin.setAttribute("aria-describedby", `${id}-hint`);
    this.pin.addEventListener("input", () => {
      this.pin.value = this.pin.value.replace(/\D/g, "");
    });
    this.hint = element("p", {
      className: "hint", id: `${id}-hint`,
      textContent: `The PIN is ${this.page.pin}; any other fails.`,
    });
    this.hint.setAttribute("role", "status");
    const cancel = element("button", { type: "button", textContent: "Cancel" });
    cancel.addEventListener("click", () => this.#answer("decline"));
    const send = element("button", { type: "submit", className: "main", textContent: "Send" });
    const keys = [..."123456789", "⌫", "0"].map((key) => this.#key(key));
    keys.splice(9, 2, keys[10], keys[9]); // 0 below 8, ⌫ to its right
    this.node.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#enter();
    });
    this.node.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#answer("decline");
    });
    return [
      element("label", {}, element("span", { textContent: "M-PESA PIN" }), this.pin),
      this.hint,
      element("div", { className: "keypad" }, ...keys),
      element("div", { className: "buttons" }, cancel, send),
      this.left];
  }

  #key(key) {
    // Out of the order of Tab: whoever has a keyboard types.
    const button = element("button", { type: "button", tabIndex: -1, textContent: key });
    if (key === "⌫") button.setAttribute("aria-label", "Delete");
    button.addEventListener("click", () => {
      const value = this.pin.value;
      this.pin.value = key === "⌫" ? value.slice(0, -1) : (value + key).slice(0, 4);
      this.pin.focus();
    });
    return button;
  }

  #enter() {
    if (this.pin.value.length === 4) {
      this.#answer("pin", { pin: this.pin.value });
      return;
    }
    this.pin.setAttribute("aria-invalid", "true");
    this.hint.textContent = "A PIN has four digits.";
    this.pin.focus();
  }

  async #answer(how, body) {
    if (this.busy) return;
    this.busy = true;
    try {
      await call("POST", `/sandbox/prompts/${encodeURIComponent(this.payment.reference)}/${how}`, body);
    } catch (error) {
      this.hint.textContent = error.message;
      this.busy = false;
    }
  }

  /** Lead whoever is at the page here. */
  focus() {
    this.before = document.activeElement;
    this.pin.focus();
  }

  more(count) {
    this.queue.hidden = count < 1;
    this.queue.textContent = count === 1 ? "One more prompt waits." : `${count} more prompts wait.`;
  }

  tick() {
    const { sent_at: sent, expires_at: ends } = this.payment;
    if (ends === null) {
      this.gauge.style.width = "100%";
      return;
    }
    const left = Math.max(0, ends - this.page.now());
    this.left.textContent = `${Math.ceil(left)} s left`;
    this.gauge.style.width = `${(100 * left) / (ends - sent)}%`;
    this.node.classList.toggle("late", left <= 10);
  }
}
