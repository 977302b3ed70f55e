// Charts over time: stacked areas and lines, and heatmaps. All of them show what is under the pointer or the arrow keys;
// on Live a stretch that is drawn over is zoomed to.

const LEFT = 46;
const TOP = 8;
const BOTTOM = 24;
const BRUSH_LEAST = 6;

function path(values, x, y) {
  let d = "";
  let pen = false;
  values.forEach((value, i) => {
    if (value === null || value === undefined) {
      pen = false;
      return;
    }
    d += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = true;
  });
  return d;
}

function band(lower, upper, x, y) {
  const top = upper.map((v, i) => `${x(i).toFixed(1)} ${y(v).toFixed(1)}`);
  const bottom = lower.map((v, i) => `${x(i).toFixed(1)} ${y(v).toFixed(1)}`).reverse();
  return top.length ? `M${top.join("L")}L${bottom.join("L")}Z` : "";
}

// The round number that is the step of an axis with at most five of them up to `value`.
function niceStep(value) {
  if (value <= 0) return 1;
  const raw = value / 5;
  const unit = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].find((m) => m * unit >= raw * 0.999) * unit;
}

const tick = (value) => (value === 0 ? "0" : value >= 1e5 ? number(value) : String(+value.toPrecision(3)).replace(/\B(?=(\d{3})+$)/, ","));


// What all charts have in common. `zoom` is called with the first and the last second of a stretch that was chosen.
class Chart {
  constructor(parent, { title, height = 264, zoom = null }) {
    Object.assign(this, { height, zoom, hover: null, last: null, names: "", brush: null });
    this.card = make("section", "lh-card lh-chart", parent);
    const head = make("header", "lh-card-head", this.card);
    make("h2", "", head, title);
    this.caption = make("span", "lh-muted", head);
    this.legend = make("ul", "lh-legend", this.card);
    this.stage = make("div", "lh-stage", this.card);
    this.stage.style.height = `${height}px`;
    this.svg = draw("svg", { width: "100%", height, role: "group", tabindex: 0 }, this.stage);
    const keys = zoom ? ": arrow keys move, with Shift they choose, Enter zooms" : ": arrow keys move";
    this.svg.setAttribute("aria-label", title + keys);
    this.grid = draw("g", { class: "lh-grid" }, this.svg);
    this.marks = draw("g", {}, this.svg);
    this.shade = draw("rect", { class: "lh-brush", y: TOP, height: height - BOTTOM - TOP, visibility: "hidden" }, this.svg);
    this.cursor = draw("line", { class: "lh-cursor", y1: TOP, y2: height - BOTTOM, visibility: "hidden" }, this.svg);
    this.empty = make("p", "lh-empty-chart lh-muted", this.stage, "No events in this range");
    this.tip = make("div", "lh-tip", this.stage);
    this.tip.hidden = true;
    this.listen();
    this.observer = new ResizeObserver(() => this.last && this.update(this.last));
    this.observer.observe(this.stage);
  }

