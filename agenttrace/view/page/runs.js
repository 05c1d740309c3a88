// The list of runs.

import { Rows } from "/rows.js";
import { count, duration, instant, make, renew, roughly, sign, words } from "/told.js";

/** What a run is to be called: running while a step of it is open. */
export function state(run) {
  if (run.open && run.open.steps) return "running";
  return run.outcome ?? "unknown";
}

/** Whether a step of it was judged to be stuck, whatever the run itself came to. */
export const hung = (run) => run.stuck_count > 0 || Boolean(run.open?.judged);

/** What is to be said of a run beside what it came to. */
export function alarm(run) {
  const past = run.stuck_count && run.outcome !== "stuck" ? run.stuck_count : 0;
  const was = past ? `${count(past, "step")} ${past === 1 ? "was" : "were"} stuck` : "";
  if (!run.open) return was;
  if (run.open.frozen) return "its process is frozen";
  if (run.open.judged) return `${count(run.open.judged, "step")} stuck`;
  const { urgent } = run.open;
  return urgent && urgent.pressure >= 1 && !urgent.waiting ? "past its limit" : was;
}

export const matches = (run, query) =>
  !query ||
  [run.name, run.service, run.trace_id].some((text) => text?.toLowerCase().includes(query));

export class RunList extends Rows {
  constructor(element, chosen) {
    super(element, { height: 52, role: "option", key: (run) => run.trace_id, chosen });
    this.fill = this.fillRow;
    this.opened = null;
    this.now = () => 0;
  }

  fillRow(row, run, index) {
    const is = state(run);
    const name = run.name ?? "(root not here yet)";
    const took =
      is === "running" ? roughly((this.now() - run.start) / 1000) : duration(run.duration ?? 0);
    const told = [run.service, instant(run.start), count(run.span_count, "step")];
    if (run.error_count) told.push(count(run.error_count, "error"));
    const warning = alarm(run);
    if (run.trace_id === this.opened) row.classList.add("opened");
    row.setAttribute("aria-posinset", index + 1);
    row.setAttribute("aria-setsize", this.items.length);
    row.setAttribute(
      "aria-label",
      [name, words(is), took, warning, ...told].filter(Boolean).join(", "),
    );
    renew(
      row,
      sign(is),
      make("span", { class: "name" }, name),
      make("span", { class: "took" }, took),
      make(
        "span",
        { class: "more" },
        is === "ok" || is === "running" || is === "unknown"
          ? null
          : make("b", { class: is }, `${words(is)} `),
        warning ? make("b", { class: "stuck" }, `${warning} `) : null,
        told.filter(Boolean).join(" · "),
      ),
    );
  }
}
