// The pages beside Live: figures, charts and tables as plain data.

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
      this.root.style.setProperty("--lh-columns", items.length > 7 ? Math.ceil(items.length / 2) : items.length);
      this.figures = items.map((item) => new Figure(this.root, item));
    }
    items.forEach((item, i) => this.figures[i].update(item));
  }
}

class Plot {
  constructor(parent, panel) {
    this.chart = new Lines(parent, { title: panel.title, unit: panel.unit, stacked: panel.stacked, height: 220 });
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
    const text = raw instanceof Uint8Array ? utf8.decode(raw) : JSON.stringify(raw);
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
