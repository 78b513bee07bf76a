// The front page: stocks as they are, orders as they are placed, and one's own. No request goes anywhere
// but to where the page came from.
"use strict";

const SHOWN_MAX = 200; // rows of stocks at a time; the search finds the others
const LISTED_MAX = 1000; // stocks that are asked for at a time
const LOOK_PAUSE = 4000; // ms from one look at the list to the next, and half as much again by chance
const LATEST_MAX = 20;
const MINE_MAX = 100;
const READS_MAX = 4; // looks at stocks, or orders, at a time
const READ_PAUSE = 1000; // ms from one look at a stock to the next in its place
const ATTEMPTS_MAX = 4; // of an order whose answer did not come
const MINE = "bazaar.orders";

const $ = (id) => document.getElementById(id);
const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const count = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 2 });

// In a table there is no room for more.
const isNarrow = matchMedia("(max-width: 30rem)").matches;
const inCell = (format, value) => (value < (isNarrow ? 1e5 : 1e7) ? format : short).format(value);

// An element with attributes and children. Text is only ever text.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// ---- asking ----

// What the server says, or an error in its words. `known` tells whether it answered at all.
async function ask(target, options = {}) {
  let answer;
  let body;
  try {
    answer = await fetch(target, { ...options, signal: AbortSignal.timeout(15_000) });
    body = await answer.json();
  } catch {
    throw Object.assign(new Error("Bazaar does not answer."), { known: false });
  }
  if (answer.ok) return body;
  const said = body?.error?.message ?? `It answers ${answer.status}.`;
  const { status } = answer;
  const words = said.charAt(0).toUpperCase() + said.slice(1);
  throw Object.assign(new Error(words), { known: status < 500, status });
}

function tell(place, message) {
  place.hidden = !message;
  place.textContent = message ?? "";
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// ---- stocks ----

let stocks = new Map(); // by name, in the order of the list: { name, price, quantity }
const rows = new Map(); // by name, what is shown: { line, price, quantity }
const answered = new Set(); // names that were asked for by themselves while a list was on its way: newer than what it says
let isListed = false; // all of them were there once

// Whether a name comes behind another one in the list, which is in the order of UTF-8's bytes: that of code points.
function isBehind(name, other) {
  let at = 0;
  while (at < name.length && name[at] === other[at]) at += 1;
  return at < name.length && !(name.codePointAt(at) < other.codePointAt(at));
}

function setStocks(found) {
  found.sort((one, other) => (isBehind(one.name, other.name) ? 1 : -1));
  stocks = new Map(found.map((stock) => [stock.name, stock]));
}

// Takes in a page of the list, from behind that name on; returns its last name, where there are more.
async function readPage(after, limit) {
  answered.clear();
  const { data, next } = await ask(`/stocks?limit=${limit}${after === undefined ? "" : `&after=${encodeURIComponent(after)}`}`);
  const last = next && data.at(-1)?.name;
  const isOfPage = (name) => (after === undefined || isBehind(name, after)) && (last === undefined || !isBehind(name, last));
  const others = [...stocks.values()].filter(({ name }) => answered.has(name) || !isOfPage(name));
  setStocks([...others, ...data.filter(({ name }) => !answered.has(name))]);
  showStocks();
  return last;
}

// The whole list: first what is shown at once, for whoever has a slow network.
async function readList() {
  let last = await readPage(undefined, SHOWN_MAX);
  while (last !== undefined) last = await readPage(last, LISTED_MAX);
  isListed = true;
  showStocks();
}

let lookedUpTo; // the name that the last look ended at; undefined: the end of the list

// Looks again at some of what is shown, and next time at what comes behind that.
async function lookAgain() {
  const names = [...stocks.keys()];
  const shown = [...rows.keys()];
  const first = shown.find((name) => lookedUpTo !== undefined && isBehind(name, lookedUpTo)) ?? shown[0];
  const after = first === undefined ? lookedUpTo : names[names.indexOf(first) - 1];
  lookedUpTo = await readPage(after, SHOWN_MAX);
}

let isLooking = false;
let isStale = true; // the whole list is to be read
let wake = () => {};

// While the page is seen. Prices, restocks and new stocks are no orders, which `follow` hears of.
async function keepLooking() {
  if (isLooking) return;
  isLooking = true;
  while (!document.hidden) {
    const wasStale = isStale;
    isStale = false;
    try {
      await (wasStale ? readList() : lookAgain());
      tell($("market-error"));
      if (isStale) continue;
    } catch (error) {
      isStale ||= wasStale;
      tell($("market-error"), stocks.size > 0
        ? `What is shown may be old: ${error.message}`
        : `The stocks cannot be shown: ${error.message}`);
    }
    delete document.body.dataset.state;
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, LOOK_PAUSE * (1 + Math.random() / 2));
    });
  }
  isLooking = false;
}

