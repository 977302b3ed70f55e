// The live page's own parts: leaderboards, and all of them together.

// The page's address with the filter set to this value alone; without it, where it is so already.
function filteredBy(dimension, value) {
  const url = new URL(window.location.href);
  const alone = url.searchParams.getAll(dimension).join() === value;
  url.searchParams.delete(dimension);
  if (!alone) url.searchParams.append(dimension, value);
  return url.href;
}

// A link that a plain click follows within the page, and any other click as a browser does.
function link(element, href, title, go) {
  set(element, "href", href);
  set(element, "title", title);
  element.target = "_self";
  element.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go();
  };
}

const unitOf = (spec, text) => (text === "–" || !spec.unit ? text : `${text} ${spec.unit}`);

class Leaderboard {
  constructor(parent, panel, act) {
    Object.assign(this, { panel, act, sort: { index: 0, down: true }, rows: new Map() });
    this.card = make("section", "lh-card lh-leaders", parent);
    // A row that moves between the pressing and the releasing of a button is never clicked.
    this.pressed = false;
    this.card.addEventListener("pointerdown", () => { this.pressed = true; });
    for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { this.pressed = false; });
    const head = make("header", "lh-card-head", this.card);
    make("h2", "", head, panel.title);
    this.caption = make("span", "lh-muted", head);
    const table = make("table", "", this.card);
    const row = make("tr", "", make("thead", "", table));
    const labels = [panel.dimension.replaceAll("_", " "), ...panel.columns.map((spec) => spec.label), "Change"];
    this.heads = labels.map((text, i) => {
      const cell = make("th", this.kind(i), row);
      cell.scope = "col";
      const button = make("button", "", cell, text);
      button.type = "button";
      button.addEventListener("click", () => this.by(i - 1));
      return cell;
    });
    this.body = make("tbody", "", table);
    this.empty = make("p", "lh-muted lh-nothing", this.card, "No events in this range");
  }

  // Columns: the name, the figures of which the first ranks, and how that has changed.
  kind(i) {
    const last = this.panel.columns.length + 1;
    return i === 0 ? "lh-col-name" : i === 1 ? "lh-col-rank" : i === last ? "lh-col-change lh-change" : i > 2 ? "lh-col-more" : "";
  }

  by(index) {
    this.sort = { index, down: this.sort.index === index ? !this.sort.down : index >= 0 };
    if (this.last) this.update(...this.last);
  }

  // A row is [name, what ranked it before, figures…].
  key(row) {
    if (this.sort.index < 0) return row[0];
    if (this.sort.index < this.panel.columns.length) return row[2 + this.sort.index];
    return row[1] ? row[2] / row[1] - 1 : null;
  }

  update(board, period) {
    this.last = [board, period];
    say(this.caption, board.chosen.length ? `only ${board.chosen.slice(0, 3).join(", ")}${board.chosen.length > 3 ? " …" : ""}` : `change ${period}`);
    this.heads.forEach((cell, i) => {
      set(cell, "aria-sort", i - 1 !== this.sort.index ? "none" : this.sort.down ? "descending" : "ascending");
    });
    const order = this.sort.down ? -1 : 1;
    const sorted = [...board.rows].sort((a, b) => {
      const [x, y] = [this.key(a), this.key(b)];
      if (x === y) return a[0] < b[0] ? -1 : 1;
      if (x === null) return 1;
      if (y === null) return -1;
      return x < y ? -order : order;
    });
    this.empty.hidden = sorted.length > 0;
    const most = Math.max(...board.rows.map((row) => row[2] ?? 0), 0) || 1;
    sorted.forEach((row, index) => {
      const [name, before, ...now] = row;
      const shown = this.row(name);
      this.panel.columns.forEach((spec, i) => say(shown.texts[i + 1], unitOf(spec, TEXTS[spec.text](now[i]))));
      change(shown.texts[this.panel.columns.length + 1], now[0], before, this.panel.columns[0].good, "");
      shown.bar.style.transform = `scaleX(${Math.max(0, (now[0] ?? 0) / most).toFixed(3)})`;
      link(shown.texts[0], filteredBy(this.panel.dimension, name), "Show only this; again for all", () => this.act({ filter: [this.panel.dimension, name] }));
      if (this.pressed && shown.element.isConnected) return;
      if (this.body.children[index] !== shown.element) this.body.insertBefore(shown.element, this.body.children[index] || null);
    });
    const names = new Set(board.rows.map(([name]) => name));
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
    const cells = this.heads.map((_, i) => make("td", this.kind(i), element));
    const last = cells.length - 1;
    const texts = cells.map((cell, i) => (i === last ? cell : make(i ? "span" : "a", "", cell)));
    say(texts[0], name);
    const made = { element, texts, bar: make("i", "lh-bar", cells[1]) };
    this.rows.set(name, made);
    return made;
  }
}

// What a chart, heatmap or leaderboard of the live page is made of, from a panel as the server describes it.
const LIVE = {
  series: (parent, panel, act) => {
    const chart = new Lines(parent, {
      title: panel.title, unit: panel.unit, stacked: Boolean(panel.stack), zoom: (zoom) => act({ zoom }), pick: (name) => act({ filter: [chart.split, name] }),
    });
    return chart;
  },
  heatmap: (parent, panel, act) => new Heatmap(parent, { title: panel.title, unit: panel.unit, zoom: (zoom) => act({ zoom }) }),
  leaderboard: (parent, panel, act) => new Leaderboard(parent, panel, act),
};

