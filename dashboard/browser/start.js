// What the server calls, and the keys.

const parts = new WeakMap();

function part(parent, Kind) {
  let found = parts.get(parent);
  if (!found || !found.root.isConnected) {
    found = new Kind(parent);
    parts.set(parent, found);
  }
  return found;
}

let board = null;

const lakehouse = {
  board: (parent, data, act) => {
    board = part(parent, Board);
    board.update(data, act);
  },
  panels: (parent, data) => part(parent, Panels).update(data),
  alerts: (parent, data) => state.alert(parent, decode(data)),
};

const KEYS = [
  ["P", "pause, and go on"],
  ["1 2 3 4", "range"],
  ["drag over a chart", "zoom to that stretch"],
  ["← → on a chart", "move; with Shift choose, Enter zooms"],
  ["Esc", "back to the newest data"],
  ["A", "alerts"],
  ["?", "this list"],
];

function help() {
  const known = document.getElementById("lh-keys");
  if (known) return void known.remove();
  const place = document.querySelector(".lh-state");
  if (!place) return undefined;
  const dialog = make("dialog", "lh-keys", place);
  dialog.id = "lh-keys";
  make("h2", "", dialog, "Keys");
  const list = make("dl", "", dialog);
  for (const [key, what] of KEYS) {
    make("dt", "", list, key);
    make("dd", "", list, what);
  }
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", () => dialog.close());
  dialog.showModal();
  return undefined;
}

// One key each for what is done again and again; never while somebody writes.
function shortcut(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, [contenteditable]")) return;
  if (event.key === "p") document.querySelector(".st-key-pause input")?.click();
  if (event.key === "a") document.getElementById("lh-alerts")?.click();
  if (event.key === "?") help();
  if (event.key === "Escape" && board?.root.isConnected) board.unzoom();
  const place = "1234".indexOf(event.key);
  if (place >= 0) document.querySelectorAll(".st-key-range button")[place]?.click();
}

export default function start() {
  if (window.lakehouse) return;
  document.addEventListener("keydown", shortcut);
  state.start();
  window.lakehouse = lakehouse;
  window.dispatchEvent(new Event("lakehouse:ready"));
}
