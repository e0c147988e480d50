// A checkout: it shows what the shop says of the payment, and says nothing itself but what it does
// not know. What may still be paid is never offered again.

const find = (id) => document.getElementById(id);
const order = find("order"), payment = find("payment");
const STEPS = { prompt: 1, processing: 2, completed: 3 };
const TOKEN = "paynexus-token", ORDER = "paynexus-order", ID = "paynexus-id", AGAIN = "paynexus-again";
const REFUSED = [401, 403, 404, 410]; // the same question would get the same answer
const PAUSE_SECONDS = 3, PAUSE_SECONDS_MAX = 60;
const UNKNOWN = {
  state: "unknown",
  title: "We cannot tell whether you were asked to pay",
  text: "The connection to the shop broke. Please look at your phone: if M-PESA asks for your PIN " +
    "there, you may enter it. Please do not pay again before you have looked.",
};
const UNFOLLOWED = {
  state: "pending",
  title: "We do not know how it ended",
  text: "This page can no longer follow your payment. If you entered your PIN, look for M-PESA's " +
    "message before you pay again.",
};

const OUT_OF_REACH = {
  state: "pending",
  title: "We do not know yet",
  text: "The shop does not answer at the moment; this page goes on asking. Please do not pay again: " +
    "look for M-PESA's message on your phone.",
};

// No shop can tell whether whoever asks for the same payment once more is who pays it. But another
// tab of the same browser can be asked, and hands its token over.
const tabs = new BroadcastChannel("paynexus");

let following = null; // aborted, where nothing is followed any more
let asked = null; // the order that other tabs were asked about
let shown = {};

const kes = (amount) => `KES ${Number(amount).toLocaleString("en-KE")}`;

order.addEventListener("input", label);
order.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = order.querySelector("button");
  button.disabled = true;
  find("problem").textContent = "";
  try {
    await pay({
      id: sessionStorage.getItem(ID),
      phone: order.phone.value,
      amount: order.amount.valueAsNumber,
      again: sessionStorage.getItem(AGAIN) !== null,
    });
  } finally {
    button.disabled = false;
  }
});

function label() {
  order.querySelector("button").textContent = order.amount.value ? `Pay ${kes(order.amount.value)}` : "Pay";
}

async function post(body) {
  const answer = await fetch("pay", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return [answer, await answer.json()];
}

async function pay(body) {
  let answer, told;
  try {
    [answer, told] = await post(body);
    if (told.again === false) {
      // The shop knows the order, and its last attempt is under way: this page may have asked for
      // it, and been reloaded. Only a shop that says so may be asked twice.
      const [same, it] = await post({ ...body, again: false });
      if (same.status === 202) told = it;
    }
  } catch {
    return show(UNKNOWN); // the order may have arrived
  }
  if (answer.status === 202) {
    sessionStorage.removeItem(AGAIN);
    if (told.token) keep(told.token, nameOf(body));
    show(told);
    if (told.token && told.state !== "unknown") follow();
  } else if (answer.status < 500 || told.code) {
    if (told.again) sessionStorage.setItem(AGAIN, ""); // it has had an attempt: ask for another
    find("problem").textContent = typeof told.detail === "string" ? told.detail : "Please check what you entered.";
    if (told.code === "duplicate-payment") tabs.postMessage({ asked: (asked = nameOf(body)) });
  } else {
    show(UNKNOWN);
  }
}

function nameOf({ phone, amount }) {
  return `${phone.replace(/\D/g, "").slice(-9)} ${amount}`;
}

function keep(token, order) {
  sessionStorage.setItem(TOKEN, token);
  sessionStorage.setItem(ORDER, order);
}

tabs.addEventListener("message", ({ data }) => {
  if (data.asked) {
    if (data.asked === sessionStorage.getItem(ORDER)) {
      tabs.postMessage({ order: data.asked, token: sessionStorage.getItem(TOKEN) });
    }
  } else if (data.order === asked) {
    asked = null;
    keep(data.token, data.order);
    follow();
  }
});

// An EventSource would do, but that it gives up for ever where the shop answers 503 for a moment, and
// does not say what the answer was.
async function follow() {
  following?.abort();
  following = new AbortController();
  const { signal } = following, stream = { lastId: "", failures: 0 };
  find("look").hidden = true;
  while (!signal.aborted) {
    const headers = { Accept: "text/event-stream", ...(stream.lastId && { "Last-Event-ID": stream.lastId }) };
    const url = `paynexus/events/${sessionStorage.getItem(TOKEN)}`;
    const answer = await fetch(url, { headers, signal, cache: "no-store" }).catch(() => null);
    if (signal.aborted) return;
    if (REFUSED.includes(answer?.status)) {
      following.abort();
      return show({ ...shown, ...UNFOLLOWED });
    }
    if (answer?.ok) {
      find("link").textContent = "";
      await read(answer.body, stream, signal);
      if (signal.aborted) return;
    }
    // It broke, or the shop ended it before the payment has ended. A page that is left meets this as
    // well: it keeps its token, and the next one goes on with it.
    if (!shown.state) show(OUT_OF_REACH);
    if (shown.state !== "pending") find("link").textContent = "Reconnecting …";
    await pause(stream.failures++);
  }
}

async function read(body, stream, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let left = "", event = {}; ;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done || signal.aborted) return;
    stream.failures = 0; // a heartbeat will do
    const lines = (left + value).split("\n");
    left = lines.pop();
    for (const line of lines.map((text) => text.replace(/\r$/, ""))) {
      const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
      if (line !== "") {
        event[field] = text;
        continue;
      }
      if (event.event === "payment") tell(event, stream);
      event = {};
    }
  }
}