// Tenths of the page's width that each panel takes: two in a row, but a leaderboard of many columns has its own.
function spans(panels) {
  const wide = (panel) => panel.kind === "leaderboard" && panel.columns.length > 3;
  const found = [];
  for (let i = 0; i < panels.length; i += 1) {
    const [panel, next] = [panels[i], panels[i + 1]];
    if (!next || wide(panel) || wide(next)) found.push(10);
    else {
      found.push(...(panel.kind === next.kind ? [5, 5] : [6, 4]));
      i += 1;
    }
  }
  return found;
}

class Board {
  constructor(parent) {
    this.root = make("div", "lh-board", parent);
    this.waiting = new Waiting(this.root);
    this.zoom = make("p", "lh-zoom", this.root);
    this.zoomText = make("span", "", this.zoom);
    const button = make("button", "", this.zoom, "Back to the newest data (Esc)");
    button.type = "button";
    button.addEventListener("click", () => this.unzoom());
    this.live = make("div", "lh-live", this.root);
    this.text = null;
  }

  unzoom() {
    if (!this.zoom.hidden) this.act({ zoom: [] });
  }

  // The parts of the page, made once: they depend on the rollup alone.
  build(specs, panels) {
    const named = JSON.stringify([specs, panels]);
    if (named === this.named) return;
    Object.assign(this, { named, drawn: null, panels });
    this.live.replaceChildren();
    const tiles = make("div", "lh-tiles", this.live);
    tiles.style.setProperty("--lh-columns", specs.length > 7 ? Math.ceil(specs.length / 2) : specs.length);
    this.tiles = specs.map((spec) => new Tile(tiles, spec));
    const grid = make("div", "lh-charts", this.live);
    const act = (what) => this.act(what);
    const wide = spans(panels);
    this.parts = panels.map((panel, i) => {
      const part = LIVE[panel.kind](grid, panel, act);
      part.card.id = `lh-panel-${panel.id}`;
      part.card.style.setProperty("--lh-span", wide[i]);
      return part;
    });
    this.foot = make("p", "lh-foot lh-muted", this.live);
  }

  // Two lines of JSON: what is this viewer's own, and the board, which is the same for all who ask the same.
  update(raw, act) {
    this.act = act;
    const cut = raw.indexOf(10);
    state.dress(this.root);
    state.update(JSON.parse(utf8.decode(raw.subarray(0, cut))));
    const text = utf8.decode(raw.subarray(cut + 1));
    const colors = palette(this.root);
    const theme = colors.series.join();
    if (text === this.text && theme === this.theme) return;
    Object.assign(this, { text, theme });
    const data = JSON.parse(text);
    this.live.hidden = Boolean(data.waiting);
    this.waiting.update(data);
    this.zoom.hidden = !data.zoom;
    if (data.zoom) {
      const [from, to] = data.zoom;
      say(this.zoomText, to > from ? `${clock(from)} to ${clock(to)} UTC` : "A range of the past");
    }
    if (!data.waiting) this.fill(data, colors);
    const seen = frame();
    for (const name of ["version", "events", "minutes"]) set(seen, `data-${name}`, data[name] ?? "");
    set(seen, "data-max-event-ms", data.max_event_ms ?? "");
    set(seen, "data-drawn-ms", Date.now());
    state.shown = { max_event_ms: data.max_event_ms ?? null, version: data.version };
    state.tick();
  }

  fill(data, colors) {
    this.build(data.specs, data.panels);
    this.tiles.forEach((tile) => tile.update(data.tiles[tile.spec.id], data.period));
    let boards = 0;
    this.panels.forEach((panel, i) => {
      if (panel.kind === "leaderboard") this.parts[i].update(data.boards[boards++], data.period);
    });
    say(this.foot, data.foot);
    // Series end with the last complete second: most versions leave them as they are.
    const drawn = `${data.series_id}|${data.minutes}|${data.zoom}|${data.split}|${window.location.search}|${colors.series.join()}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.panels.forEach((panel, i) => {
      if (panel.kind === "series") this.series(this.parts[i], panel, data, colors);
      if (panel.kind === "heatmap") this.heatmap(this.parts[i], panel, data, colors);
    });
  }

  series(chart, panel, data, colors) {
    const { start, step, points } = data.series;
    const rest = colors.series[colors.series.length - 1];
    const found = panel.stack
      ? data.series.stacks[panel.stack].map(([name, values]) => ({ name, values }))
      : panel.lines.map((spec) => ({ name: spec.label, values: data.series.lines[spec.id] }));
    const split = panel.stack ? data.split : null;
    const series = found.map((one, i) => ({
      ...one,
      color: split && one.name === data.rest ? rest : colors.series[i % (colors.series.length - 1)],
      href: split && one.name !== data.rest ? filteredBy(split, one.name) : "",
    }));
    chart.split = split;
    say(chart.caption, panel.stack ? (split ? `by ${split.replaceAll("_", " ")}` : "all events") : "all shown events");
    chart.update({ start, step, points, minutes: data.minutes, zoomed: Boolean(data.zoom), series });
  }

  heatmap(chart, panel, data, colors) {
    say(chart.caption, panel.unit ? `${panel.unit}, all shown events` : "all shown events");
    chart.update({ ...data.series.heats[panel.metric], minutes: data.minutes, zoomed: Boolean(data.zoom), shades: colors.ranks.slice(1) });
  }
}
