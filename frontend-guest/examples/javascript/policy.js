// The default policy of Bazaar's front end, in JavaScript: the same routes, checks, messages,
// caching and elections as `frontend-guest/src` has in Rust. Edit, build, push: see README.md.
//
// A policy is a pure function over values. It does no I/O and keeps nothing between calls but its
// configuration: Bazaar may throw an instance away at any time, and every thread has its own. What it throws,
// other than an `ApiError`, is a failure: the last good version decides in its place.
//
// The world is `wit/policy.wit`. Its names are camelCase here, a variant is `{ tag, val }`, an
// enum is a string, an absent option is `null`, a `list<u8>` (the value of a request's header too)
// is a `Uint8Array`, and a `u64` is a number. Numbers past 2^53 - 1
// are not exact in JavaScript; this policy refuses them where clients send them, and fails
// rather than show a client a wrong one.

const NAME_BYTES_MAX = 64;
const KEY_BYTES_MAX = 128;
// So that the longest is read in a small part of the 50 ms that a decision may take.
const ORDER_BYTES_MAX = 12 * 1024;
const ORDER_NESTING_MAX = 32;
// Stocks on a page: of a request that does not say, and at most. A page has fewer where that many
// would take JavaScript more than a small part of those 50 ms.
const LIMIT_DEFAULT = 1000;
const LIMIT_MAX = 10_000;
const LISTED_MAX = 1000;
// Orders that a replica may lack and still lead at once: fetched in some 10 ms.
const ORDERS_BEHIND_MAX = 4096;
// Within the freshness that is asked for. Orders never change; this only bounds memory.
const STOCK_KEEP_MS = 60_000;
const ORDER_KEEP_MS = 3_600_000;
// For caches in front of Bazaar. Of the rest the host says that it is not to be kept, or only with
// a question before each use.
const ORDER_CACHE_CONTROL = ["cache-control", "public, max-age=31536000, immutable"];

// ---- the four functions of the world ----

export const policy = {
  // Takes the configuration that an operator gave, a Uint8Array of at most 64 KiB, and says what the
  // policy is. Called once, before anything else: what it makes of a configuration may be kept in a
  // variable of the module. A string that is thrown says what is wrong with it. This policy has none.
  configure(config) {
    if (config.length > 0) throw "this policy takes no configuration";
    return {
      name: "javascript",
      version: "0.1.0",
      headers: ["idempotency-key"],
      connection: false,
      cache: { stocksMax: 10_000, ordersMax: 100_000, eviction: "lru" },
      onFailure: "last-good",
      buckets: [],
      counters: [],
      replyHeaders: [],
    };
  },

  // What to do about a request: route it, validate it, and read or trade.
  onRequest(request) {
    try {
      return decide(route(request));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return decide({ tag: "respond", val: error.response() });
    }
  },

  // What to do about the outcome of the action decided last: answer it.
  onOutcome(request, _memo, outcome) {
    return decide({ tag: "respond", val: render(request, outcome) });
  },

  // Who should lead, or null for as it is: a leader that works stays, else the highest id that
  // works and can lead at once takes over.
  elect(view) {
    const working = view.replicas.filter((replica) => replica.healthy && replica.reachesCatalog);
    if (working.length === 0 || working.some((replica) => replica.id === view.leader)) return null;
    const furthest = Math.max(...working.map((replica) => replica.orders));
    const able = working.filter(
      (replica) => replica.inSync || replica.orders + ORDERS_BEHIND_MAX >= furthest,
    );
    return Math.max(...able.map((replica) => replica.id));
  },
};

// A decision that needs no memo.
export function decide(action) {
  return { action, memo: new Uint8Array(), observations: [], log: [] };
}

// ---- routes ----

// Never older than what any client has already seen.
// No response of this policy depends on anything but the stock or order: its key is empty.
const LINEARIZABLE = {
  freshness: { tag: "linearizable" },
  staleOnErrorMs: 0,
  varyKey: new Uint8Array(),
};

