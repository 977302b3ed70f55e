// Draws the pages' own parts. The files of this folder are one script, loaded once per page in the order that
// components.py names; the server then sends only data.
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

const utf8 = new TextDecoder();
const decode = (data) => (data instanceof Uint8Array ? JSON.parse(utf8.decode(data)) : data);

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