function showStocks() {
  if (stocks.size === 0 && !isListed) return;
  const searched = $("search").value.trim();
  const wanted = searched.toLowerCase();
  const found = [...stocks.values()].filter(({ name }) => name.toLowerCase().includes(wanted));
  const before = new Map(rows);
  rows.clear();
  for (const stock of found.slice(0, SHOWN_MAX)) rows.set(stock.name, row(stock, before.get(stock.name)));
  const lines = [...rows.values()].map(({ line }) => line);
  const shown = $("rows").children;
  if (lines.length !== shown.length || lines.some((line, at) => line !== shown[at])) {
    const focused = $("rows").contains(document.activeElement) && document.activeElement;
    $("rows").replaceChildren(...lines);
    if (focused?.isConnected) focused.focus({ preventScroll: true });
  }
  const more = found.length - lines.length;
  $("more").textContent = !isListed ? "Loading the other stocks…"
    : more > 0 ? `${count.format(more)} more: search for them.`
    : found.length > 0 ? ""
    : stocks.size > 0 ? `No stock has “${searched}” in its name.` : "No stock is listed.";
  if (stocks.size > 0) delete document.body.dataset.state;
  if ($("trade").open) showCost();
}

// The row of a stock: the one that is there, or a new one.
function row({ name, price, quantity }, there) {
  const cells = [inCell(money, price), inCell(count, quantity)];
  if (there) {
    change(there.price, cells[0]);
    change(there.quantity, cells[1]);
    return there;
  }
  const made = cells.map((text) => element("td", { class: "number" }, text));
  const side = (type, label) => element("button", {
    type: "button", class: `side ${type}`, "aria-label": `${label} ${name}`, onclick: () => openTrade(name, type),
  }, label);
  const line = element("tr", {}, element("th", { scope: "row" }, name), ...made,
    element("td", {}, side("buy", "Buy"), side("sell", "Sell")));
  return { line, price: made[0], quantity: made[1] };
}

// Looks again at stocks that were traded: once, and a few a second, however often that was.
const toRead = new Set();
let reading = 0;

function readAgain(name) {
  toRead.add(name);
  while (reading < READS_MAX && toRead.size > 0) {
    const [next] = toRead;
    toRead.delete(next);
    reading += 1;
    Promise.all([readStock(next), pause(READ_PAUSE)]).finally(() => {
      reading -= 1;
      const [other] = toRead;
      if (other !== undefined) readAgain(other);
    });
  }
}

async function readStock(name) {
  try {
    const { data } = await ask(`/stocks/${encodeURIComponent(name)}`);
    if (stocks.has(name)) stocks.set(name, data);
    else setStocks([...stocks.values(), data]);
  } catch (error) {
    if (error.status !== 404) return;
    stocks.delete(name);
  }
  answered.add(name);
  showStocks();
}

function change(cell, text) {
  if (cell.textContent === text) return;
  cell.textContent = text;
  cell.classList.remove("changed");
  void cell.offsetWidth; // so that the glow begins anew
  cell.classList.add("changed");
}

// ---- orders as they are placed ----

let events; // the stream, while the page is seen: browsers have few connections to a server, for all its pages
let returning;

