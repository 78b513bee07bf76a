// The map of services, and the ledgers.

import { $, ago, count, g, h, rate, short, show, span as long, time } from "./dom.js";
import { answered, gauge, quantile, trades } from "./figures.js";

const LATE = 3000; // ms: gateways say every second how they are

const fact = (name, value, state) => h("div", { class: "fact", "data-state": state }, h("dt", {}, name), h("dd", {}, value));

const card = ({ key, state, title, tags = [], says, facts, foot }) => h("article", { class: "node", "data-key": key, "data-state": state },
  h("header", {}, h("span", { class: "dot", "aria-hidden": "true" }), h("h4", {}, title), tags.map(([tag, kind]) => h("span", { class: `tag ${kind ?? ""}` }, tag))),
  h("p", { class: "says" }, says), h("dl", { class: "facts" }, facts), foot && h("p", { class: "foot" }, foot));

const up = (figures, now) => {
  const started = gauge(figures, "process_start_time_seconds");
  return started === undefined ? "–" : long(Math.max(now.at_ms / 1000 - started, 0));
};

// How far a replica is behind the journal, in rows: what it says itself, else what was last heard of it.
export function lagOf(replica, now) {
  if (!replica.healthy) return undefined;
  const own = gauge(replica.said?.figures, "bazaar_order_lag_rows");
  const seconds = gauge(replica.said?.figures, "bazaar_order_lag_seconds");
  const behind = now.catalog.reachable ? Math.max(now.catalog.journal_rows - replica.rows, 0) : undefined;
  return { rows: own ?? behind ?? 0, seconds: seconds ?? 0 };
}

// Whether a replica lacks what it ought to have: for longer than a moment, or since it is not in sync.
export function isBehind(replica, now) {
  const lag = lagOf(replica, now);
  return Boolean(lag) && (lag.seconds > 1 || (!now.catalog.in_sync.includes(replica.id) && now.catalog.reachable && lag.rows > 0));
}

export function gatewayCard(gateway, { now, minute, policies, me }) {
  const { report, key } = gateway;
  const who = `gateway ${key}`;
  const isOf = (one) => one === who;
  const took = minute?.histograms("bazaar_request_duration_seconds", () => "all", isOf).get("all");
  const requests = minute && [...answered(minute, isOf)];
  const asked = requests?.reduce((sum, [, , many]) => sum + many / minute.sources.get(who).seconds, 0);
  const failed = requests?.some(([, [, , status], many]) => status === "5xx" && many > 0);
  const active = policies[key]?.policy?.active;
  const late = gateway.age_ms > LATE && `last heard ${ago(gateway.age_ms / 1000)}`;
  const state = gateway.isGone ? "off" : !report ? "warn" : report.why_not_ready ? "bad" : failed || late ? "warn" : "ok";
  const away = now.gateways_left_out ? "not among those that the catalog lists" : "no session any more";
  const says = gateway.isGone ? `${away}, for ${long(gateway.seconds)}` : !report ? "has not said yet how it is" : [report.why_not_ready ?? (!late && "ready"), late].filter(Boolean).join(", ");
  return card({
    key: who, state, title: key, tags: [gateway.own && ["this one", "own"], gateway.isGone && ["gone", "off"]].filter(Boolean), says,
    facts: [
      fact("requests", `${rate(asked)} /s`),
      fact("p99", time(quantile(took, 0.99))),
      fact("lease", report?.lease ? `held, of ${time(report.lease.length_ms / 1000)}` : "none", report && !report.lease ? "bad" : undefined),
      fact("policy", active ? `${active.name} ${active.version}` : "–"),
      fact("up", up(report?.figures, now)),
      fact("release", gateway.release || me.release),
    ],
    foot: report && `operators at ${report.admin}`,
  });
}

