// Draws the live page. Loaded once per page; the server then sends only data.
//
// Everything is built once and afterwards only texts and attributes that differ are set, so that nothing
// flickers and a hover survives an update. Strings from data reach the page as text nodes and attribute
// values only, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const LATE_MS = 1000;
const STALE_MS = 3000;

// ---------------------------------------------------------------- text

const grouped = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(2)} G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (size >= 1e5) return `${(value / 1e3).toFixed(0)} k`;
  if (size >= 100) return grouped.format(value);
  if (size >= 10 || size === 0) return value.toFixed(size === 0 ? 0 : 1);
  return value.toFixed(2);
}

const count = (value) => (value === null || value === undefined ? "–" : grouped.format(value));

function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function age(ms) {
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(2)} s`;
  if (s < 120) return `${s.toFixed(0)} s`;
  if (s < 7200) return `${(s / 60).toFixed(0)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(0)} h`;
  return `${(s / 86400).toFixed(0)} d`;
}

function back(seconds) {
  if (seconds < 60) return `−${Math.round(seconds)} s`;
  if (seconds < 5400) return `−${+(seconds / 60).toFixed(1)} min`;
  return `−${+(seconds / 3600).toFixed(1)} h`;
}

const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);

// ---------------------------------------------------------------- elements

function make(tag, className, parent, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  if (parent) parent.appendChild(element);
  return element;
}

function draw(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (parent) parent.appendChild(element);
  return element;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function set(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

const decode = (data) =>
  data instanceof Uint8Array || data instanceof ArrayBuffer ? JSON.parse(new TextDecoder().decode(data)) : data;

// Colours come from the theme that Streamlit resolved, so that light and dark need no code here.
function palette(element) {
  const style = getComputedStyle(element);
  const list = (name) => style.getPropertyValue(name).split(/,(?![^(]*\))/).map((c) => c.trim()).filter(Boolean);
  return { series: list("--st-chart-categorical-colors"), ranks: list("--st-chart-sequential-colors") };
}

// ---------------------------------------------------------------- what is on the screen, for machines

function frame() {
  let element = document.getElementById("lakehouse-frame");
  if (!element) {
    element = make("div", "", document.body);
    element.id = "lakehouse-frame";
    element.hidden = true;
  }
  return element;
}

// ---------------------------------------------------------------- charts

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

class Sparkline {
  constructor(parent) {
    this.svg = draw("svg", { class: "lh-spark", viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true" }, parent);
    this.area = draw("path", { class: "lh-spark-area" }, this.svg);
    this.line = draw("path", { class: "lh-spark-line" }, this.svg);
  }

  update(values) {
    const known = values.filter((v) => v !== null);
    const top = Math.max(...known, 0) * 1.08 || 1;
    const low = Math.min(...known, top);
    const floor = low > top * 0.6 ? low * 0.9 : 0;
    const x = (i) => (values.length < 2 ? 100 : (i * 100) / (values.length - 1));
    const y = (v) => 26 - (24 * (v - floor)) / (top - floor || 1);
    set(this.line, "d", path(values, x, y));
    set(this.area, "d", known.length === values.length && known.length ? `${path(values, x, y)}L100 28L0 28Z` : "");
  }
}

class Chart {
  constructor(parent, { title, unit, stacked, height = 264 }) {
    Object.assign(this, { unit, stacked, height, top: 0, hover: null, last: null, names: "" });
    this.card = make("section", "lh-card lh-chart", parent);
    const head = make("header", "lh-card-head", this.card);
    make("h2", "", head, title);
    this.caption = make("span", "lh-muted", head);
    this.legend = make("ul", "lh-legend", this.card);
    this.stage = make("div", "lh-stage", this.card);
    this.stage.style.height = `${height}px`;
    this.svg = draw("svg", { width: "100%", height, role: "img", "aria-label": title }, this.stage);
    this.grid = draw("g", { class: "lh-grid" }, this.svg);
    this.marks = draw("g", {}, this.svg);
    this.cursor = draw("line", { class: "lh-cursor", y1: 8, y2: height - 24, visibility: "hidden" }, this.svg);
    this.empty = make("p", "lh-empty-chart lh-muted", this.stage, "No events in this range");
    this.tip = make("div", "lh-tip", this.stage);
    this.tip.hidden = true;
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.observer = new ResizeObserver(() => this.last && this.update(this.last));
    this.observer.observe(this.stage);
  }

  update(data) {
    this.last = data;
    const width = Math.max(200, this.stage.clientWidth);
    const length = Math.max(2, data.points);
    const left = 46;
    const right = width - 6;
    this.x = (i) => left + ((right - left) * i) / (length - 1);
    const peak = this.peak(data);
    // The axis grows at once and shrinks only when it is far too tall: it must not breathe with the data.
    if (peak > this.top || peak < this.top * 0.45) {
      this.step = niceStep(peak * 1.05);
      this.top = this.step * Math.max(1, Math.ceil((peak * 1.05) / this.step));
    }
    this.y = (v) => this.height - 24 - ((this.height - 32) * v) / this.top;
    this.axes(width, left, right, data);
    this.lines(data);
    this.empty.hidden = peak > 0;
    if (this.hover !== null) this.show(this.hover);
  }

  peak(data) {
    if (!this.stacked) return Math.max(0, ...data.series.flatMap((s) => s.values.filter((v) => v !== null)));
    let top = 0;
    for (let i = 0; i < data.points; i += 1) top = Math.max(top, data.series.reduce((sum, s) => sum + s.values[i], 0));
    return top;
  }

  axes(width, left, right, data) {
    const key = `${width}|${this.top}|${data.minutes}`;
    if (key === this.axisKey) return;
    this.axisKey = key;
    this.grid.replaceChildren();
    for (let i = 0; i * this.step <= this.top * 1.001; i += 1) {
      const value = i * this.step;
      const y = this.y(value);
      draw("line", { x1: left, x2: right, y1: y, y2: y }, this.grid);
      draw("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, this.grid).textContent = tick(value);
    }
    const parts = width < 420 ? 2 : { 1: 4, 5: 5, 15: 5, 60: 4 }[data.minutes] || 4;
    for (let i = 0; i <= parts; i += 1) {
      const seconds = (data.minutes * 60 * (parts - i)) / parts;
      const text = seconds === 0 ? "now" : back(seconds);
      const anchor = i === 0 ? "start" : i === parts ? "end" : "middle";
      draw("text", { x: left + ((right - left) * i) / parts, y: this.height - 6, "text-anchor": anchor }, this.grid).textContent = text;
    }
  }

  lines(data) {
    const names = JSON.stringify(data.series.map((s) => [s.name, s.color]));
    if (names !== this.names) this.build(data, names);
    let base = new Array(data.points).fill(0);
    data.series.forEach((series, index) => {
      const item = this.items[index];
      if (this.stacked) {
        const upper = base.map((v, i) => v + series.values[i]);
        set(item.fill, "d", band(base, upper, this.x, this.y));
        set(item.line, "d", path(upper, this.x, this.y));
        base = upper;
      } else {
        set(item.line, "d", path(series.values, this.x, this.y));
      }
      const latest = series.values.length ? series.values[series.values.length - 1] : null;
      say(item.value, number(latest));
    });
  }

  build(data, names) {
    this.names = names;
    this.marks.replaceChildren();
    this.legend.replaceChildren();
    this.tip.replaceChildren();
    this.tipTime = make("div", "lh-tip-time", this.tip);
    this.items = data.series.map((series) => {
      const fill = this.stacked ? draw("path", { class: "lh-fill", fill: series.color }, this.marks) : null;
      const line = draw("path", { class: "lh-line", stroke: series.color }, this.marks);
      const entry = make("li", "", this.legend);
      make("i", "", entry).style.background = series.color;
      make("span", "", entry, series.name);
      const value = make("b", "", entry);
      const row = make("div", "lh-tip-row", this.tip);
      make("i", "", row).style.background = series.color;
      make("span", "", row, series.name);
      return { fill, line, value, tip: make("b", "", row) };
    });
  }

  point(event) {
    if (!this.last || !this.last.points) return;
    const box = this.svg.getBoundingClientRect();
    const ratio = (event.clientX - box.left - 46) / Math.max(1, box.width - 52);
    this.show(Math.max(0, Math.min(this.last.points - 1, Math.round(ratio * (this.last.points - 1)))));
  }

  show(index) {
    const data = this.last;
    if (index >= data.points) return this.leave();
    this.hover = index;
    const x = this.x(index);
    set(this.cursor, "x1", x);
    set(this.cursor, "x2", x);
    set(this.cursor, "visibility", "visible");
    say(this.tipTime, `${clock(data.start + index * data.step)} UTC`);
    data.series.forEach((series, i) => say(this.items[i].tip, `${number(series.values[index])} ${this.unit}`));
    this.tip.hidden = false;
    const room = this.stage.clientWidth - this.tip.offsetWidth - 12;
    this.tip.style.transform = `translate(${x + 14 > room ? x - this.tip.offsetWidth - 14 : x + 14}px, 8px)`;
    return undefined;
  }

  leave() {
    this.hover = null;
    this.tip.hidden = true;
    set(this.cursor, "visibility", "hidden");
  }
}

// ---------------------------------------------------------------- tiles

// Which tiles there are, with label, unit and the direction that is an improvement (0: neither), is told by the
// server from the rollup's metrics; here is only how a kind of number is written.
const TEXTS = { number, percent, count };

// Beyond ten times a share in percent says less than the factor; from nothing there is none at all.
function growth(now, before) {
  if (now === null || now === undefined || before === null || before === undefined) return "no earlier data";
  if (!before) return now ? "new" : "±0.0 %";
  const ratio = now / before - 1;
  if (Math.abs(ratio) < 0.0005) return "±0.0 %";
  if (ratio >= 9) return `▲ ×${number(now / before)}`;
  return `${ratio > 0 ? "▲" : "▼"} ${(Math.abs(ratio) * 100).toFixed(1)} %`;
}

function change(element, now, before, good, period) {
  const ratio = before && now !== null && now !== undefined ? now / before - 1 : null;
  const text = growth(now, before);
  say(element, ratio === null || !period ? text : `${text} ${period}`);
  const mood = !good || ratio === null || Math.abs(ratio) < 0.02 ? "same" : ratio * good > 0 ? "better" : "worse";
  set(element, "data-mood", mood);
}

class Tile {
  constructor(parent, spec) {
    this.spec = spec;
    this.card = make("section", "lh-card lh-tile", parent);
    this.card.id = `lh-tile-${spec.id}`;
    make("h2", "", this.card, spec.label);
    const line = make("p", "lh-value", this.card);
    this.value = make("strong", "", line);
    make("span", "lh-unit", line, spec.unit);
    this.change = make("p", "lh-change", this.card);
    this.note = make("p", "lh-note lh-muted", this.card);
    this.spark = new Sparkline(this.card);
  }

  update(tile, period) {
    this.card.hidden = !tile;
    if (!tile) return;
    say(this.value, TEXTS[this.spec.text](tile.now));
    change(this.change, tile.now, tile.before, this.spec.good, period);
    say(this.note, tile.note || "");
    this.spark.update(tile.spark);
  }
}

// ---------------------------------------------------------------- leaderboard

function columnsOf(specs) {
  const wanted = ["errors", "p95", "users"];
  const unit = (spec, text) => (text === "–" || !spec.unit ? text : `${text} ${spec.unit}`);
  const metrics = specs
    .filter((spec) => wanted.includes(spec.id))
    .map((spec) => ({ id: spec.id, label: spec.label, text: (v) => unit(spec, TEXTS[spec.text](v)) }));
  return [
    { id: "name", label: "", text: (v) => v },
    { id: "rate", label: "Events/s", text: number },
    ...metrics,
    { id: "change", label: "Change", text: () => "" },
  ];
}

// The page's address with the filter set to this value alone; without it, where it is so already.
function filteredBy(dimension, value) {
  const url = new URL(window.location.href);
  const alone = url.searchParams.getAll(dimension).join() === value;
  url.searchParams.delete(dimension);
  if (!alone) url.searchParams.append(dimension, value);
  return url.href;
}

class Leaderboard {
  constructor(parent, specs) {
    this.sort = { id: "rate", down: true };
    this.columns = columnsOf(specs);
    this.rows = new Map();
    this.card = make("section", "lh-card lh-leaders", parent);
    // A row that moves between the pressing and the releasing of a button is never clicked.
    this.pressed = false;
    this.card.addEventListener("pointerdown", () => { this.pressed = true; });
    for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { this.pressed = false; });
    const head = make("header", "lh-card-head", this.card);
    this.title = make("h2", "", head);
    this.caption = make("span", "lh-muted", head);
    const table = make("table", "", this.card);
    const row = make("tr", "", make("thead", "", table));
    this.heads = this.columns.map((column) => {
      const cell = make("th", `lh-col-${column.id}`, row);
      cell.scope = "col";
      const button = make("button", "", cell, column.label);
      button.type = "button";
      button.addEventListener("click", () => this.by(column.id));
      return { cell, button, column };
    });
    this.body = make("tbody", "", table);
  }

  by(id) {
    this.sort = { id, down: this.sort.id === id ? !this.sort.down : id !== "name" };
    if (this.last) this.update(...this.last);
  }

  update(leaders, name, period) {
    this.last = [leaders, name, period];
    say(this.title, `By ${name}`);
    say(this.caption, period ? `change ${period}` : "");
    say(this.heads[0].button, name);
    for (const { cell, column } of this.heads) {
      set(cell, "aria-sort", column.id !== this.sort.id ? "none" : this.sort.down ? "descending" : "ascending");
    }
    const order = this.sort.down ? -1 : 1;
    const key = (leader) => leader[this.sort.id];
    const sorted = [...leaders].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === y) return a.name < b.name ? -1 : 1;
      if (x === null) return 1;
      if (y === null) return -1;
      return x < y ? -order : order;
    });
    const most = Math.max(...leaders.map((leader) => leader.rate), 0) || 1;
    sorted.forEach((leader, index) => {
      const row = this.row(leader.name);
      this.columns.forEach((column, i) => {
        if (column.id === "change") change(row.cells[i], leader.rate, leader.before, 0, "");
        else say(row.texts[i], column.text(leader[column.id]));
      });
      row.bar.style.transform = `scaleX(${(leader.rate / most).toFixed(3)})`;
      set(row.texts[0], "href", filteredBy(name, leader.name));
      if (this.pressed && row.element.isConnected) return;
      if (this.body.children[index] !== row.element) this.body.insertBefore(row.element, this.body.children[index] || null);
    });
    const names = new Set(leaders.map((leader) => leader.name));
    for (const [known, row] of this.rows) {
      if (names.has(known)) continue;
      row.element.remove();
      this.rows.delete(known);
    }
  }

  row(name) {
    const known = this.rows.get(name);
    if (known) return known;
    const element = make("tr", "");
    const cells = this.columns.map((column) => make("td", `lh-col-${column.id}${column.id === "change" ? " lh-change" : ""}`, element));
    const texts = cells.map((cell, i) => (this.columns[i].id === "change" ? cell : make(i ? "span" : "a", "", cell)));
    texts[0].title = "Show only this; again for all";
    texts[0].target = "_self";
    const bar = make("i", "lh-bar", cells[1]);
    const made = { element, cells, texts, bar };
    this.rows.set(name, made);
    return made;
  }
}

// ---------------------------------------------------------------- the page's two parts

// Stands in a page's place for as long as there is nothing to show.
class Waiting {
  constructor(parent) {
    this.card = make("section", "lh-card lh-waiting", parent);
    make("div", "lh-pulse", this.card);
    this.title = make("h2", "", this.card);
    this.text = make("p", "lh-muted", this.card);
  }

  update(data) {
    this.card.hidden = !data.waiting;
    if (!data.waiting) return;
    say(this.title, data.title);
    say(this.text, data.waiting);
  }
}

class Board {
  constructor(parent) {
    this.root = make("div", "lh-board", parent);
    this.waiting = new Waiting(this.root);
    this.live = make("div", "lh-live", this.root);
    this.raw = null;
  }

  // The parts of the page, made once: they depend on the rollup alone.
  build(specs) {
    const named = JSON.stringify(specs);
    if (named === this.specs) return;
    this.specs = named;
    this.drawn = null;
    this.live.replaceChildren();
    const tiles = make("div", "lh-tiles", this.live);
    tiles.dataset.count = specs.length;
    this.tiles = specs.map((spec) => new Tile(tiles, spec));
    const charts = make("div", "lh-charts", this.live);
    this.rates = new Chart(charts, { title: "Events per second", unit: "/s", stacked: true });
    const middle = specs.find((spec) => spec.id === "p50");
    this.latency = new Chart(charts, { title: middle ? middle.of : "", unit: middle ? middle.unit : "", stacked: false });
    this.leaders = new Leaderboard(this.live, specs);
    this.foot = make("p", "lh-foot lh-muted", this.live);
  }

  update(raw) {
    const text = raw instanceof Uint8Array ? new TextDecoder().decode(raw) : JSON.stringify(raw);
    const colors = palette(this.root);
    const theme = colors.series.join();
    if (text === this.raw && theme === this.theme) return;
    Object.assign(this, { raw: text, theme });
    const data = JSON.parse(text);
    this.live.hidden = Boolean(data.waiting);
    this.waiting.update(data);
    if (!data.waiting) {
      this.fill(data, colors);
    }
    const seen = frame();
    for (const name of ["version", "events", "minutes"]) set(seen, `data-${name}`, data[name] ?? "");
    set(seen, "data-max-event-ms", data.max_event_ms ?? "");
    set(seen, "data-drawn-ms", Date.now());
    shown.max_event_ms = data.max_event_ms ?? null;
    shown.version = data.version;
    if (badge) badge.tick();
  }

  fill(data, colors) {
    this.build(data.specs);
    this.tiles.forEach((tile) => tile.update(data.tiles[tile.spec.id], data.period));
    this.leaders.update(data.leaders, data.leader, data.period);
    say(this.foot, data.foot);
    // Series end with the last complete second: most versions leave them as they are.
    const drawn = `${data.series_id}|${data.minutes}|${colors.series.join()}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const { start, step } = data.series;
    const points = data.series.points;
    const many = data.series.rates.length;
    const hue = (i) => (data.series.rates[i][0] === data.rest ? colors.series[colors.series.length - 1] : colors.series[i % colors.series.length]);
    const common = { start, step, points, minutes: data.minutes };
    const rates = data.series.rates.map(([name, values], i) => ({ name, values, color: many === 1 ? colors.series[0] : hue(i) }));
    this.rates.update({ ...common, series: rates });
    say(this.rates.caption, data.split ? `by ${data.split}` : "all events");
    this.latency.card.hidden = !data.series.latency.length;
    const ranks = ["p50", "p95", "p99"];
    const shades = colors.ranks;
    const pick = (i) => shades[Math.min(shades.length - 1, [3, 5, 8][i])] || "currentColor";
    this.latency.update({ ...common, series: data.series.latency.map((values, i) => ({ name: ranks[i], values, color: pick(i) })) });
    say(this.latency.caption, "quantiles of all shown events");
  }
}

