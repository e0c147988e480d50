// A checkout: it shows what the shop says of the payment, and says nothing itself but what it does
// not know. What may still be paid is never offered again.

const find = (id) => document.getElementById(id);
const order = find("order"), payment = find("payment");
const STEPS = { prompt: 1, processing: 2, completed: 3 };
const TOKEN = "paynexus-token";
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

let source = null;
let shown = {};

const kes = (amount) => `KES ${Number(amount).toLocaleString("en-KE")}`;

order.addEventListener("input", label);
order.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = order.querySelector("button");
  button.disabled = true;
  find("problem").textContent = "";
  try {
    await pay({ phone: order.phone.value, amount: order.amount.valueAsNumber });
  } finally {
    button.disabled = false;
  }
});

function label() {
  order.querySelector("button").textContent = order.amount.value ? `Pay ${kes(order.amount.value)}` : "Pay";
}

async function pay(body) {
  let answer, told;
  try {
    answer = await fetch("pay", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    told = await answer.json();
  } catch {
    return show(UNKNOWN); // the order may have arrived
  }
  if (answer.status === 202) {
    if (told.token) sessionStorage.setItem(TOKEN, told.token);
    show(told);
    if (told.token && told.state !== "unknown") follow();
  } else if (answer.status < 500 || told.code) {
    find("problem").textContent = typeof told.detail === "string" ? told.detail : "Please check what you entered.";
  } else {
    show(UNKNOWN);
  }
}

function follow() {
  source?.close();
  find("look").hidden = true;
  source = new EventSource(`paynexus/events/${sessionStorage.getItem(TOKEN)}`);
  source.addEventListener("open", () => { find("link").textContent = ""; });
  source.addEventListener("payment", ({ data }) => {
    const view = JSON.parse(data);
    if (view.is_over) source.close();
    show(view);
  });
  source.addEventListener("error", () => {
    // A page that is left meets this as well: it keeps its token, and the next one goes on with it.
    if (source.readyState === EventSource.CLOSED) show({ ...shown, ...UNFOLLOWED });
    else if (shown.state !== "pending") find("link").textContent = "Reconnecting …";
  });
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
  find("look").hidden = !(view.state === "unknown" && canLook && (!source || source.readyState === EventSource.CLOSED));
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

function begin() {
  source?.close();
  source = null;
  shown = {};
  sessionStorage.removeItem(TOKEN);
  payment.hidden = true;
  order.hidden = false;
  label();
  order.phone.focus();
}

find("look").addEventListener("click", follow);
find("again").addEventListener("click", begin);
find("new").addEventListener("click", begin);

if (sessionStorage.getItem(TOKEN)) follow(); // reloaded: the payment goes on
else begin();