  listen() {
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.brush === null && this.leave());
    this.svg.addEventListener("focus", () => this.svg.matches(":focus-visible") && this.step(0));
    this.svg.addEventListener("blur", () => this.leave());
    this.svg.addEventListener("keydown", (event) => this.key(event));
    if (!this.zoom) return;
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.last) return;
      this.svg.setPointerCapture(event.pointerId);
      this.brush = { x: event.clientX, from: this.at(event), to: null };
    });
    this.svg.addEventListener("pointerup", (event) => {
      const brush = this.brush;
      this.unbrush();
      if (brush && Math.abs(event.clientX - brush.x) >= BRUSH_LEAST) this.choose(brush.from, this.at(event));
    });
    this.svg.addEventListener("pointercancel", () => this.unbrush());
  }

  // The second at an x of the page.
  at(event) {
    const box = this.svg.getBoundingClientRect();
    const ratio = Math.max(0, Math.min(1, (event.clientX - box.left - LEFT) / Math.max(1, box.width - LEFT - 6)));
    return this.from + ratio * (this.until - this.from);
  }

  px(second) {
    return LEFT + ((this.right - LEFT) * (second - this.from)) / Math.max(1, this.until - this.from);
  }

  choose(one, other) {
    const step = this.last.step;
    const [from, to] = one < other ? [one, other] : [other, one];
    if (to > from) this.zoom([Math.floor(from / step) * step, Math.ceil(to / step) * step]);
  }

  unbrush() {
    this.brush = null;
    set(this.shade, "visibility", "hidden");
  }

  // The stretch that is being chosen; its ends are seconds, so that it stays with the data while that moves on.
  shadeBrush() {
    if (this.brush === null || this.brush.to === null) return;
    const [x1, x2] = [this.px(this.brush.from), this.px(this.brush.to)].sort((a, b) => a - b);
    set(this.shade, "x", Math.max(LEFT, x1).toFixed(1));
    set(this.shade, "width", Math.max(0, Math.min(this.right, x2) - Math.max(LEFT, x1)).toFixed(1));
    set(this.shade, "visibility", "visible");
  }

  update(data) {
    this.last = data;
    this.width = Math.max(200, this.stage.clientWidth);
    this.right = this.width - 6;
    this.place(data);
    const filled = this.scale(data);
    this.axes(data);
    this.paint(data);
    this.empty.hidden = filled;
    this.shadeBrush();
    if (this.hover !== null) this.show(this.hover);
  }

  axes(data) {
    const key = `${this.width}|${this.axisKey(data)}|${data.minutes}|${data.zoomed ? data.start : ""}`;
    if (key === this.drawnAxes) return;
    this.drawnAxes = key;
    this.grid.replaceChildren();
    for (const [value, text] of this.ticks()) {
      const y = this.y(value);
      draw("line", { x1: LEFT, x2: this.right, y1: y, y2: y }, this.grid);
      draw("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, this.grid).textContent = text;
    }
    const parts = this.width < 420 ? 2 : { 1: 4, 5: 5, 15: 5, 60: 4 }[data.minutes] || 4;
    for (let i = 0; i <= parts; i += 1) {
      const before = (data.minutes * 60 * (parts - i)) / parts;
      const text = data.zoomed ? clock(this.from + ((this.until - this.from) * i) / parts) : before === 0 ? "now" : back(before);
      const anchor = i === 0 ? "start" : i === parts ? "end" : "middle";
      draw("text", { x: LEFT + ((this.right - LEFT) * i) / parts, y: this.height - 6, "text-anchor": anchor }, this.grid).textContent = text;
    }
  }

  point(event) {
    if (!this.last || !this.count) return;
    const second = this.at(event);
    if (this.brush !== null) {
      this.brush.to = second;
      this.shadeBrush();
    }
    this.show(this.nearest(second));
  }

  step(by) {
    if (this.last && this.count) this.show(Math.max(0, Math.min(this.count - 1, (this.hover ?? this.count - 1) + by)));
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 }[event.key];
    if (by !== undefined) {
      event.preventDefault();
      const from = this.hover ?? this.count - 1;
      this.step(by);
      if (event.shiftKey && this.zoom) {
        this.brush = this.brush || { from: this.second(from), to: null };
        this.brush.to = this.second(this.hover);
        this.shadeBrush();
      } else this.unbrush();
    } else if (event.key === "Enter" && this.brush !== null && this.brush.to !== null) {
      const { from, to } = this.brush;
      this.unbrush();
      this.choose(from, to);
    } else if (event.key === "Escape" && this.brush !== null) {
      event.stopPropagation();
      this.unbrush();
    }
  }

  show(index) {
    if (index >= this.count) return this.leave();
    this.hover = index;
    const x = this.px(this.second(index));
    set(this.cursor, "x1", x);
    set(this.cursor, "x2", x);
    set(this.cursor, "visibility", "visible");
    this.tell(index);
    this.tip.hidden = false;
    const room = this.stage.clientWidth - this.tip.offsetWidth - 12;
    this.tip.style.transform = `translate(${Math.max(0, x + 14 > room ? x - this.tip.offsetWidth - 14 : x + 14)}px, 8px)`;
    return undefined;
  }

  leave() {
    this.hover = null;
    this.tip.hidden = true;
    set(this.cursor, "visibility", "hidden");
  }

  // A row of the tip; the place of its number.
  row(name, mark) {
    const row = make("div", "lh-tip-row", this.tip);
    row.appendChild(mark);
    make("span", "", row, name);
    return make("b", "", row);
  }

  begin() {
    this.marks.replaceChildren();
    this.legend.replaceChildren();
    this.tip.replaceChildren();
    this.tipTime = make("div", "lh-tip-time", this.tip);
  }
}

function swatch(color) {
  const mark = document.createElement("i");
  mark.style.background = color;
  return mark;
}

