// The front page: stocks as they are, orders as they are placed, and one's own. No request goes anywhere
// but to where the page came from.
"use strict";

const SHOWN_MAX = 200; // rows of stocks at a time; the search finds the others
const LATEST_MAX = 20;
const MINE_MAX = 100;
const READS_MAX = 4; // looks at stocks at a time
const READ_PAUSE = 1000; // ms from one look to the next in its place
const ATTEMPTS_MAX = 4; // of an order whose answer did not come
const MINE = "bazaar.orders";

const $ = (id) => document.getElementById(id);
const stocks = new Map(); // by name: { name, price, quantity }
const rows = new Map(); // by name: the cells that are shown
const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const count = new Intl.NumberFormat();

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

let readingAll;

// One at a time, whoever asks for it.
function readStocks() {
  readingAll ??= readAll().then((isDone) => {
    readingAll = undefined;
    if (!isDone) setTimeout(readStocks, 3000);
  });
}

// Whether it could.
async function readAll() {
  try {
    const found = [];
    let next = "/stocks";
    while (next) {
      const page = await ask(next);
      found.push(...page.data);
      next = page.next;
    }
    stocks.clear();
    for (const stock of found) stocks.set(stock.name, stock);
    tell($("market-error"));
    showStocks();
    return true;
  } catch (error) {
    tell($("market-error"), `The stocks cannot be shown: ${error.message}`);
    return false;
  }
}

function showStocks() {
  const wanted = $("search").value.trim().toLowerCase();
  const found = [...stocks.values()].filter(({ name }) => name.toLowerCase().includes(wanted));
  rows.clear();
  $("rows").replaceChildren(...found.slice(0, SHOWN_MAX).map(row));
  const more = found.length - SHOWN_MAX;
  $("more").textContent = found.length === 0 && stocks.size > 0
    ? `No stock has “${$("search").value.trim()}” in its name.`
    : more > 0 ? `${count.format(more)} more: search for them.` : "";
}

function row(stock) {
  const price = element("td", { class: "number" }, money.format(stock.price));
  const quantity = element("td", { class: "number" }, count.format(stock.quantity));
  const side = (type, label) => element("button", {
    type: "button", class: `side ${type}`, "aria-label": `${label} ${stock.name}`, onclick: () => openTrade(stock.name, type),
  }, label);
  rows.set(stock.name, { price, quantity });
  return element("tr", {}, element("th", { scope: "row" }, stock.name), price, quantity,
    element("td", {}, side("buy", "Buy"), side("sell", "Sell")));
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
    const isNew = !stocks.has(name);
    stocks.set(name, data);
    const shown = rows.get(name);
    if (isNew) showStocks();
    else if (shown) {
      change(shown.price, money.format(data.price));
      change(shown.quantity, count.format(data.quantity));
    }
  } catch (error) {
    if (error.status !== 404) return;
    stocks.delete(name);
    showStocks();
  }
}

function change(cell, text) {
  if (cell.textContent === text) return;
  cell.textContent = text;
  cell.classList.remove("changed");
  void cell.offsetWidth; // so that the glow begins anew
  cell.classList.add("changed");
}

// ---- orders as they are placed ----