// From now on, always: whoever was away looks at the stocks anew, and need not hear of every order meanwhile.
function follow() {
  if (document.hidden || events) return;
  live("connecting", "Connecting");
  const stream = new EventSource("/events");
  events = stream;
  stream.addEventListener("open", () => {
    live("live", "Live");
    wake(); // to look at what was missed, if anything was
  });
  stream.addEventListener("order", (event) => {
    const order = JSON.parse(event.data);
    readAgain(order.name);
    $("latest-none").hidden = true;
    $("latest").prepend(line(order));
    while ($("latest").children.length > LATEST_MAX) $("latest").lastChild.remove();
  });
  stream.addEventListener("error", () => {
    const isRefused = stream.readyState === EventSource.CLOSED;
    live("lost", "Not live: reconnecting");
    leave(); // by itself it would ask for all that was missed
    returning = setTimeout(follow, 3000 + 4000 * Math.random());
    if (isRefused) sayWhy();
  });
}

// Why there is no stream of events, which a stream does not say.
async function sayWhy() {
  const asking = new AbortController();
  try {
    const answer = await fetch("/events", { signal: asking.signal, cache: "no-store" });
    if (answer.ok) return;
    const { error } = await answer.json();
    if (!events) live("lost", `Not live: ${error.message}`);
  } catch {
    // Then it is not known.
  } finally {
    asking.abort(); // where it is a stream by now
  }
}

function leave() {
  clearTimeout(returning);
  events?.close();
  events = undefined;
}

function seen() {
  if (document.hidden) {
    leave();
    return;
  }
  isStale = true;
  wake();
  keepLooking();
  follow();
}

function live(state, text) {
  $("live").dataset.state = state;
  $("live").textContent = text;
}

function line({ number, name, type, quantity }) {
  return element("li", {},
    element("span", { class: type }, type === "buy" ? "Bought" : "Sold"),
    element("span", { class: "what" }, `${count.format(quantity)} ${name}`),
    element("span", { class: "no" }, `no. ${number}`));
}

// ---- one's own orders ----

const isOrder = (it) => Number.isSafeInteger(it?.number) && typeof it.name === "string" && ["buy", "sell"].includes(it.type) && Number.isSafeInteger(it.quantity);

function mine() {
  try {
    const orders = JSON.parse(localStorage.getItem(MINE)) ?? [];
    return orders.filter(isOrder).slice(0, MINE_MAX);
  } catch {
    return [];
  }
}

function keepMine(orders) {
  try {
    localStorage.setItem(MINE, JSON.stringify(orders.slice(0, MINE_MAX)));
  } catch { /* a browser that keeps nothing: they are shown until the page is left */ }
}

// What is kept is there at once. Where the order of that number is not there, or another one, it was of another bazaar at this
// address, and is forgotten.
async function showMine() {
  const toCheck = mine().map((order) => ({ order, place: line(order) }));
  $("mine").append(...toCheck.map(({ place }) => place));
  noneOfMine();
  const checkSome = async () => {
    for (let next = toCheck.shift(); next; next = toCheck.shift()) {
      if (await isThere(next.order)) continue;
      const { number } = next.order;
      keepMine(mine().filter((order) => order.number !== number));
      next.place.remove();
      noneOfMine();
    }
  };
  await Promise.all(Array.from({ length: READS_MAX }, checkSome));
}

// Whether an order is in the journal; as long as nobody says so it is taken to be.
async function isThere(order) {
  try {
    const { data } = await ask(`/orders/${order.number}`);
    return ["name", "type", "quantity"].every((field) => data[field] === order[field]);
  } catch (error) {
    return error.status !== 404;
  }
}

function noneOfMine() {
  const none = $("mine").children.length === 0;
  $("mine-none").hidden = !none;
  $("forget").hidden = none;
}

// ---- a trade ----

let trading; // what the dialog is about: { name }, another one each time that it is opened
let isSending = false;
const keys = new Map(); // of orders of which nobody has said yet what became of them, by what is sent: kept until somebody does

function openTrade(name, type) {
  trading = { name };
  $("order").elements.type.value = type;
  $("quantity").value = "1";
  tell($("trade-error"));
  showCost();
  $("trade").showModal();
  $("quantity").select();
  readAgain(name);
}

function showCost() {
  const stock = stocks.get(trading.name);
  const quantity = Number($("quantity").value);
  const label = $("order").elements.type.value === "buy" ? "Buy" : "Sell";
  $("trade-title").textContent = `${label} ${trading.name}`;
  $("place").textContent = isSending ? "Sending…" : label;
  $("place").className = label.toLowerCase();
  $("place").disabled = isSending;
  $("trade-stock").textContent = stock ? `${money.format(stock.price)} a share, ${count.format(stock.quantity)} to be had` : "";
  $("cost").textContent = stock && quantity > 0 ? `${money.format(stock.price * quantity)} in all` : "";
}

