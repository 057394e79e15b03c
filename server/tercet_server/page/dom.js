// Small pieces that everything on the page is built from.

export const $ = id => document.getElementById(id);

/** An element: its tag with classes ("td.number"), its children (texts or nodes) and its attributes. */
export function make(tag, children = [], attributes = {}) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) if (value != null) node.setAttribute(key, value);
  node.append(...[children].flat().filter(child => child != null));
  return node;
}

/** A coloured cell: `share` of its colour from 0 to 1, and which colour by the sign of `value`. */
export function tint(node, value, most) {
  const share = most > 0 ? Math.min(1, Math.abs(value) / most) : 0;
  node.classList.add(value < 0 ? "down" : "up");
  node.style.setProperty("--share", share.toFixed(3));
  return share;
}

export function bar(share) {
  const filled = make("i");
  filled.style.width = `${(100 * Math.max(0, Math.min(1, share))).toFixed(1)}%`;
  return make("span", filled, { "aria-hidden": "true" });
}

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const plain = new Intl.NumberFormat("en");
export const short = number => (number < 10 && !Number.isInteger(number) ? number.toFixed(1) : compact.format(number));
export const whole = number => plain.format(number);

export function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = size > 0 ? Math.min(units.length - 1, Math.floor(Math.log2(size) / 10)) : 0;
  const value = size / 1024 ** power;
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

export function ago(seconds) {
  if (seconds == null) return "–";
  if (seconds < 2) return "now";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  return `${Math.floor(seconds)} s ago`;
}

/** A token as people read it: the marks that tokenisers put for a blank are shown as one. */
export const readable = token => (token == null ? "?" : token.replace(/^[\u0120\u2581]/, "\u2423") || "\u2205");