// From now on, always: whoever was away reads the stocks anew, and need not hear of every order meanwhile.
function follow() {
  const events = new EventSource("/events");
  events.addEventListener("open", () => {
    live("live", "Live");
    readStocks(); // what was missed, if anything was
  });
  events.addEventListener("order", (event) => {
    const order = JSON.parse(event.data);
    readAgain(order.name);
    $("latest-none").hidden = true;
    $("latest").prepend(line(order));
    while ($("latest").children.length > LATEST_MAX) $("latest").lastChild.remove();
  });
  events.addEventListener("error", () => {
    live("lost", "Not live: reconnecting");
    events.close(); // by itself it would ask for all that was missed
    if (stocks.size === 0) readStocks();
    setTimeout(follow, 3000 + 4000 * Math.random());
  });
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

function mine() {
  try {
    const numbers = JSON.parse(localStorage.getItem(MINE)) ?? [];
    return numbers.filter(Number.isSafeInteger).slice(0, MINE_MAX);
  } catch {
    return [];
  }
}

function keepMine(numbers) {
  try {
    localStorage.setItem(MINE, JSON.stringify(numbers.slice(0, MINE_MAX)));
  } catch { /* a browser that keeps nothing: they are shown until the page is left */ }
}

async function showMine() {
  for (const number of mine()) {
    try {
      const { data } = await ask(`/orders/${number}`);
      $("mine").append(line(data));
    } catch { /* of another bazaar at this address, or not to be had now */ }
    noneOfMine();
  }
}

function noneOfMine() {
  const none = $("mine").children.length === 0;
  $("mine-none").hidden = !none;
  $("forget").hidden = none;
}

// ---- a trade ----

let trading; // the stock's name
const keys = new Map(); // of orders of which nobody has said yet what became of them, by what is sent: kept until somebody does

function openTrade(name, type) {
  trading = name;
  $("order").elements.type.value = type;
  $("quantity").value = "1";
  tell($("trade-error"));
  showCost();
  $("trade").showModal();
  $("quantity").select();
}

function showCost() {
  const stock = stocks.get(trading);
  const quantity = Number($("quantity").value);
  const type = $("order").elements.type.value;
  $("trade-title").textContent = `${type === "buy" ? "Buy" : "Sell"} ${trading}`;
  $("place").textContent = type === "buy" ? "Buy" : "Sell";
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
  const type = $("order").elements.type.value;
  const quantity = Number($("quantity").value);
  if (!Number.isSafeInteger(quantity) || quantity < 1) {
    tell($("trade-error"), "The number of shares must be a whole number from 1 on.");
    $("quantity").focus();
    return;
  }
  const name = trading;
  const body = JSON.stringify({ name, type, quantity });
  if (!keys.has(body)) keys.set(body, newKey());
  tell($("trade-error"));
  $("place").disabled = true;
  try {
    const { data } = await send(body, keys.get(body));
    keys.delete(body);
    const number = data.transaction_number;
    keepMine([number, ...mine()]);
    $("mine").prepend(line({ number, name, type, quantity }));
    noneOfMine();
    readAgain(name);
    if (trading === name) $("trade").close();
    say(`${type === "buy" ? "Bought" : "Sold"} ${count.format(quantity)} ${name}: order no. ${number}`);
  } catch (error) {
    if (error.known) keys.delete(body);
    tell($("trade-error"), error.known
      ? `${error.message}.`.replace("..", ".")
      : `${error.message} Whether the order was placed is not known yet. Try again: it is placed once.`);
  } finally {
    $("place").disabled = false;
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
    const term = (name, text) => [element("dt", {}, name), element("dd", {}, text)];
    const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => element("div", { class: "operation" },
        element("h3", {}, element("code", {}, element("span", { class: "verb" }, method.toUpperCase()), path)),
        element("p", {}, operation.summary, operation.description ? `. ${operation.description}` : ""),
        element("dl", {},
          ...(operation.parameters ?? []).flatMap(({ name, description }) => term(name, description)),
          ...Object.entries(operation.responses).flatMap(([code, response]) => term(code, resolve(response).description))))));
    $("operations").replaceChildren(...operations);
  } catch (error) {
    $("operations").replaceChildren(element("p", { class: "notice" }, `The description cannot be shown: ${error.message}`));
  }
}

$("search").addEventListener("input", showStocks);
$("order").addEventListener("submit", place);
$("order").addEventListener("input", showCost);
$("cancel").addEventListener("click", () => $("trade").close());
$("reference").addEventListener("toggle", showReference);
$("forget").addEventListener("click", () => {
  keepMine([]);
  $("mine").replaceChildren();
  noneOfMine();
});
showMine();
follow();