// The action that a request asks for.
function route({ method, target, headers, body }) {
  if (method === "other") throw new ApiError(501, "no such method");
  const path = target.split(/[?#]/, 1)[0];
  const stock = path.match(/^\/stocks\/([^/]*)$/);
  const order = path.match(/^\/orders\/([^/]*)$/);
  if (stock) {
    allow(method, "get", "head");
    const name = stockName(stock[1]);
    return { tag: "read-stock", val: { name, caching: LINEARIZABLE } };
  }
  if (path === "/stocks") {
    allow(method, "get", "head");
    const { after, limit } = parsePage(target);
    return { tag: "list-stocks", val: { after, limit: Math.min(limit, LISTED_MAX) } };
  }
  if (path === "/orders") {
    allow(method, "get", "head", "post");
    if (method === "post") return { tag: "trade", val: parseOrder(headers, body ?? []) };
    const { after, limit, stock } = parseOrderPage(target);
    return { tag: "list-orders", val: { after, limit: Math.min(limit, LISTED_MAX), stock } };
  }
  if (order) {
    allow(method, "get", "head");
    const number = orderNumber(order[1]);
    return { tag: "read-order", val: { number, caching: LINEARIZABLE } };
  }
  throw new ApiError(404, "no such path");
}

function allow(method, ...allowed) {
  if (allowed.includes(method)) return;
  const list = allowed.join(", ").toUpperCase();
  throw new ApiError(405, `method not allowed, only ${list}`, ["allow", list]);
}

// A segment that is no stock's name is the name of no stock.
function stockName(segment) {
  let name;
  try {
    name = decodeURIComponent(segment);
  } catch {
    throw stockNotFound();
  }
  return checkStockName(name);
}

function checkStockName(name) {
  const bytes = utf8(name).length;
  if (bytes === 0 || bytes > NAME_BYTES_MAX || /\p{Cc}/u.test(name)) throw stockNotFound();
  return name;
}

// Which page of a list a query asks for: `limit=` and `after=`. Other parameters are ignored.
function parsePage(target) {
  const { after, limit } = parameters(target, ["after", "limit"]);
  return { after: pageName(after ?? ""), limit: pageLimit(limit ?? `${LIMIT_DEFAULT}`) };
}

// The same of orders, which has `stock=` as well.
function parseOrderPage(target) {
  const { after, limit, stock } = parameters(target, ["after", "limit", "stock"]);
  return {
    after: after === undefined ? null : pageNumber(after),
    limit: pageLimit(limit ?? `${LIMIT_DEFAULT}`),
    stock: stock === undefined ? null : pageStock(stock),
  };
}

function parameters(target, names) {
  const given = {};
  for (const parameter of query(target).split("&")) {
    const [, name, value] = parameter.match(/^([^=]*)=?(.*)$/s);
    if (!names.includes(name)) continue;
    if (name in given) throw invalidQuery(`\`${name}\` was given more than once`);
    given[name] = value;
  }
  return given;
}

function query(target) {
  return target.match(/^[^?#]*\?([^#]*)/)?.[1] ?? "";
}

// An empty name comes before all others.
function pageName(value) {
  if (value === "") return null;
  try {
    return checkStockName(decodeURIComponent(value.replaceAll("+", " ")));
  } catch {
    throw invalidQuery(
      "`after` must be the name of a stock, percent-encoded: at most 64 bytes of UTF-8 without control characters",
    );
  }
}

function pageStock(value) {
  try {
    return checkStockName(decodeURIComponent(value.replaceAll("+", " ")));
  } catch {
    throw invalidQuery(
      "`stock` must be the name of a stock, percent-encoded: 1 to 64 bytes of UTF-8 without control characters",
    );
  }
}

// No order has a number that is not exact here: after it there are none either.
function pageNumber(value) {
  const digits = pageDigits(value);
  if (digits !== "" && BigInt(digits) < 2n ** 64n) {
    return Math.min(Number(digits), Number.MAX_SAFE_INTEGER);
  }
  throw invalidQuery(
    `\`after\` must be the number of an order, an integer from 0 to ${2n ** 64n - 1n}`,
  );
}

function pageDigits(value) {
  return /^(?:[0-9]|%3[0-9])+$/.test(value) ? decodeURIComponent(value) : "";
}

function pageLimit(value) {
  const limit = Number(pageDigits(value) || NaN);
  if (limit >= 1 && limit <= LIMIT_MAX) return limit;
  throw invalidQuery(`\`limit\` must be an integer from 1 to ${LIMIT_MAX}`);
}

// A segment that is no number is the number of no order, and no bazaar has had 2^53 of them.
function orderNumber(segment) {
  const number = /^[0-9]+$/.test(segment) ? Number(segment) : NaN;
  if (!Number.isSafeInteger(number)) throw new ApiError(404, "transaction not found");
  return number;
}

// ---- an order ----

// From headers and body to a trade. Checked in this order, so that an order with several faults
// always gets the same answer: the key, the body, its fields, its type, its quantity, its stock.
function parseOrder(headers, body) {
  const idempotencyKey = parseKey(headers);
  const fields = parseJson(body);
  const name = field(fields, "name", "a string", isText);
  const side = field(fields, "type", "a string", isText);
  const what = `an integer of at most ${Number.MAX_SAFE_INTEGER}`;
  const quantity = Number(field(fields, "quantity", what, isExactInteger));
  if (side !== "buy" && side !== "sell") throw new ApiError(400, "invalid request type");
  if (quantity <= 0) throw new ApiError(404, "invalid number of stocks");
  return { name: checkStockName(name), side, quantity, idempotencyKey };
}

// The body as an object in which integers are a BigInt and other numbers NaN: `1.0` and `1e3`
// are no quantities, and none is rounded unseen.
function parseJson(body) {
  if (body.length > ORDER_BYTES_MAX) {
    throw new ApiError(413, `an order has at most ${ORDER_BYTES_MAX} bytes`);
  }
  const text = fromUtf8(body);
  if (nesting(text) > ORDER_NESTING_MAX) throw invalidBody("the body is not JSON: nested too deep");
  const exact = (_key, value, { source }) => {
    if (typeof value !== "number") return value;
    return /^-?[0-9]{1,19}$/.test(source) ? BigInt(source) : NaN;
  };
  let fields;
  try {
    fields = JSON.parse(text, exact);
  } catch (error) {
    throw invalidBody(`the body is not JSON: ${error.message}`);
  }
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw invalidBody("the body is not a JSON object");
  }
  return fields;
}

// How deep brackets nest outside of strings. `JSON.parse` recurses, and a stack that overflows
// is not an exception here but a trap.
function nesting(text) {
  const brackets = text.replace(/"(?:[^"\\]|\\[^])*"/g, "").match(/[[\]{}]/g) ?? [];
  let depth = 0;
  let deepest = 0;
  for (const bracket of brackets) {
    depth += bracket === "[" || bracket === "{" ? 1 : -1;
    if (depth > deepest) deepest = depth;
    if (deepest > ORDER_NESTING_MAX) break;
  }
  return deepest;
}

function field(fields, name, what, fits) {
  const value = fields[name];
  if (value === undefined) throw invalidBody(`the field \`${name}\` is missing`);
  if (!fits(value)) throw invalidBody(`the field \`${name}\` must be ${what}`);
  return value;
}

function isText(value) {
  return typeof value === "string" && value.isWellFormed();
}

function isExactInteger(value) {
  return typeof value === "bigint" && Number.isSafeInteger(Number(value));
}

// The client's idempotency key. The draft has it as a string of RFC 8941, in quotes; one without
// quotes is taken as it is. Parameters after the closing quote are ignored.
function parseKey(headers) {
  const values = headers.filter(([name]) => name === "idempotency-key");
  if (values.length === 0) return null;
  if (values.length > 1) throw invalidKey("was given more than once");
  // A character for each byte: those that are not ASCII are refused below.
  let key = String.fromCharCode(...values[0][1]).replace(/^[ \t]+|[ \t]+$/g, "");
  if (key.startsWith('"')) {
    const quoted = key.match(/^"((?:[^"\\]|\\["\\])*)"\s*(?:;.*)?$/s);
    if (!quoted) throw invalidKey("is not a well-formed quoted string");
    key = quoted[1].replace(/\\(.)/g, "$1");
  }
  if (key === "") throw invalidKey("is empty");
  if (utf8(key).length > KEY_BYTES_MAX) throw invalidKey("is longer than 128 bytes");
  if (!/^[ -~]*$/.test(key)) throw invalidKey("has a character that is not printable ASCII");
  return key;
}

// ---- responses ----

// The response to an outcome of what a request asked for.
function render({ target }, { tag, val }) {
  switch (tag) {
    case "stock":
      return data(stockJson(val), STOCK_KEEP_MS);
    case "stocks":
      return list(target, val);
    case "order":
      return data(orderJson(val), ORDER_KEEP_MS, ORDER_CACHE_CONTROL);
    case "orders":
      return listOrders(target, val);
    case "traded":
      return data(`{"transaction_number":${integer(val)}}`);
    case "refused":
      return REFUSALS[val]().response();
    case "unavailable":
      return UNAVAILABILITIES[val]().response();
  }
}

// A page, which says where the next one is.
function list(target, { stocks, more }) {
  const listed = `[${stocks.map(stockJson).join(",")}]`;
  if (!more) return data(listed);
  const next = `/stocks?limit=${parsePage(target).limit}&after=${encoded(stocks.at(-1).name)}`;
  return response(200, `{"data":${listed},"next":${JSON.stringify(next)}}`, [], null);
}

// A page of orders. Where it can say that there are more, it says after which number.
function listOrders(target, { orders, nextAfter }) {
  const listed = `[${orders.map(orderJson).join(",")}]`;
  if (nextAfter === null || nextAfter === undefined) return data(listed);
  const { limit, stock } = parseOrderPage(target);
  const of = stock === null ? "" : `&stock=${encoded(stock)}`;
  const next = `/orders?limit=${limit}&after=${integer(nextAfter)}${of}`;
  return response(200, `{"data":${listed},"next":${JSON.stringify(next)}}`, [], null);
}

function encoded(text) {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function stockJson({ name, priceMinor, quantity }) {
  return `{"name":${JSON.stringify(name)},"price":${decimal(priceMinor)},"quantity":${integer(quantity)}}`;
}

function orderJson({ number, name, side, quantity }) {
  return `{"number":${integer(number)},"name":${JSON.stringify(name)},"type":"${side}","quantity":${integer(quantity)}}`;
}

// Minor units as a decimal number: `240.63`, and `20.0` for a whole one.
function decimal(minor) {
  const cents = integer(minor).padStart(3, "0");
  return `${cents.slice(0, -2)}.${cents.slice(-2, cents.endsWith("0") ? -1 : undefined)}`;
}

function integer(value) {
  if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not exact in JavaScript`);
  return value.toString();
}

function data(json, keepMs = null, ...headers) {
  return response(200, `{"data":${json}}`, headers, keepMs);
}

function response(status, json, headers, keepMs) {
  return {
    status,
    headers: [["content-type", "application/json"], ...headers],
    body: utf8(json),
    keepMs,
  };
}

// ---- errors: all that can go wrong with a request, as the client is told ----

export class ApiError extends Error {
  constructor(status, message, ...headers) {
    super(message);
    this.status = status;
    this.headers = headers;
  }

  // It is never kept.
  response() {
    const error = JSON.stringify({ error: { code: this.status, message: this.message } });
    return response(this.status, error, this.headers, null);
  }
}

const RETRY_AFTER = ["retry-after", "1"];

const REFUSALS = {
  "stock-not-found": stockNotFound,
  "not-enough": () => new ApiError(404, "not enough stocks available to buy"),
  "order-not-found": () => new ApiError(404, "transaction not found"),
  "key-conflict": () => new ApiError(409, "the Idempotency-Key was used for a different order"),
  "too-many": () =>
    new ApiError(400, "the quantity would take the stock past the most it can have"),
};

const UNAVAILABILITIES = {
  "no-catalog": () => new ApiError(503, "catalog unavailable, try again", RETRY_AFTER),
  "no-replica": () => new ApiError(503, "no order replica available, try again", RETRY_AFTER),
};

function stockNotFound() {
  return new ApiError(404, "stock not found");
}

function invalidQuery(problem) {
  return new ApiError(400, `the query's ${problem}`);
}

function invalidBody(message) {
  return new ApiError(400, message);
}

function invalidKey(reason) {
  return new ApiError(400, `the Idempotency-Key ${reason}`);
}

// ---- text and bytes: QuickJS has no TextEncoder and no TextDecoder ----

function utf8(text) {
  // What `encodeURIComponent` escapes are bytes of UTF-8; `unescape` makes each a character.
  const bytes = /^[\0-\x7f]*$/.test(text) ? text : unescape(encodeURIComponent(text));
  // Base64 is native code, a loop over characters is not: of a page it would take most of the time.
  return Uint8Array.fromBase64(btoa(bytes));
}

// Each byte as `decodeURIComponent` reads it: what is not ASCII, and the percent sign, escaped.
const ESCAPES = Array.from({ length: 256 }, (_, byte) =>
  byte < 0x80 && byte !== 0x25 ? String.fromCharCode(byte) : `%${byte.toString(16)}`,
);

export function fromUtf8(bytes) {
  let escaped = "";
  for (const byte of bytes) escaped += ESCAPES[byte];
  try {
    return decodeURIComponent(escaped);
  } catch {
    throw invalidBody("the body is not UTF-8");
  }
}
