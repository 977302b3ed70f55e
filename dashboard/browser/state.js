// What stands at the top of every page: how fresh the data are, and which alerts fire.

const span = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${+seconds.toFixed(1)} s`);

const THEME = [
  "text", "background", "secondary-background", "primary", "border", "gray", "green", "orange", "red", "green-text", "orange-text", "red-text",
].map((name) => `--st-${name}-color`).concat("--st-font");
const PLACES = { badge: ".lh-badge-place", alerts: ".lh-alerts-place" };

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
    this.slow = make("p", "lh-slow", this.root);
    this.problem = make("p", "lh-problem", this.root);
    this.problem.setAttribute("role", "alert");
  }

  update(data, shown, ms) {
    const state = ms === null ? "waiting" : ms < LATE_MS ? "fresh" : ms < STALE_MS ? "late" : "stale";
    const word = { waiting: "Waiting", fresh: "Live", late: "Late", stale: "Stale" }[state];
    set(this.pill, "data-state", state);
    set(this.pill, "data-paused", data.paused);
    say(this.state, data.paused ? "Paused" : word);
    say(this.text, ms === null ? "no commit yet" : `${age(ms)} behind`);
    say(this.version, shown.version === undefined || shown.version < 0 ? "" : `version ${count(shown.version)}`);
    const slow = !data.paused && data.every_s > data.chosen_s;
    say(this.slow, slow ? `Every ${span(data.every_s)} instead of ${span(data.chosen_s)}: the machine is busy, with ${count(data.viewers)} ${data.viewers === 1 ? "viewer" : "viewers"}.` : "");
    this.slow.hidden = !slow;
    say(this.problem, data.problem ? `The table cannot be read; showing the last state. ${data.problem}` : "");
    this.problem.hidden = !data.problem;
    const seen = frame();
    set(seen, "data-state", state);
    set(seen, "data-age-ms", ms === null ? "" : Math.round(ms));
    set(seen, "data-every-s", data.every_s);
  }
}

const STATES = { firing: "fires", pending: "pends", resolved: "is over" };

class Alerts {
  constructor(parent) {
    this.root = make("div", "lh-alerts", parent);
    this.button = make("button", "lh-badge lh-alerts-button", this.root);
    this.button.type = "button";
    this.button.id = "lh-alerts";
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => this.open(this.list.hidden));
    make("i", "lh-dot", this.button);
    this.text = make("strong", "", this.button);
    this.list = make("div", "lh-alerts-list", this.root);
    this.list.hidden = true;
    this.list.setAttribute("role", "region");
    this.list.setAttribute("aria-label", "Alerts");
    this.items = make("ul", "", this.list);
    this.note = make("p", "lh-muted", this.list);
    this.away = (event) => {
      if (!this.root.isConnected) document.removeEventListener("pointerdown", this.away);
      else if (!this.root.contains(event.target)) this.open(false);
    };
    document.addEventListener("pointerdown", this.away);
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.list.hidden) return;
      event.stopPropagation();
      this.open(false);
      this.button.focus();
    });
  }

  open(wanted) {
    this.list.hidden = !wanted;
    set(this.button, "aria-expanded", wanted);
  }

  update(data, now) {
    this.root.hidden = !data.rules;
    const of = (state) => data.alerts.filter((alert) => alert.state === state);
    const [firing, pending] = [of("firing"), of("pending")];
    const grave = firing.some((alert) => alert.severity === "critical");
    set(this.button, "data-state", firing.length ? (grave ? "stale" : "late") : pending.length ? "late" : "calm");
    const many = (n, one, more) => `${n} ${n === 1 ? one : more}`;
    const text = firing.length ? many(firing.length, "alert fires", "alerts fire") : pending.length ? many(pending.length, "alert pends", "alerts pend") : "No alert";
    say(this.text, text);
    const known = JSON.stringify(data.alerts);
    if (known !== this.known) {
      this.known = known;
      this.items.replaceChildren();
      this.ages = data.alerts.map((alert) => this.item(alert));
    }
    data.alerts.forEach((alert, i) => say(this.ages[i], `${STATES[alert.state]}, since ${age(Math.max(0, now - alert.since_ms))}${alert.silenced ? ", silenced" : ""}`));
    say(this.note, data.problem || (data.alerts.length ? "" : `${many(data.rules, "rule is", "rules are")} watched; none fires or fired within a day.`));
    this.note.hidden = !this.note.textContent;
  }

  item(alert) {
    const item = make("li", "", this.items);
    set(item, "data-state", alert.state);
    set(item, "data-severity", alert.severity);
    const head = make("p", "lh-alert-head", item);
    make("i", "lh-dot", head);
    make("strong", "", head, alert.name);
    make("span", "lh-muted", head, alert.severity);
    const since = make("span", "lh-alert-age", head);
    make("p", "", item, alert.summary);
    const book = make("p", "lh-muted", item, "Runbook: ");
    if (/^https?:\/\//.test(alert.runbook)) {
      const a = make("a", "", book, alert.runbook);
      Object.assign(a, { href: alert.runbook, target: "_blank", rel: "noopener noreferrer" });
    } else make("code", "", book, alert.runbook);
    return since;
  }
}

// Both parts, wherever the open page has places for them; they age on between two messages, also without a connection.
const state = {
  shown: { max_event_ms: null, version: undefined },
  data: null,
  offsets: [],
  start() {
    setInterval(() => this.tick(), 100);
  },
  update(data) {
    this.data = data;
    // A message can only arrive late, so of the last few the largest offset is the truest clock.
    this.offsets = [...this.offsets.slice(-39), data.server_ms - performance.now()];
    set(frame(), "data-server-ms", data.server_ms);
    this.tick();
  },
  // Of a page that shows no hot table, only its alerts.
  alert(parent, alerts) {
    this.dress(parent);
    this.data = { alerts };
    this.tick();
  },
  // Streamlit gives its colours to components alone, and the places at the top lie outside of any.
  dress(root) {
    const place = document.querySelector(".st-key-head");
    if (!place) return;
    const style = getComputedStyle(root);
    for (const name of THEME) place.style.setProperty(name, style.getPropertyValue(name));
  },
  find(kind, Kind) {
    const place = document.querySelector(PLACES[kind]);
    return place ? part(place, Kind) : null;
  },
  tick() {
    if (!this.data) return;
    const offset = this.offsets.length ? Math.max(...this.offsets) : Date.now() - performance.now();
    const now = performance.now() + offset;
    if (this.data.server_ms !== undefined) {
      const newest = this.shown.max_event_ms ?? this.data.max_event_ms;
      this.find("badge", Badge)?.update(this.data, this.shown, newest === null ? null : Math.max(0, now - newest));
    }
    this.find("alerts", Alerts)?.update(this.data.alerts, now);
  },
};
