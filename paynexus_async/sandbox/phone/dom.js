// Building elements and words. Whatever comes from outside becomes text, never markup.

export function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const cents = new Intl.NumberFormat("en-KE", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat("en-KE", { maximumFractionDigits: 0 });
const day = new Intl.DateTimeFormat("en-GB", {
  timeZone: "Africa/Nairobi", day: "numeric", month: "numeric", year: "2-digit",
});
const minute = new Intl.DateTimeFormat("en-US", {
  timeZone: "Africa/Nairobi", hour: "numeric", minute: "2-digit",
});
const second = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit",
});

export const withCents = (amount) => `Ksh${cents.format(amount)}`;
export const shillings = (amount) => `KSh ${whole.format(amount)}`;
export const dayAndMinute = (seconds) =>
  `${day.format(seconds * 1000)} at ${minute.format(seconds * 1000)}`;
export const minuteOf = (seconds) => minute.format(seconds * 1000);
export const clock = (seconds) => second.format(seconds * 1000);
export const local = (phone) => phone.replace(/^254(\d{3})(\d{3})(\d{3})$/, "0$1 $2 $3");

export const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Call the sandbox; return its JSON, or throw its own words. */
export async function call(method, path, body, headers = {}) {
  const options = { method, headers };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The sandbox did not answer. Is it running?");
  }
  const document = await response.json().catch(() => ({}));
  if (!response.ok || document.success === false) {
    const errors = Object.values(document.errors ?? {}).flat().join(" ");
    const error = new Error(errors || document.message || `It answered ${response.status}.`);
    error.status = response.status;
    throw error;
  }
  return document;
}