function replicaCard(replica, { now }) {
  const isIn = now.catalog.in_sync.includes(replica.id);
  const leads = replica.id === now.leader;
  const lag = lagOf(replica, now);
  const lags = isBehind(replica, now);
  const state = !replica.healthy ? "bad" : lags || !isIn || !replica.reaches_catalog ? "warn" : "ok";
  const role = !replica.healthy ? "down" : replica.role;
  const says = replica.foreign ? "is of another journal: refused" : !replica.healthy ? "does not answer"
    : !replica.reaches_catalog ? "does not reach the catalog" : lags ? `lags: ${count(lag.rows)} rows behind${lag.seconds ? `, for ${long(lag.seconds)}` : ""}`
      : !isIn && now.catalog.reachable ? "answers, not in sync" : "in sync";
  const isSame = replica.chain_hash && replica.chain_hash === now.catalog.chain_hash;
  return card({
    key: `replica ${replica.id}`, state, title: `Replica ${replica.id}`, tags: [[role, leads && replica.healthy ? "lead" : role === "down" ? "off" : ""]], says,
    facts: [
      fact("lag", lag ? `${count(lag.rows)} rows${lag.seconds > 0 ? ` · ${time(lag.seconds)}` : ""}` : "–", lags ? "warn" : undefined),
      fact("epoch", replica.healthy ? count(replica.epoch) : "–"),
      fact("orders", count(replica.orders)),
      fact("hash", replica.healthy ? h("code", {}, short(replica.chain_hash), isSame ? " =" : "") : "–"),
      fact("round trip", replica.healthy ? time(replica.round_trip_us / 1e6) : "–"),
      fact("up", up(replica.said?.figures, now)),
    ],
  });
}