// ---------------------------------------------------------------- panels of the other pages

class Figure {
  constructor(parent, spec) {
    this.card = make("section", "lh-card lh-tile", parent);
    this.card.id = `lh-tile-${spec.id}`;
    make("h2", "", this.card, spec.label);
    this.value = make("strong", "", make("p", "lh-value", this.card));
    this.note = make("p", "lh-note lh-muted", this.card);
    this.spark = spec.spark.length ? new Sparkline(this.card) : null;
  }

  update(spec) {
    say(this.value, spec.value);
    say(this.note, spec.note);
    set(this.note, "title", spec.note);
    set(this.value, "data-mood", spec.mood);
    if (this.spark) this.spark.update(spec.spark);
  }
}

class Tiles {
  constructor(parent) {
    this.root = make("div", "lh-tiles lh-figures", parent);
    this.known = "";
  }

  update({ items }) {
    const ids = items.map((item) => item.id + (item.spark.length ? "~" : "")).join();
    if (ids !== this.known) {
      this.known = ids;
      this.root.replaceChildren();
      set(this.root, "data-count", items.length);
      this.figures = items.map((item) => new Figure(this.root, item));
    }
    items.forEach((item, i) => this.figures[i].update(item));
  }
}

class Plot {
  constructor(parent, panel) {
    this.chart = new Chart(parent, { title: panel.title, unit: panel.unit, stacked: panel.stacked, height: 220 });
    say(this.chart.empty, panel.empty);
  }

