// The steps of one run on a time line.

import { Rows } from "/rows.js";
import { duration, limit, make, renew, roughly, sign, words } from "/told.js";

const DEEPEST = 24; // levels that are indented

export const isFine = (step) =>
  step.is === "ok" || step.is === "unknown" || (step.is === "running" && !isAlarming(step));

export const isAlarming = (step) => {
  const { open } = step;
  if (!open) return false;
  return open.judged || open.frozen || (!open.waiting && open.pressure >= 1);
};

/**
 * Take what is new into `steps`, by their ids: of those that have ended what is told,
 * of those that are open all. Returns whether they have to be arranged anew.
 */
export function take(steps, ended, open) {
  let isNew = ended.length > 0;
  for (const line of ended) {
    const known = steps.get(line.id) ?? { open: null };
    steps.set(line.id, Object.assign(known, line, { is: line.outcome ?? "unknown", over: true }));
  }
  const still = new Set(open.map((line) => line.id));
  for (const step of steps.values()) {
    if (!step.open || still.has(step.id)) continue;
    isNew = true;
    step.open = null;
    if (!step.over) steps.delete(step.id);
  }
  for (const line of open) {
    let step = steps.get(line.id);
    if (!step) steps.set(line.id, (step = { ...line, over: false }));
    const is = line.judged ? (line.verdict ?? "stuck") : "running";
    step.open = line;
    if (step.over || step.is === is) continue;
    step.is = is;
    isNew = true;
  }
  return isNew;
}

/** Return `steps` in their order as trees, each behind its parent. */
export function arrange(steps) {
  for (const step of steps.values()) step.children = [];
  const tops = [];
  for (const step of steps.values()) {
    const parent = steps.get(step.parent);
    if (parent && parent !== step) parent.children.push(step);
    else tops.push(step);
  }
  const inOrder = [];
  const waiting = tops.sort(later).map((step) => [step, 0]);
  const seen = new Set();
  const take = () => {
    while (waiting.length) {
      const [step, depth] = waiting.pop();
      if (seen.has(step)) continue;
      seen.add(step);
      step.depth = depth;
      inOrder.push(step);
      step.children.sort(later);
      step.children.forEach((child, at) => {
        child.above = step;
        child.place = step.children.length - at;
        waiting.push([child, depth + 1]);
      });
    }
  };
  take();
  // Parents in a circle: only damage makes one, and nothing is to be missing then.
  for (const step of steps.values()) {
    if (!seen.has(step)) {
      waiting.push([step, 0]);
      take();
    }
  }
  inOrder.filter((step) => !step.depth).forEach((step, at, all) => {
    Object.assign(step, { above: null, place: at + 1, beside: all.length });
  });
  return inOrder;
}

const later = (one, other) => other.start - one.start || (one.id < other.id ? 1 : -1);

export class StepList extends Rows {
  constructor(element, axis, chosen) {
    super(element, { height: 28, role: "treeitem", key: (step) => step.id, chosen });
    this.fill = this.fillRow;
    this.axis = axis;
    this.folded = new Set();
    this.every = [];
    this.from = this.ended = 0;
    this.now = () => 0;
    this.isNarrow = true;
    new ResizeObserver(() => {
      this.isNarrow = axis.clientWidth < 300;
      this.drawAxis();
    }).observe(axis);
  }

  /** Show the steps of a run, those beneath a folded one left out. */
  show(every) {
    this.every = every;
    this.from = every.reduce((least, step) => Math.min(least, step.start), Infinity);
    this.ended = every.reduce(
      (most, step) => Math.max(most, step.start + (step.duration ?? 0) * 1000),
      this.from,
    );
    this.isOpen = every.some((step) => step.is === "running");
    this.unfolded();
  }

  unfolded() {
    let hidden = Infinity;
    this.set(
      this.every.filter((step) => {
        if (step.depth > hidden) return false;
        hidden = this.folded.has(step.id) ? step.depth : Infinity;
        return true;
      }),
    );
    this.drawAxis();
  }

  get to() {
    return Math.max(this.isOpen ? this.now() : 0, this.ended, this.from + 0.001);
  }

  fold(is) {
    const step = this.current;
    if (!step) return;
    if (is && (this.folded.has(step.id) || !step.children.length)) {
      if (step.above) this.move(this.items.indexOf(step.above));
      return;
    }
    if (is) this.folded.add(step.id);
    else this.folded.delete(step.id);
    this.unfolded();
  }

