// A list of any length: only the rows that can be seen are there.

const AROUND = 8; // rows above and below what can be seen
let lists = 0;

/**
 * Shows `items` in `element`, which scrolls and has the focus for all of its rows.
 *
 * `fill(row, item, index)` fills an empty row; `key(item)` names an item, so that the
 * row that was chosen stays it when the list has changed; `chosen` is called with the
 * item that Enter or a click choose.
 */
export class Rows {
  constructor(element, { height, role, fill, key, chosen }) {
    Object.assign(this, { element, height, role, fill, key, chosen });
    this.items = [];
    this.at = -1;
    this.prefix = `list-${(lists += 1)}-`;
    this.shown = new Map();
    this.space = document.createElement("div");
    this.space.className = "space";
    this.space.setAttribute("role", "presentation");
    element.append(this.space);
    element.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(element);
    element.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (!row) return;
      this.move(Number(row.dataset.index));
      if (this.items[this.at]) this.chosen(this.items[this.at], event);
    });
  }

  get current() {
    return this.items[this.at];
  }

  /** Show other items; what was pointed at stays so. */
  set(items) {
    const before = this.current && this.key(this.current);
    const place = before === undefined ? -1 : items.findIndex((each) => this.key(each) === before);
    const moved = place < 0 ? 0 : (place - this.at) * this.height;
    this.items = items;
    this.at = place >= 0 ? place : Math.min(this.at, items.length - 1);
    this.space.style.height = `${items.length * this.height}px`;
    // New runs come in above: what is being read does not move away.
    if (moved && this.element.scrollTop > 0) this.element.scrollTop += moved;
    this.draw(true);
  }

  /** Point at another row. */
  move(index) {
    if (!this.items.length) return;
    this.at = Math.max(0, Math.min(this.items.length - 1, index));
    const top = this.at * this.height;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) {
      this.element.scrollTop = top + this.height - clientHeight;
    }
    this.draw(true);
  }

  by(rows) {
    this.move(this.at < 0 ? 0 : this.at + rows);
  }

  get page() {
    return Math.max(1, Math.floor(this.element.clientHeight / this.height) - 1);
  }

  /** Draw the rows that can be seen; those that were there only where `anew`. */
  draw(anew = false) {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - AROUND);
    const last = Math.min(
      this.items.length,
      Math.ceil((scrollTop + clientHeight) / this.height) + AROUND,
    );
    for (const [index, row] of this.shown) {
      if (index < first || index >= last) {
        row.remove();
        this.shown.delete(index);
      }
    }
    for (let index = first; index < last; index += 1) {
      let row = this.shown.get(index);
      if (row && !anew) continue;
      if (!row) {
        row = document.createElement("div");
        row.id = this.prefix + index;
        row.dataset.index = index;
        row.setAttribute("role", this.role);
        row.style.transform = `translateY(${index * this.height}px)`;
        row.style.height = `${this.height}px`;
        this.shown.set(index, row);
        // In the order of the list: that is the order in which they are read out.
        const after = this.shown.get(index + 1);
        this.space.insertBefore(row, after ?? null);
      }
      row.className = index === this.at ? "row current" : "row";
      row.setAttribute("aria-selected", index === this.at);
      this.fill(row, this.items[index], index);
    }
    if (this.at >= first && this.at < last) {
      this.element.setAttribute("aria-activedescendant", this.prefix + this.at);
    } else this.element.removeAttribute("aria-activedescendant");
  }
}