  update(panel, colors) {
    const series = panel.series.map(([name, values], i) => ({ name, values, color: colors.series[i % colors.series.length] }));
    this.chart.update({ start: panel.start, step: panel.step, points: panel.points, minutes: panel.minutes, series });
    say(this.chart.caption, panel.caption);
  }
}

class Grid {
  constructor(parent, panel) {
    this.card = make("section", "lh-card lh-leaders lh-grid-card", parent);
    this.card.id = `lh-panel-${panel.id}`;
    const head = make("header", "lh-card-head", this.card);
    make("h2", "", head, panel.title);
    this.caption = make("span", "lh-muted", head);
    const table = make("table", "", this.card);
    const row = make("tr", "", make("thead", "", table));
    panel.columns.forEach((column) => {
      const cell = make("th", column.right ? "lh-right" : "", row, column.label);
      cell.scope = "col";
    });
    this.body = make("tbody", "", table);
    this.empty = make("p", "lh-muted lh-nothing", this.card);
  }

  update({ columns, rows, caption, empty }) {
    say(this.caption, caption);
    say(this.empty, rows.length ? "" : empty);
    this.empty.hidden = rows.length > 0;
    while (this.body.children.length > rows.length) this.body.lastChild.remove();
    while (this.body.children.length < rows.length) {
      const row = make("tr", "", this.body);
      columns.forEach((column) => make("td", column.right ? "lh-right" : "", row));
    }
    rows.forEach((cells, i) => {
      cells.forEach((cell, j) => {
        const element = this.body.children[i].children[j];
        const plain = typeof cell === "string";
        say(element, plain ? cell : cell.text);
        set(element, "title", plain ? cell : cell.text);
        set(element, "data-mood", plain ? "" : cell.mood);
      });
    });
  }
}