// Stacked areas, or lines. `pick` is called with the name of a series that was clicked in the legend.
class Lines extends Chart {
  constructor(parent, { unit, stacked, pick = null, ...rest }) {
    super(parent, rest);
    Object.assign(this, { unit, stacked, pick, top: 0, low: 0 });
  }

  place(data) {
    this.count = data.points;
    this.from = data.start;
    this.until = data.start + Math.max(1, data.points - 1) * data.step;
  }

  nearest(second) {
    return Math.max(0, Math.min(this.count - 1, Math.round((second - this.from) / this.last.step)));
  }

  second(index) {
    return this.from + index * this.last.step;
  }

  // The axis grows at once and shrinks only when it is far too tall: it must not breathe with the data.
  scale(data) {
    const [low, peak] = this.reach(data);
    if (peak > this.top || low < this.low || peak - low < (this.top - this.low) * 0.45) {
      this.gap = niceStep((peak - low) * 1.05);
      this.top = this.gap * Math.max(low < 0 ? 0 : 1, Math.ceil((peak * 1.05) / this.gap));
      this.low = this.gap * Math.floor((low * 1.05) / this.gap);
    }
    this.y = (v) => this.height - BOTTOM - ((this.height - BOTTOM - TOP) * (v - this.low)) / (this.top - this.low || 1);
    return peak > 0 || low < 0;
  }

  reach(data) {
    if (!this.stacked) {
      const known = data.series.flatMap((s) => s.values.filter((v) => v !== null));
      return [Math.min(0, ...known), Math.max(0, ...known)];
    }
    let top = 0;
    for (let i = 0; i < data.points; i += 1) top = Math.max(top, data.series.reduce((sum, s) => sum + s.values[i], 0));
    return [0, top];
  }

  axisKey() {
    return `${this.low}|${this.top}`;
  }

  ticks() {
    const found = [];
    for (let v = this.low; v <= this.top + this.gap * 0.001; v += this.gap) found.push([v, tick(Math.abs(v) < this.gap * 0.001 ? 0 : v)]);
    return found;
  }

  paint(data) {
    const x = (i) => this.px(this.second(i));
    const names = JSON.stringify(data.series.map((s) => [s.name, s.color, s.href]));
    if (names !== this.names) this.build(data, names);
    let base = new Array(data.points).fill(0);
    data.series.forEach((series, index) => {
      const item = this.items[index];
      if (this.stacked) {
        const upper = base.map((v, i) => v + series.values[i]);
        set(item.fill, "d", band(base, upper, x, this.y));
        set(item.line, "d", path(upper, x, this.y));
        base = upper;
      } else {
        set(item.line, "d", path(series.values, x, this.y));
      }
      const latest = series.values.length ? series.values[series.values.length - 1] : null;
      say(item.value, number(latest));
    });
  }

  build(data, names) {
    this.names = names;
    this.begin();
    this.items = data.series.map((series) => {
      const fill = this.stacked ? draw("path", { class: "lh-fill", fill: series.color }, this.marks) : null;
      const line = draw("path", { class: "lh-line", stroke: series.color }, this.marks);
      const entry = make("li", "", this.legend);
      entry.appendChild(swatch(series.color));
      const name = make(series.href ? "a" : "span", "", entry, series.name);
      if (series.href) link(name, series.href, "Show only this; again for all", () => this.pick(series.name));
      const value = make("b", "", entry);
      return { fill, line, value, tip: this.row(series.name, swatch(series.color)) };
    });
  }

  tell(index) {
    say(this.tipTime, `${clock(this.second(index))} UTC`);
    this.last.series.forEach((series, i) => say(this.items[i].tip, `${number(series.values[index])} ${this.unit}`));
  }
}

// Columns of time and rows of values, darker where values are frequent, with quantiles as lines over them.
class Heatmap extends Chart {
  constructor(parent, { unit, ...rest }) {
    super(parent, rest);
    Object.assign(this, { unit, low: 0, top: 0, kind: "" });
    this.card.classList.add("lh-heat");
  }

  place(data) {
    this.count = data.columns.length;
    this.from = data.start;
    this.until = data.start + Math.max(1, this.count) * data.step;
  }

  nearest(second) {
    return Math.max(0, Math.min(this.count - 1, Math.floor((second - this.from) / this.last.step)));
  }

  second(index) {
    return this.from + (index + 0.5) * this.last.step;
  }

