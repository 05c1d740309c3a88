// Asks the server, and says in words and symbols what it tells.

const fragment = new URLSearchParams(location.hash.slice(1));
const token = fragment.get("token") ?? "";

/** Return what the server tells about `path`; throws what went wrong. */
export async function ask(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value);
  const url = `/api/runs${path}?${new URLSearchParams(given)}`;
  const headers = { Authorization: `Bearer ${token}` };
  const answer = await fetch(url, { headers, cache: "no-store" });
  const told = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(told.error), { status: answer.status });
  return told;
}

/** Which run the address names. */
export const chosenAtFirst = fragment.get("run");

/** Have the address name a run, so that the page comes back to it. */
export function remember(run) {
  const kept = new URLSearchParams({ token });
  if (run) kept.set("run", run);
  history.replaceState(null, "", `#${kept}`);
}

/** Symbols of outcomes, the same as in the terminal: nothing is told by colour alone. */
export const SYMBOLS = {
  running: "▶",
  ok: "✓",
  error: "✗",
  timed_out: "◷",
  cancelled: "⊘",
  abandoned: "◌",
  stuck: "■",
  lost: "†",
  unknown: "·",
};

export const words = (outcome) => outcome.replace("_", " ");

const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** Say seconds to three digits or so. */
export function duration(seconds) {
  if (seconds && seconds < 0.0000995) return `${number.format(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${number.format(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  return roughly(seconds);
}

/** Say seconds that go on: without digits that only flicker. */
export function roughly(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** Say a limit. */
export function limit(seconds) {
  if (seconds >= 60 && seconds % 60 === 0) return `${seconds / 60} min`;
  return seconds < 60 ? `${number.format(seconds)} s` : roughly(seconds);
}

/** Say when something was, with its day if that is not today. */
export function instant(milliseconds) {
  const at = new Date(milliseconds);
  const time = at.toLocaleTimeString(undefined, { hour12: false });
  const today = new Date().toDateString() === at.toDateString();
  return today ? time : `${at.toLocaleDateString()} ${time}`;
}

export const count = (many, what) =>
  `${many.toLocaleString("en")} ${what}${many === 1 ? "" : "s"}`;

/** Make an element. Text is always text: nothing that is told becomes markup. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * Have `element` contain `fresh`, and touch only what differs: what has the focus or is
 * marked in it stays so.
 */
export function renew(element, ...fresh) {
  const before = [...element.childNodes];
  const wanted = fresh
    .filter((each) => each !== null && each !== undefined)
    .map((each) => (each instanceof Node ? each : document.createTextNode(each)));
  wanted.forEach((node, index) => {
    const known = before[index];
    if (!known) element.append(node);
    else if (known.nodeName !== node.nodeName) known.replaceWith(node);
    else if (known instanceof Text) {
      if (known.data !== node.data) known.data = node.data;
    } else renewElement(known, node);
  });
  before.slice(wanted.length).forEach((node) => node.remove());
}

function renewElement(known, fresh) {
  for (const { name } of [...known.attributes]) {
    if (!fresh.hasAttribute(name)) known.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    // The policy of the page allows styles by this way alone.
    if (name === "style") {
      if (known.style.cssText !== fresh.style.cssText) known.style.cssText = fresh.style.cssText;
    } else if (known.getAttribute(name) !== value) known.setAttribute(name, value);
  }
  renew(known, ...fresh.childNodes);
}

/** Make the sign of an outcome: a symbol, for those who see it. */
export const sign = (outcome) =>
  make("span", { class: `sign ${outcome}`, "aria-hidden": "true" }, SYMBOLS[outcome]);