const KINDS = { tiles: Tiles, chart: Plot, table: Grid };

class Panels {
  constructor(parent) {
    this.root = make("div", "lh-board", parent);
    this.waiting = new Waiting(this.root);
    this.live = make("div", "lh-panels", this.root);
    this.foot = make("p", "lh-foot lh-muted", this.root);
    this.parts = [];
    this.known = "";
  }

  update(raw) {
    const text = raw instanceof Uint8Array ? new TextDecoder().decode(raw) : JSON.stringify(raw);
    const colors = palette(this.root);
    const drawn = colors.series.join() + text;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const data = JSON.parse(text);
    this.live.hidden = Boolean(data.waiting);
    this.waiting.update(data);
    if (!data.waiting) {
      const known = data.panels.map((panel) => `${panel.kind}:${panel.id}:${panel.title}`).join();
      if (known !== this.known) {
        this.known = known;
        this.live.replaceChildren();
        this.parts = data.panels.map((panel) => new KINDS[panel.kind](this.live, panel));
      }
      data.panels.forEach((panel, i) => this.parts[i].update(panel, colors));
    }
    say(this.foot, data.foot || "");
    set(frame(), "data-panels", data.waiting ? 0 : data.panels.length);
  }
}

class Badge {
  constructor(parent) {
    this.root = make("div", "lh-badge-wrap", parent);
    this.pill = make("div", "lh-badge", this.root);
    this.pill.id = "lh-badge";
    this.pill.setAttribute("role", "status");
    make("i", "lh-dot", this.pill);
    this.state = make("strong", "", this.pill);
    this.text = make("span", "lh-badge-age", this.pill);
    this.version = make("span", "lh-badge-version", this.pill);
    this.problem = make("p", "lh-problem", this.root);
    this.problem.setAttribute("role", "alert");
    this.timer = setInterval(() => this.tick(), 100);
  }