function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID(); // only where the page is secure
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function place(event) {
  event.preventDefault();
  if (isSending) return;
  const order = trading;
  const { name } = order;
  const type = $("order").elements.type.value;
  const quantity = Number($("quantity").value);
  if (!Number.isSafeInteger(quantity) || quantity < 1) {
    tell($("trade-error"), "The number of shares must be a whole number from 1 on.");
    $("quantity").focus();
    return;
  }
  const body = JSON.stringify({ name, type, quantity });
  if (!keys.has(body)) keys.set(body, newKey());
  tell($("trade-error"));
  isSending = true;
  showCost();
  try {
    const { data } = await send(body, keys.get(body));
    keys.delete(body);
    const number = data.transaction_number;
    const own = { number, name, type, quantity };
    keepMine([own, ...mine()]);
    $("mine").prepend(line(own));
    noneOfMine();
    readAgain(name);
    if (trading === order) $("trade").close();
    say(`${type === "buy" ? "Bought" : "Sold"} ${count.format(quantity)} ${name}: order no. ${number}`);
  } catch (error) {
    if (error.known) keys.delete(body);
    const words = error.known
      ? `${error.message}.`.replace("..", ".")
      : `${error.message} Whether the order was placed is not known yet. Try again: it is placed once.`;
    if (trading === order && $("trade").open) tell($("trade-error"), words);
    else say(`${name}: ${words}`);
  } finally {
    isSending = false;
    showCost();
  }
}

// Under one key the order is placed once, however often it is sent.
async function send(body, key) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await ask("/orders", {
        method: "POST", body, headers: { "content-type": "application/json", "idempotency-key": key },
      });
    } catch (error) {
      if (error.known || attempt === ATTEMPTS_MAX) throw error;
      await pause(400 * 2 ** attempt);
    }
  }
}

let saying;

function say(text) {
  tell($("said"), text);
  clearTimeout(saying);
  saying = setTimeout(() => tell($("said")), 5000);
}

// ---- the API ----

async function showReference() {
  if (!$("reference").open || $("operations").children.length > 0) return;
  try {
    const api = await ask("/openapi.json");
    const resolve = (it) => (it?.$ref ? it.$ref.split("/").slice(1).reduce((at, step) => at[step], api) : it);
    const marked = (text) => text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));
    const terms = (entries) => element("dl", {},
      ...entries.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, ...marked(text))]));
    const shared = {}; // what many requests are answered alike, by status
    const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { summary, description, parameters = [], responses }]) => {
        const answers = Object.entries(responses);
        for (const [code, { $ref }] of answers) if ($ref) shared[code] = resolve({ $ref }).description;
        return element("div", { class: "operation" },
          element("h3", {}, element("code", {}, element("span", { class: "verb" }, method.toUpperCase()), path)),
          element("p", {}, ...marked(description ? `${summary}. ${description}` : summary)),
          terms([
            ...parameters.map(resolve).map((parameter) => [parameter.name, parameter.description]),
            ...answers.filter(([, { $ref }]) => !$ref).map(([code, answer]) => [code, answer.description]),
          ]));
      }));
    operations.push(element("div", { class: "operation" }, element("h3", {}, "All of these"), terms(Object.entries(shared))));
    $("operations").replaceChildren(...operations);
  } catch (error) {
    $("operations").replaceChildren(element("p", { class: "notice" }, `The description cannot be shown: ${error.message}`));
  }
}

$("search").addEventListener("input", () => {
  lookedUpTo = undefined;
  showStocks();
});
$("order").addEventListener("submit", place);
$("order").addEventListener("input", showCost);
$("cancel").addEventListener("click", () => $("trade").close());
$("reference").addEventListener("toggle", showReference);
$("forget").addEventListener("click", () => {
  keepMine([]);
  $("mine").replaceChildren();
  noneOfMine();
});
document.addEventListener("visibilitychange", seen);
showMine();
seen();
