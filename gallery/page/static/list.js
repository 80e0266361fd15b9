// The list of samples: however many there are, only the rows in sight are in the page.

import { element } from "./pane.js";

const ROW = 28, SPARE = 8;  // px; rows beyond what is in sight

export class SampleList {
  constructor(host, space, choose) {
    Object.assign(this, { host, space, choose, items: [], at: 0, drawn: "" });
    host.addEventListener("scroll", () => this.draw(), { passive: true });
    host.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) choose(Number(row.dataset.place));
    });
    new ResizeObserver(() => this.draw()).observe(host);
  }

  // items: [{title, detail, missed, false}] by place; made when they are drawn.
  fill(count, describe) {
    Object.assign(this, { count, describe, drawn: "" });
    this.space.style.height = `${count * ROW}px`;
    this.draw();
  }

  select(at) {
    this.at = at;
    const top = at * ROW, { scrollTop, clientHeight } = this.host;
    if (top < scrollTop + ROW || top > scrollTop + clientHeight - 2 * ROW) this.host.scrollTop = top - clientHeight / 2;
    this.drawn = "";
    this.draw();
  }

  draw() {
    if (!this.describe) return;
    const first = Math.max(0, Math.floor(this.host.scrollTop / ROW) - SPARE);
    const end = Math.min(this.count, first + Math.ceil(this.host.clientHeight / ROW) + 2 * SPARE);
    if (this.drawn === `${first}-${end}`) return;
    this.drawn = `${first}-${end}`;
    const rows = [];
    for (let place = first; place < end; place++) {
      const { title, detail, bars, label } = this.describe(place);
      const row = element("div", { className: "row", id: `row-${place}`, role: "option" },
        element("span", { className: "title" }, title), element("span", { className: "detail" }, detail));
      row.setAttribute("aria-selected", place === this.at);
      row.setAttribute("aria-posinset", place + 1);
      row.setAttribute("aria-setsize", this.count);
      if (label) row.title = label;
      if (bars) {
        row.append(element("span", { className: "bars" }, ...bars.map(([share, kind]) => {
          const bar = element("i", { className: kind });
          bar.style.width = `${share * 100}%`;
          return bar;
        })));
      }
      row.dataset.place = place;
      row.style.top = `${place * ROW}px`;
      rows.push(row);
    }
    this.space.replaceChildren(...rows);
    this.host.setAttribute("aria-activedescendant", this.at >= first && this.at < end ? `row-${this.at}` : "");
  }
}