function catalogCard(catalog, { now, minute }) {
  const figures = catalog.said?.figures;
  const isActive = catalog.role === "active" && now.catalog.reachable;
  const isOf = (who) => who === `catalog ${catalog.url}`;
  const role = catalog.role === "active" && !now.catalog.reachable ? "silent" : catalog.role;
  const state = isActive && catalog.said?.ready !== false ? "ok" : catalog.role === "standby" ? "ok" : "bad";
  const commits = minute && isActive ? minute.rate("bazaar_catalog_commits_total", isOf, ([result]) => result === "committed") : undefined;
  const says = role === "silent" ? "does not answer" : catalog.said && !catalog.said.ready ? catalog.said.says : isActive ? "commits, and keeps the journal" : "stands by, to take over";
  const facts = isActive ? [
    fact("commits", `${rate(commits)} /s`),
    fact("epoch", count(now.epoch)),
    fact("orders", count(now.catalog.journal_rows - now.catalog.stock_changes)),
    fact("hash", h("code", {}, short(now.catalog.chain_hash))),
    fact("in sync", now.catalog.in_sync.length ? now.catalog.in_sync.join(", ") : "none", now.catalog.in_sync.length < 2 ? "warn" : undefined),
    fact("sessions · up", `${count(gauge(figures, "bazaar_catalog_sessions"))} · ${up(figures, now)}`),
  ] : [fact("release · up", `${catalog.release ?? "–"} · ${up(figures, now)}`)];
  return card({ key: `catalog ${catalog.url}`, state, title: catalog.url.replace(/^https?:\/\//, ""), tags: [[role, isActive ? "lead" : role === "silent" ? "off" : ""]], says, facts });
}

const lane = (name, what, cards) => h("div", { class: "lane", "data-key": name }, h("h3", {}, name, h("small", {}, what)), cards);

// Gateways that have no card, in words.
const others = ({ now, passed }) => [
  now.gateways_left_out > 0 && `${count(now.gateways_left_out)} more have a session, and no place here`,
  passed > 0 && `${count(passed)} more came and went`,
].filter(Boolean);

export function showMap(view) {
  const { now, gone } = view;
  const gateways = [...now.gateways, ...gone.map((gateway) => ({ ...gateway, isGone: true }))];
  show($("map"),
    g("svg", { class: "wires", "data-key": "wires", "data-own": "", "aria-hidden": "true" }),
    lane("Gateways", "serve clients", [gateways.map((gateway) => gatewayCard(gateway, view)), others(view).map((words) => h("p", { class: "quiet", "data-key": words }, words))]),
    lane("Order replicas", "keep the ledgers", now.replicas.map((replica) => replicaCard(replica, view))),
    lane(now.catalogs.length > 1 ? "Catalogs" : "Catalog", "commits every trade", now.catalogs.map((catalog) => catalogCard(catalog, view))));
  $("services-note").textContent = [
    now.leader ? `replica ${now.leader} leads epoch ${count(now.epoch)}` : "nobody leads",
    now.protocol ? `protocol ${now.protocol}` : "",
    now.gateways_known ? "" : "other gateways are not known: no catalog says them",
  ].filter(Boolean).join(" · ");
  draw(view);
}

// The wires between cards, where there is room for them.
export function draw(view) {
  const wires = $("map").querySelector(".wires");
  if (!wires || !view) return;
  const { now, minute } = view;
  const frame = $("map").getBoundingClientRect();
  const box = (key) => $("map").querySelector(`[data-key="${CSS.escape(key)}"]`)?.getBoundingClientRect();
  const isWide = getComputedStyle(wires).display !== "none";
  wires.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
  if (!isWide) return wires.replaceChildren();
  const leader = box(`replica ${now.leader}`);
  const catalog = box(`catalog ${now.catalogs.find(({ role }) => role === "active")?.url}`);
  const flows = minute && trades(minute).traded > 0;
  const at = (rect, side, part = 0.5) => [(side === "right" ? rect.right : rect.left) - frame.left, rect.top - frame.top + rect.height * part];
  const wire = ([x1, y1], [x2, y2], state, isFlowing) => {
    const bend = Math.max((x2 - x1) / 2, 12);
    return g("path", { class: `wire ${isFlowing ? "flows" : ""}`, "data-state": state, d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` });
  };
  const lines = [];
  for (const gateway of now.gateways) {
    const from = box(`gateway ${gateway.key}`);
    if (from && leader && gateway.report) lines.push(wire(at(from, "right"), at(leader, "left"), gateway.report.why_not_ready ? "bad" : "ok", flows));
  }
  if (leader && catalog) lines.push(wire(at(leader, "right", 0.3), at(catalog, "left"), now.catalog.reachable ? "ok" : "bad", flows));
  for (const replica of now.replicas) {
    const follower = box(`replica ${replica.id}`);
    if (!leader || !follower || replica.id === now.leader) continue;
    const isIn = now.catalog.in_sync.includes(replica.id);
    const [x1, y1] = at(leader, "right", 0.7);
    const [x2, y2] = at(follower, "right", 0.5);
    const bend = 26;
    lines.push(g("path", { class: `wire ${flows && isIn ? "flows" : ""}`, "data-state": !replica.healthy ? "bad" : isIn ? "ok" : "warn", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 + bend} ${y2} ${x2} ${y2}` }));
  }
  wires.replaceChildren(...lines);
}

// Each ledger beside the journal.
export function showLedgers({ now }) {
  const journal = now.catalog;
  const row = (key, who, rows, orders, hash, state, words) => h("tr", { "data-key": key, "data-state": state },
    h("th", { scope: "row" }, who), h("td", { class: "number wide" }, count(rows)), h("td", { class: "number" }, count(orders)),
    h("td", { class: "hash" }, h("code", { title: hash }, hash ?? "–")), h("td", {}, h("span", { class: "mark", "data-state": state }, words)));
  const replicas = now.replicas.map((replica) => {
    const behind = journal.reachable && replica.healthy ? journal.journal_rows - replica.rows : undefined;
    const isSame = replica.chain_hash === journal.chain_hash;
    const [state, words] = !replica.healthy ? ["bad", "not known: it does not answer"] : behind === undefined ? ["off", "the journal does not answer"]
      : behind === 0 && isSame ? ["ok", "the same as the journal"] : behind === 0 ? ["bad", "another hash at the same row"]
        : behind > 0 ? [now.catalog.in_sync.includes(replica.id) ? "ok" : "warn", `${count(behind)} ${behind === 1 ? "row" : "rows"} behind, at this moment`] : ["ok", "ahead of what the journal said last"];
    return row(`replica ${replica.id}`, `Replica ${replica.id}`, replica.rows, replica.orders, replica.chain_hash, state, words);
  });
  show($("ledger-table"), h("table", {},
    h("thead", {}, h("tr", {}, ...[["Ledger"], ["Rows", "number wide"], ["Orders", "number"], ["Hash of the last row"], ["Compared with the journal"]].map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
    h("tbody", {}, row("journal", "Journal", journal.journal_rows, journal.reachable ? journal.journal_rows - journal.stock_changes : undefined, journal.chain_hash, journal.reachable ? "ok" : "bad", journal.reachable ? "what counts" : "the catalog does not answer"), replicas)));
}