  update(raw) {
    this.data = decode(raw);
    // A message can only arrive late, so of the last few the largest offset is the truest clock.
    this.offsets = [...(this.offsets || []).slice(-9), this.data.server_ms - performance.now()];
    this.offset = Math.max(...this.offsets);
    set(frame(), "data-server-ms", this.data.server_ms);
    this.tick();
  }

  // Between two messages the page ages on by itself, also when the connection is lost.
  tick() {
    if (!this.data) return;
    if (!this.root.isConnected) return void clearInterval(this.timer);
    const newest = shown.max_event_ms ?? this.data.max_event_ms;
    const ms = newest === null ? null : Math.max(0, performance.now() + this.offset - newest);
    const state = ms === null ? "waiting" : ms < LATE_MS ? "fresh" : ms < STALE_MS ? "late" : "stale";
    const word = { waiting: "Waiting", fresh: "Live", late: "Late", stale: "Stale" }[state];
    set(this.pill, "data-state", state);
    set(this.pill, "data-paused", this.data.paused);
    say(this.state, this.data.paused ? "Paused" : word);
    say(this.text, ms === null ? "no commit yet" : `${age(ms)} behind`);
    say(this.version, shown.version === undefined || shown.version < 0 ? "" : `version ${count(shown.version)}`);
    say(this.problem, this.data.problem ? `The table cannot be read; showing the last state. ${this.data.problem}` : "");
    this.problem.hidden = !this.data.problem;
    const seen = frame();
    set(seen, "data-state", state);
    set(seen, "data-age-ms", ms === null ? "" : Math.round(ms));
  }
}

const shown = { max_event_ms: null, version: undefined };
let badge = null;
const parts = new WeakMap();

function part(parent, Kind) {
  let found = parts.get(parent);
  if (!found || !found.root.isConnected) {
    found = new Kind(parent);
    parts.set(parent, found);
  }
  return found;
}

const lakehouse = {
  board: (parent, data) => part(parent, Board).update(data),
  panels: (parent, data) => part(parent, Panels).update(data),
  badge: (parent, data) => {
    badge = part(parent, Badge);
    badge.update(data);
  },
};

// One key each for what is done again and again; never while somebody writes.
function shortcut(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, [contenteditable]")) return;
  if (event.key === "p") document.querySelector(".st-key-pause input")?.click();
  const place = "1234".indexOf(event.key);
  if (place >= 0) document.querySelectorAll(".st-key-range button")[place]?.click();
}

export default function start() {
  if (window.lakehouse) return;
  document.addEventListener("keydown", shortcut);
  window.lakehouse = lakehouse;
  window.dispatchEvent(new Event("lakehouse:ready"));
}
