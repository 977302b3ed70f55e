// Tiles, and how the kinds of numbers are written.

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

// Which tiles there are, with label, unit and the direction that is an improvement (0: neither), is told by the
// server from the rollup's metrics; here is only how a kind of number is written.
const TEXTS = { number, percent, count };

// Beyond ten times a share in percent says less than the factor; from nothing there is none at all, and from next to
// nothing, such as the late events of the time before a first start, it says nothing.
function growth(now, before) {
  if (now === null || now === undefined || before === null || before === undefined) return "no earlier data";
  if (!before) return now ? "new" : "±0.0 %";
  const ratio = now / before - 1;
  if (Math.abs(ratio) < 0.0005) return "±0.0 %";
  if (ratio >= 99) return "▲ > ×100";
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
