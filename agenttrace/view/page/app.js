// What happens when: asks now and then, and does what keys say.

import { askFor, details } from "/details.js";
import { hung, matches, RunList, state } from "/runs.js";
import { arrange, StepList, take } from "/steps.js";
import { ask, chosenAtFirst, count, duration, make, remember, renew, roughly, words } from "/told.js";

const EVERY = 1000; // milliseconds between two questions
const SHARE = 4; // how many times as long it rests as an answer has taken
const SLOWEST = 10_000;
const GROWS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 200;

const find = (id) => document.getElementById(id);
const clock = { told: Date.now(), at: performance.now() };
const now = () => clock.told + performance.now() - clock.at;

let every = []; // runs, as the server has listed them
let isMore = false; // whether it has left older ones out
let run = chosenAtFirst; // the run that is shown
let version = null; // of its spans that have ended
const known = new Map(); // its steps, by id
let step = null; // the step whose details are shown
let failures = 0;
let timer = 0;
let asking = 0; // counts questions: an answer to an older one is too late

const runs = new RunList(find("run-list"), (chosen) => open(chosen.trace_id, true));
const steps = new StepList(find("steps"), find("ticks"), (chosen, event) => {
  if (event?.target.closest(".fold")?.textContent) steps.fold(!steps.folded.has(chosen.id));
  else show(chosen, !event);
});
runs.now = steps.now = now;

function set(id, text) {
  const element = find(id);
  // Only what is new is read out.
  if (element.textContent !== text) element.textContent = text;
}

/** Open a run, and have its steps take the focus if `focus`. */
function open(trace, focus) {
  if (trace !== run) {
    run = trace;
    version = null;
    known.clear();
    steps.folded.clear();
    steps.at = -1;
    close();
    steps.show([]);
    steps.element.scrollTop = 0;
  }
  remember(run);
  runs.opened = run;
  runs.draw(true);
  if (focus) steps.element.focus();
  poll();
}

/** Show the details of a step, and have them take the focus if `focus`. */
async function show(chosen, focus) {
  step = chosen.id;
  await fillDetails(focus);
}

async function fillDetails(focus) {
  const asked = step;
  const told = await askFor(run, asked);
  if (asked !== step || !told) return;
  const path = [];
  for (let at = steps.every.find((each) => each.id === asked); at; at = at.above) path.unshift(at);
  const panel = find("details");
  const { scrollTop } = panel;
  const text = JSON.stringify(told);
  if (panel.dataset.shown !== text) {
    // What has not changed is left alone: somebody may be copying from it.
    const isSame = panel.dataset.step === asked;
    if (!isSame) panel.replaceChildren();
    renew(panel, ...details(told, path, "agenttrace"));
    panel.dataset.shown = text;
    panel.scrollTop = isSame ? scrollTop : 0;
    panel.dataset.step = asked;
  }
  panel.hidden = false;
  document.body.classList.add("with-details");
  if (focus) panel.focus();
}

function close() {
  step = null;
  const panel = find("details");
  panel.hidden = true;
  panel.replaceChildren();
  delete panel.dataset.shown;
  document.body.classList.remove("with-details");
}

function list() {
  const query = find("query").value.trim().toLowerCase();
  const found = every.filter((each) => matches(each, query));
  runs.opened = run;
  runs.set(found);
  find("no-runs").hidden = found.length > 0;
  set("no-runs", every.length || isFiltered() ? "No run is like that." : NOTHING);
  const running = every.filter((each) => state(each) === "running").length;
  const stuck = every.filter((each) => state(each) === "stuck" || hung(each)).length;
  const told = [count(found.length, "run")];
  if (running) told.push(`${running} running`);
  if (stuck) told.push(`${stuck} stuck`);
  if (isMore) told.push("older ones left out");
  set("status", told.join(", "));
}

const NOTHING =
  "No runs yet. Call agenttrace.configure() in your application, or run " +
  "“agenttrace demo”: they appear here as they begin.";
const isFiltered = () => Boolean(find("outcome").value || find("service").value);

function notices(told) {
  const said = [
    ...told.dead.map(
      (each) =>
        `Process ${each.pid}${each.service ? ` (${each.service})` : ""} died with ` +
        `${count(each.open, "open step")} that nobody has recovered yet: “agenttrace recover”.`,
    ),
    ...told.frozen.map(
      (each) =>
        `Process ${each.pid}${each.service ? ` (${each.service})` : ""} is frozen: no sign of ` +
        "life while a step is open. It is stopped, or C code keeps the interpreter.",
    ),
    ...told.unreadable.map((each) => `Process ${each.pid ?? "?"}: ${each.reason}.`),
  ];
  notice(said);
}

function notice(said) {
  const element = find("notices");
  const text = said.join("\n");
  if (element.dataset.said === text) return;
  element.dataset.said = text;
  element.replaceChildren(...said.map((each) => make("p", {}, each)));
}

