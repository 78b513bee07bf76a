// Elements, and how one tree of them takes another's place. Text is only ever text.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) made.append(child instanceof Node ? child : String(child));
  }
  return made;
}

// An element of HTML. What is `undefined`, `null` or `false` is left out.
export const h = (name, attributes, ...children) => filled(document.createElement(name), attributes, children);

// An element of SVG.
export const g = (name, attributes, ...children) => filled(document.createElementNS(SVG, name), attributes, children);

// Has a place show these children. What is there already stays, with its focus, its selection and what people have opened.
export function show(place, ...children) {
  const wanted = document.createElement("div");
  filled(wanted, {}, children);
  patchChildren(place, wanted);
}

const key = (node) => (node.nodeType === 1 ? node.getAttribute("data-key") : null);
const isAlike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName && key(one) === key(other);

function patchChildren(from, to) {
  const keyed = new Map();
  for (const child of from.childNodes) if (key(child) !== null) keyed.set(key(child), child);
  let at = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const known = key(wanted) === null ? undefined : keyed.get(key(wanted));
    keyed.delete(key(wanted)); // it has its place: another of that key is another one
    if (known && known !== at && isAlike(known, wanted)) {
      from.insertBefore(known, at);
      at = known;
    }
    if (at && isAlike(at, wanted)) {
      patch(at, wanted);
      at = at.nextSibling;
    } else {
      from.insertBefore(wanted, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function patch(from, to) {
  if (from.nodeType === 3) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !isPeoples(from, name)) from.removeAttribute(name);
  }
  for (const { name, value } of [...to.attributes]) {
    if (from.getAttribute(name) !== value && !isPeoples(from, name)) from.setAttribute(name, value);
  }
  if (from.hasAttribute("data-own")) return; // what is in it is filled elsewhere
  patchChildren(from, to);
}

// What people have opened stays so.
const isPeoples = (node, name) => (name === "open" && node.nodeName === "DETAILS") || name === "style";

// ---- in words ----

const language = undefined;
const whole = new Intl.NumberFormat(language);
const three = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });

export const count = (value) => (value === undefined || value === null ? "–" : whole.format(Math.round(value)));

export function rate(perSecond) {
  if (perSecond === undefined) return "–";
  if (perSecond >= 10_000) return `${three.format(perSecond / 1000)}k`;
  if (perSecond >= 100) return whole.format(Math.round(perSecond));
  if (perSecond >= 10) return perSecond.toFixed(1);
  if (perSecond === 0) return "0";
  return perSecond < 0.01 ? "< 0.01" : perSecond.toFixed(2);
}

export function share(part) {
  if (part === undefined || Number.isNaN(part)) return "–";
  const percent = part * 100;
  if (percent === 0 || percent === 100) return `${percent} %`;
  if (percent > 99.9) return "> 99.9 %";
  if (percent < 0.1) return "< 0.1 %";
  return `${percent.toFixed(1)} %`;
}

// How long, in a unit in which it is short.
export function time(seconds) {
  if (seconds === undefined || seconds === null || Number.isNaN(seconds)) return "–";
  if (seconds === Infinity) return "> 10 s";
  if (seconds === 0) return "0 s";
  // Each up to where it would be rounded to the next.
  if (seconds < 0.0009995) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.00995) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  return span(Math.round(seconds));
}

// The same, of long times.
export function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} days`;
}

// Over which time lately is: no longer than the page knows of.
export const lately = (seconds) => (seconds <= 55 ? `the last ${Math.round(seconds)} s` : "the last minute");

export const ago = (seconds) => (seconds < 2 ? "just now" : `${span(seconds)} ago`);

export const short = (digest) => (digest ?? "").slice(0, 12) || "–";

// ---- pictures ----

// How a figure went, over the last minute: `undefined` where it is not known.
export function spark(values, { width = 120, height = 28, kind = "" } = {}) {
  const known = values.filter((value) => value !== undefined && Number.isFinite(value));
  const most = Math.max(...known, 0) || 1;
  const x = (place) => (width - 2) * (place / Math.max(values.length - 1, 1)) + 1;
  const y = (value) => height - 2 - (height - 5) * (value / most);
  let line = "";
  let isOn = false;
  values.forEach((value, place) => {
    const isKnown = value !== undefined && Number.isFinite(value);
    if (isKnown) line += `${isOn ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}${isOn ? "" : "h.01"}`; // one alone is a dot
    isOn = isKnown;
  });
  const first = values.findIndex((value) => value !== undefined);
  const isLine = known.length > 1 && !line.slice(1).includes("M");
  const area = isLine ? `${line}L${x(values.length - 1).toFixed(1)} ${height - 1}L${x(first).toFixed(1)} ${height - 1}Z` : "";
  return g("svg", { class: `spark ${kind}`, viewBox: `0 0 ${width} ${height}`, width, height, preserveAspectRatio: "none", "aria-hidden": "true" },
    g("path", { class: "axis", d: `M1 ${height - 1}H${width - 1}` }), g("path", { class: "area", d: area }), g("path", { class: "line", d: line }));
}