  // In rows; as with lines it grows at once and shrinks late.
  scale(data) {
    const kind = `${data.log}|${data.unit}`;
    const [low, top] = [data.first, data.first + Math.max(1, data.rows)];
    const shown = this.top - this.low;
    if (data.rows && (kind !== this.kind || top - low < shown * 0.6)) Object.assign(this, { kind, low, top });
    else if (data.rows) Object.assign(this, { low: Math.min(low, this.low), top: Math.max(top, this.top) });
    this.rowAt = (row) => this.height - BOTTOM - ((this.height - BOTTOM - TOP) * (row - this.low)) / (this.top - this.low || 1);
    this.y = (v) => this.rowAt(data.log ? Math.log10(Math.max(v, 1e-12)) * data.unit : v / data.unit);
    return data.rows > 0;
  }

  axisKey(data) {
    return `${this.kind}|${this.low}|${this.top}|${data.rows > 0}`;
  }

  ticks() {
    const { log, unit, rows } = this.last;
    if (!rows) return [];
    if (!log) {
      const gap = niceStep((this.top - this.low) * unit);
      const found = [];
      for (let v = Math.ceil((this.low * unit) / gap) * gap; v <= this.top * unit; v += gap) found.push([v, tick(+v.toPrecision(12))]);
      return found;
    }
    const [from, to] = [this.low / unit, this.top / unit];
    const heads = to - from > 3 ? [1] : [1, 2, 5];
    const found = [];
    for (let power = Math.floor(from); power <= to; power += 1) {
      for (const head of heads) {
        const value = head * 10 ** power;
        if (Math.log10(value) >= from - 1e-9 && Math.log10(value) <= to + 1e-9) found.push([value, tick(value)]);
      }
    }
    return found;
  }

  paint(data) {
    const names = JSON.stringify([data.shades, data.quantiles.map(([name]) => name)]);
    if (names !== this.names) this.build(data, names);
    const cells = data.shades.map(() => "");
    const width = (this.right - LEFT) / Math.max(1, this.count);
    data.columns.forEach((column, i) => {
      const x = LEFT + i * width;
      for (let row = 0; row < column.length; row += 1) {
        const shade = +column[row];
        if (!shade) continue;
        const y = this.rowAt(data.first + row + 1);
        cells[shade - 1] += `M${x.toFixed(1)} ${y.toFixed(1)}h${(width + 0.3).toFixed(1)}V${(this.rowAt(data.first + row) + 0.3).toFixed(1)}h${(-width - 0.3).toFixed(1)}z`;
      }
    });
    cells.forEach((d, i) => set(this.cells[i], "d", d));
    const x = (i) => LEFT + (i + 0.5) * width;
    data.quantiles.forEach(([, values], i) => {
      const d = path(values, x, this.y);
      set(this.items[i].line, "d", d);
      set(this.items[i].casing, "d", d);
      say(this.items[i].value, number(values[values.length - 1]));
    });
  }

  build(data, names) {
    this.names = names;
    this.begin();
    this.cells = data.shades.map((fill) => draw("path", { fill, "shape-rendering": "crispEdges" }, this.marks));
    const casings = data.quantiles.map(() => draw("path", { class: "lh-casing" }, this.marks));
    this.items = data.quantiles.map(([name], i) => {
      const line = draw("path", { class: `lh-line lh-rank lh-rank-${i}` }, this.marks);
      const mark = () => {
        const svg = draw("svg", { width: 18, height: 8, "aria-hidden": "true", class: "lh-dash" });
        draw("line", { x1: 0, x2: 18, y1: 4, y2: 4, class: `lh-line lh-rank lh-rank-${i}` }, svg);
        return svg;
      };
      const entry = make("li", "", this.legend);
      entry.appendChild(mark());
      make("span", "", entry, name);
      return { line, casing: casings[i], value: make("b", "", entry), tip: this.row(name, mark()) };
    });
    const scale = make("li", "lh-ramp", this.legend);
    make("span", "", scale, "rare");
    data.shades.forEach((fill) => scale.appendChild(swatch(fill)));
    make("span", "", scale, "frequent");
  }

  tell(index) {
    const start = this.from + index * this.last.step;
    say(this.tipTime, this.last.step > 1 ? `${clock(start)} – ${clock(start + this.last.step)} UTC` : `${clock(start)} UTC`);
    this.last.quantiles.forEach(([, values], i) => say(this.items[i].tip, `${number(values[index])} ${this.unit}`));
  }
}