function services(names) {
  const select = find("service");
  const chosen = select.value;
  const all = [...new Set([...names, ...(chosen ? [chosen] : [])])].sort();
  const now = [...select.options].slice(1).map((each) => each.value);
  if (all.join("\n") === now.join("\n")) return;
  select.replaceChildren(
    make("option", { value: "" }, "any"),
    ...all.map((name) => make("option", { value: name }, name)),
  );
  select.value = chosen;
}

async function askForRuns(mine) {
  const [outcome, service] = [find("outcome").value, find("service").value];
  const told = await ask("", { outcome, service });
  if (mine !== asking) return;
  Object.assign(clock, { told: told.now, at: performance.now() });
  every = told.runs;
  isMore = told.more;
  if (!service) services(told.services);
  notices(told);
  list();
}

async function askForRun(mine) {
  if (!run) return;
  let told;
  try {
    told = await ask(`/${run}`, { have: version });
  } catch (error) {
    if (error.status !== 404) throw error;
    set("run-title", "This run is not here any more");
    set("run-facts", "Newer ones took its place, or nothing of it has arrived.");
    return;
  }
  if (mine !== asking) return;
  version = told.version;
  const is = state(told.run);
  set("run-title", told.run.name ?? "(root not here yet)");
  const facts = [words(is), told.run.service, count(told.run.span_count, "step")];
  const took = is === "running" ? roughly((told.now - told.run.start) / 1000) : null;
  facts.splice(1, 0, took ?? duration(told.run.duration ?? 0));
  facts.push(`trace ${run.slice(0, 8)}`);
  set("run-facts", facts.filter(Boolean).join(" · "));
  find("run-facts").title = run;
  find("no-run").hidden = true;
  if (told.whole) known.clear();
  const lines = told.open.map((line) => ({ ...line, told: told.now }));
  const isNew = take(known, told.spans, lines) || told.whole;
  if (!isNew && !lines.length) return;
  if (isNew) steps.show(arrange(known));
  else steps.draw(true);
  if (steps.at < 0 && steps.items.length) {
    steps.at = 0;
    steps.draw(true);
  }
  if (step) await fillDetails(false);
}

async function poll() {
  clearTimeout(timer);
  const mine = (asking += 1);
  const begun = performance.now();
  try {
    await askForRuns(mine);
    await askForRun(mine);
    failures = 0;
  } catch (error) {
    failures += 1;
    const gone = "“agenttrace view” does not answer. Has it ended?";
    notice([error.status ? error.message : gone]);
  }
  if (mine !== asking) return;
  const taken = performance.now() - begun;
  const rest = Math.max(EVERY, SHARE * taken) * 2 ** Math.min(failures, 3);
  // One that nobody sees asks when it is seen again.
  if (!document.hidden) timer = setTimeout(poll, Math.min(rest, SLOWEST));
}

const panes = [find("run-list"), find("steps"), find("details")];

function back() {
  if (panes[2].contains(document.activeElement) || step) {
    close();
    steps.element.focus();
  } else runs.element.focus();
}

const KEYS = {
  j: (rows) => rows.by(1),
  ArrowDown: (rows) => rows.by(1),
  k: (rows) => rows.by(-1),
  ArrowUp: (rows) => rows.by(-1),
  PageDown: (rows) => rows.by(rows.page),
  PageUp: (rows) => rows.by(-rows.page),
  Home: (rows) => rows.move(0),
  End: (rows) => rows.move(rows.items.length - 1),
  h: () => steps.fold(true),
  ArrowLeft: () => steps.fold(true),
  l: () => steps.fold(false),
  ArrowRight: () => steps.fold(false),
  n: () => steps.nextBad(),
  Enter: (rows) => rows.current && rows.chosen(rows.current),
  Escape: () => back(),
  "/": () => find("query").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target, key } = event;
  if (target.closest("form")) {
    if (key === "Escape" || (key === "Enter" && target.id === "query")) {
      event.preventDefault();
      runs.element.focus();
    }
    return;
  }
  const isInDetails = panes[2].contains(target);
  if (isInDetails && key !== "Escape" && key !== "/") return;
  const act = KEYS[key];
  if (!act) return;
  event.preventDefault();
  const rows = target === steps.element ? steps : runs;
  if (target === document.body) rows.element.focus();
  act(rows);
});

find("filters").addEventListener("submit", (event) => event.preventDefault());
find("query").addEventListener("input", list);
for (const id of ["outcome", "service"]) find(id).addEventListener("change", poll);
document.addEventListener("visibilitychange", () => document.hidden || poll());

// What is open grows between two answers.
setInterval(() => {
  if (document.hidden || failures) return;
  if (every.some((each) => state(each) === "running")) runs.draw(true);
  if (steps.isOpen) {
    steps.draw(true);
    steps.drawAxis();
  }
}, GROWS);

remember(run);
runs.element.focus();
poll();