function tell({ id, data }, stream) {
  const view = JSON.parse(data);
  stream.lastId = id ?? stream.lastId;
  if (view.is_over) following.abort();
  show(view);
}

// Longer each time, and of each customer another one: a shop that comes back is not met by all at once.
function pause(failures) {
  const seconds = Math.min(PAUSE_SECONDS * 2 ** failures, PAUSE_SECONDS_MAX) * (1 - Math.random() / 2);
  return new Promise((over) => setTimeout(over, seconds * 1000));
}

function show(view) {
  const isNew = view.state !== shown.state;
  shown = view;
  order.hidden = true;
  payment.hidden = false;
  payment.dataset.state = view.state;
  for (const sign of payment.querySelectorAll("[data-for]")) {
    sign.toggleAttribute("hidden", !sign.dataset.for.split(" ").includes(view.state));
  }
  find("title").textContent = view.title;
  find("text").textContent = view.text;
  const step = STEPS[view.state];
  find("steps").hidden = !step;
  [...find("steps").children].forEach((item, n) => item.classList.toggle("done", n < step));
  row("amount", view.amount == null ? null : kes(view.amount));
  row("phone", view.phone);
  row("receipt", view.receipt);
  const canLook = sessionStorage.getItem(TOKEN) !== null;
  find("look").hidden = !(view.state === "unknown" && canLook && (following?.signal.aborted ?? true));
  find("again").hidden = !view.may_try_again;
  find("new").hidden = view.state !== "completed" && view.title !== UNFOLLOWED.title;
  if (view.is_over) find("link").textContent = "";
  if (isNew) find("title").focus();
}

function row(name, value) {
  const place = find(`shown-${name}`);
  place.textContent = value ?? "";
  place.parentElement.hidden = value == null;
}

// One order, however often it is clicked for and this page is reloaded: the shop asks once for it.
// Letters alone: an order's id must not look like a phone number.
function newOrder() {
  const letters = crypto.getRandomValues(new Uint8Array(10));
  const id = `order-${String.fromCharCode(...letters.map((n) => 97 + (n % 26)))}`;
  sessionStorage.setItem(ID, id);
  sessionStorage.removeItem(AGAIN);
}

function begin() {
  following?.abort();
  following = null;
  shown = {};
  sessionStorage.removeItem(TOKEN);
  sessionStorage.removeItem(ORDER);
  if (!sessionStorage.getItem(ID)) newOrder();
  payment.hidden = true;
  order.hidden = false;
  label();
  order.phone.focus();
}

find("look").addEventListener("click", follow);
find("again").addEventListener("click", () => {
  sessionStorage.setItem(AGAIN, "");
  begin();
});
find("new").addEventListener("click", () => {
  newOrder();
  begin();
});

if (sessionStorage.getItem(TOKEN)) follow(); // reloaded: the payment goes on
else begin();
