// All that is known of one step.

import { ask, duration, instant, limit, make, roughly, sign, words } from "/told.js";

const HANG = "agenttrace.hang";
const LONG = 120;

/** Return what is shown of a step: `told` by the server, on the `path` down to it. */
export function details(told, path, commands) {
  const { ended, open } = told;
  const either = ended ?? open;
  const is = ended ? (ended.outcome ?? "unknown") : open.judged ? "stuck" : "running";
  return [
    make("h2", { id: "step-title" }, sign(is), ` ${either.name}`),
    make("p", { class: "path" }, path.map((step) => step.name).join(" / ")),
    ended?.error ? make("p", { class: `error ${is}` }, ended.error) : null,
    ...(ended?.events ?? []).filter((event) => event.name === HANG).map(hang),
    open ? asked(either, commands) : null,
    facts(ended, open, is),
    ...(ended?.events ?? []).filter((event) => event.name !== HANG).map(happened(ended)),
    table("Attributes", ended?.attributes ?? {}),
    ended?.links?.length ? links(ended.links) : null,
    table("Resource", ended?.resource ?? {}),
  ].filter(Boolean);
}

/** Ask for a step, and return what is to be shown; null where it is gone. */
export async function askFor(run, step) {
  try {
    return await ask(`/${run}/${step}`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function facts(ended, open, is) {
  const said = [["outcome", words(is)]];
  if (ended) {
    said.push(["ended by", ended.ended_by], ["took", duration(ended.duration)]);
    said.push(["started", instant(ended.start_ns / 1e6)], ["service", ended.service]);
    said.push(["span", ended.span_id]);
  }
  if (open) {
    if (open.judged) said.push(["its owner", "has not come back"]);
    said.push(["open for", roughly(open.open)]);
    said.push(["no progress for", open.waiting ? null : roughly(open.idle)]);
    said.push(["limit", open.heartbeat_timeout === null ? null : limit(open.heartbeat_timeout)]);
    said.push(["in all", open.max_duration === null ? null : limit(open.max_duration)]);
    said.push(["waits", open.waiting ? "for a step beneath it" : null]);
    said.push(["process", `${open.pid}${open.frozen ? ", which is frozen" : ""}`]);
    if (!ended) said.push(["service", open.service], ["span", open.span_id]);
    for (const key of ["agent", "tool", "model", "provider", "conversation"]) {
      if (!ended) said.push([key, open[key]]);
    }
  }
  return list(said.filter(([, value]) => value !== null && value !== undefined));
}

function list(said) {
  const rows = said.map(([key, value]) =>
    make("div", {}, make("dt", {}, key), make("dd", {}, `${value}`)),
  );
  return make("dl", {}, ...rows);
}

function asked(step, commands) {
  return make(
    "p",
    { class: "asked" },
    "Where it is now: ",
    make("code", {}, `${commands} where ${step.span_id}`),
  );
}

/** The report of a hang: what it waits for comes first, then its stack. */
function hang({ attributes }) {
  const rest = { ...attributes };
  const take = (key) => {
    const value = rest[key];
    delete rest[key];
    return value;
  };
  // How long it was silent stands above.
  ["rule", "idle", "limit"].forEach((key) => take(`${HANG}.${key}`));
  const place = take("code.function.name");
  const line = [take("code.file.path"), take("code.line.number")].join(":");
  const said = [
    ["cause", [take(`${HANG}.cause`), take(`${HANG}.explanation`)].filter(Boolean).join(": ")],
    ["in", place ? `${place} (${line})` : null],
    ["waits for", take(`${HANG}.waits_for`)],
  ];
  const more = Object.entries(rest);
  said.push(...more.filter(([, value]) => !isLong(value)).map(([key, value]) => [bare(key), value]));
  return make(
    "section",
    { class: "hang", "aria-label": "Where it hangs" },
    make("h3", {}, "Where it hangs"),
    list(said.filter(([, value]) => value).map(([key, value]) => [key, shown(value)])),
    ...more
      .filter(([, value]) => isLong(value))
      .flatMap(([key, value]) => [
        make("h4", {}, bare(key)),
        make("pre", { tabindex: "0" }, shown(value)),
      ]),
  );
}

const happened = (span) => (event) =>
  make(
    "section",
    {},
    make("h3", {}, event.name, make("small", {}, ` at +${duration(after(span, event))}`)),
    table(null, event.attributes),
  );

const after = (span, event) => Math.max(0, event.time_ns - span.start_ns) / 1e9;

function links(every) {
  const rows = every.map((link) => [link.trace_id, link.span_id]);
  return make("section", {}, make("h3", {}, "Links"), list(rows));
}

function table(title, attributes) {
  const rows = Object.entries(attributes);
  if (!rows.length) return null;
  const filled = rows.map(([key, value]) =>
    make(
      "div",
      { class: isLong(value) ? "long" : null },
      make("dt", {}, key),
      make("dd", {}, isLong(value) ? make("pre", { tabindex: "0" }, shown(value)) : shown(value)),
    ),
  );
  return make(
    "section",
    {},
    title ? make("h3", {}, title) : null,
    make("dl", { class: "attributes" }, ...filled),
  );
}

const bare = (key) => key.replace(/^(agenttrace\.hang|agenttrace|code)\./, "").replaceAll("_", " ");
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));
const isLong = (value) => shown(value).includes("\n") || shown(value).length > LONG;