  /** Point at the next step that is not ok, unfolding what it is part of. */
  nextBad() {
    const from = this.current ? this.every.indexOf(this.current) : -1;
    const all = [...this.every.slice(from + 1), ...this.every.slice(0, from + 1)];
    const found = all.find((step) => !isFine(step));
    if (!found) return;
    for (let above = found.above; above; above = above.above) this.folded.delete(above.id);
    this.unfolded();
    this.move(this.items.indexOf(found));
  }

  drawAxis() {
    const whole = (this.to - this.from) / 1000;
    const say = this.isOpen && whole >= 4 ? roughly : duration;
    this.axis.parentElement.hidden = !this.every.length;
    renew(
      this.axis,
      ...(this.isNarrow ? [0, 1] : [0, 0.25, 0.5, 0.75, 1]).map((part) => {
        const tick = make("span", {}, part ? say(whole * part) : "0");
        tick.style.left = `${part * 100}%`;
        return tick;
      }),
    );
  }

  fillRow(row, step) {
    const { open } = step;
    const isRunning = step.is === "running";
    const seconds = isRunning ? (this.now() - step.start) / 1000 : step.duration;
    const whole = this.to - this.from;
    const took = isRunning ? roughly(seconds) : duration(seconds ?? 0);
    const silent = open && !open.judged ? silence(open, this.now()) : null;
    if (isAlarming(step)) row.classList.add("alarming");
    row.setAttribute("aria-level", step.depth + 1);
    row.setAttribute("aria-posinset", step.place);
    row.setAttribute("aria-setsize", step.above ? step.above.children.length : step.beside);
    const folded = this.folded.has(step.id);
    if (step.children.length) row.setAttribute("aria-expanded", !folded);
    else row.removeAttribute("aria-expanded");
    row.setAttribute(
      "aria-label",
      [step.name, words(step.is), took, silent?.words, note(step)].filter(Boolean).join(", "),
    );
    const name = make("span", { class: "name", title: step.name }, step.name);
    const fold = make("span", { class: "fold" }, step.children.length ? (folded ? "▸" : "▾") : "");
    const title = make("span", { class: "title" }, fold, sign(step.is), name);
    title.style.paddingLeft = `${Math.min(step.depth, DEEPEST) * 14}px`;
    const bar = make("span", { class: `bar ${step.is}` });
    const left = ((step.start - this.from) / whole) * 100;
    bar.style.left = `${left}%`;
    bar.style.width = `${Math.max(0, Math.min(100 - left, ((seconds ?? 0) * 1e5) / whole))}%`;
    renew(
      row,
      title,
      make("span", { class: "lane" }, bar),
      make("span", { class: "took" }, took),
      silent ? meter(silent) : make("span", { class: "note", title: note(step) }, note(step)),
    );
  }
}

/** What is to be said of a step beside how long it took. */
function note(step) {
  if (step.open?.judged) return `${words(step.is)}, and has not come back`;
  if (step.is !== "ok" && step.is !== "unknown") {
    const is = words(step.is);
    if (!step.error) return is;
    return step.error.startsWith(`${is}:`) ? step.error : `${is}: ${step.error}`;
  }
  const [read, written] = step.tokens ?? [];
  return [read, written].some((many) => many !== null && many !== undefined)
    ? `${read ?? "?"} in / ${written ?? "?"} out tokens`
    : "";
}

/** How long an open step has been silent, and how much of its limit that is. */
function silence(open, now) {
  const idle = Math.max(0, open.idle + (now - open.told) / 1000);
  if (open.waiting) return { part: 0, words: "waiting for a step beneath it" };
  const told = `idle ${roughly(idle)}`;
  if (open.limit === null) return { part: 0, words: told };
  return { part: idle / open.limit, words: `${told} of ${limit(open.limit)}` };
}

function meter({ part, words: told }) {
  const used = make("span", { class: part >= 1 ? "used over" : "used" });
  used.style.width = `${Math.min(1, part) * 100}%`;
  return make(
    "span",
    { class: "note" },
    part ? make("span", { class: "meter", "aria-hidden": "true" }, used) : null,
    told,
  );
}
