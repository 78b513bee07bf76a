// What is wrong, in words: by the names and the bounds of `deploy/prometheus/alerts.yml`, from what the console sees. What each
// means and what to do is in docs/OPERATING.md, "Alarms". A pure function: the same figures, the same alarms.

import { gauge, quantile, routes, trades } from "./figures.js";
import { ago, lately, share, span as long, time } from "./dom.js";

const DAY = 86_400;
const HELD_MAX = 0.8;
const EACH_MAX = 6; // alarms of one process or policy: what one says of itself hides nobody else's

const WHAT = { stock: "looking up a stock", stocks: "listing stocks", order: "looking up an order", orders: "listing orders",
  events: "following orders", trade: "trading", other: "other requests", policy: "what the policy answers itself", refused: "refused requests" };

export const routeWords = (name) => WHAT[name] ?? name;

// `now` is a moment, `minute` and `all` what was counted lately; either may be missing. `policies` are
// the gateways', by their keys; `gone` gateways that were there before.
export function alarms({ now, minute, all, policies = {}, gone = [] }) {
  const found = [];
  const alarm = (severity, name, words, what) => found.push({ severity, name, words, what });
  const critical = (...of) => alarm("critical", ...of);
  const warning = (...of) => alarm("warning", ...of);

  services(now, critical, warning);
  for (const gateway of gone) {
    const away = now.gateways_left_out ? "is not among those that the catalog lists, of more than it lists, for" : "has had no session with the catalog for";
    warning("BazaarDown", `Gateway ${gateway.key} ${away} ${long(gateway.seconds)}`, "It was stopped, or it is cut off.");
  }
  for (const [who, figures] of who_counts(now)) {
    const before = found.length;
    processes(who, figures, now, critical, warning);
    found.splice(before + EACH_MAX);
  }
  if (minute && minute.seconds > 5) traffic(minute, critical, warning);
  if (all) events(all, critical, warning);
  for (const gateway of now.gateways) {
    try {
      policy(gateway, policies[gateway.key]?.policy, now, critical, warning);
    } catch (error) {
      console.error(error);
      warning("BazaarPolicyFails", `What gateway ${gateway.key} says of its policy is not in its form`, "See it at that gateway's own console.");
    }
  }
  return found.sort((one, other) => (one.severity === other.severity ? 0 : one.severity === "critical" ? -1 : 1));
}

function services(now, critical, warning) {
  const { catalogs, replicas } = now;
  if (!catalogs.some((catalog) => catalog.role === "active") || !now.catalog.reachable) {
    critical("BazaarNoActiveCatalog", "No catalog is active: nothing is traded, and only what is cached can be looked up", says(catalogs));
  } else if (catalogs.length > 1 && !catalogs.some((catalog) => catalog.role === "standby")) {
    warning("BazaarDown", "No catalog stands by: if the active one is lost, nobody takes over", says(catalogs.filter(({ role }) => role !== "active")));
  }
  for (const catalog of catalogs) {
    if (catalog.role === "silent" && catalogs.length > 1) warning("BazaarDown", `The catalog at ${catalog.url} does not answer`, "See whether it runs, and start it.");
  }
  const leads = replicas.find((replica) => replica.id === now.leader && replica.role === "leader");
  if (now.catalog.reachable && !leads) critical("BazaarNotReady", "No replica leads: no trade can be served", "An election is on its way, or no replica answers.");
  for (const replica of replicas) {
    if (replica.foreign) critical("BazaarNotReady", `Replica ${replica.id} is of another journal`, "It is refused. See which data directory it was started on.");
    else if (!replica.healthy) warning("BazaarDown", `Replica ${replica.id} does not answer`, "See whether it runs, and start it.");
    else if (!replica.reaches_catalog) warning("BazaarCatalogUnreachable", `Replica ${replica.id} does not reach the catalog`, "See to the network between the two.");
    else if (now.catalog.reachable && !now.catalog.in_sync.includes(replica.id)) {
      warning("BazaarFollowerFails", `Replica ${replica.id} is not in sync`, "Orders are acknowledged without it. It copies what it lacks, or was too slow, and comes back by itself.");
    }
    const lag = gauge(replica.said?.figures, "bazaar_order_lag_seconds");
    if (lag > 5) warning("BazaarReplicaLags", `Replica ${replica.id} lacks rows for ${long(lag)}`, "It copies a ledger, or its disk or its link to the leader is too slow.");
  }
  if (now.catalog.reachable && replicas.length > 1 && now.catalog.in_sync.length === 1) {
    warning("BazaarOneInSyncReplica", "One replica alone is in sync: its disk and the catalog's are all that keeps the next order", "Start the others.");
  }
  for (const gateway of now.gateways) {
    const why = gateway.report?.why_not_ready;
    if (why) critical("BazaarNotReady", `Gateway ${gateway.key} is not ready: ${why}`, "Clients get 503 for trades.");
  }
}

const says = (catalogs) => catalogs.map(({ url, role, said }) => `${url}: ${said?.says ?? (role === "silent" ? "does not answer" : role)}`).join("; ");

function* who_counts(now) {
  for (const gateway of now.gateways) yield [`Gateway ${gateway.key}`, gateway.report?.figures];
  for (const replica of now.replicas) yield [`Replica ${replica.id}`, replica.said?.figures];
  for (const catalog of now.catalogs) yield [`The catalog at ${catalog.url}`, catalog.said?.figures];
}

function processes(who, figures, now, critical, warning) {
  if (!figures) return;
  for (const [[which], at] of figures.bazaar_certificate_expiry_timestamp_seconds ?? []) {
    const left = at - now.at_ms / 1000;
    if (left < 0) critical("BazaarCertificateExpired", `A certificate (${which}) of ${who} has expired: nobody believes it any more`, "Put a new one in its place now.");
    else if (left < 7 * DAY) warning("BazaarCertificateExpires", `A certificate (${which}) of ${who} expires in ${long(left)}`, "Put a new one in its place: it is taken up at once.");
  }
  const most = new Map((figures.bazaar_held_bytes_max ?? []).map(([[what], max]) => [what, max]));
  for (const [[what], held] of figures.bazaar_held_bytes ?? []) {
    if (held > HELD_MAX * most.get(what)) warning("BazaarHeldBytesNearBudget", `${who} holds ${share(held / most.get(what))} of what it may for clients (${what})`, "Past that, requests are refused.");
  }
  for (const [name, used, max, what] of [
    ["BazaarConnectionsNearLimit", "bazaar_connections", "bazaar_connections_max", "the connections"],
    ["BazaarFilesNearLimit", "process_open_fds", "process_max_fds", "the open files"],
  ]) {
    const part = gauge(figures, used) / gauge(figures, max);
    if (part > HELD_MAX) warning(name, `${who} has ${share(part)} of ${what} that it may have`, "See the limits.");
  }
}

function traffic(minute, critical, warning) {
  for (const route of routes(minute)) {
    if (route.count >= 20 && route.failed / route.count > 0.01) {
      critical("BazaarRequestsFail", `${share(route.failed / route.count)} of requests (${routeWords(route.name)}) are answered with 500 and above`, "See who leads, the alarms above, and the policy.");
    }
    if (route.name === "trade" && route.took?.count >= 20 && route.p99 > 0.5) {
      warning("BazaarTradesSlow", `One trade in a hundred takes longer than ${time(route.p99)}`, "The stages of a trade say where the time goes.");
    }
  }
  const { traded, refused, unavailable } = trades(minute);
  const all = traded + refused + unavailable;
  if (all >= 20 && unavailable / all > 0.01) critical("BazaarTradesUnavailable", `${share(unavailable / all)} of trades are not answered in time`, "With the same key they can be asked for again.");
  const took = minute.histograms("bazaar_trade_stage_seconds", ([stage]) => stage);
  const slow = (stage) => (took.get(stage)?.count >= 20 ? quantile(took.get(stage), 0.99) : 0);
  if (slow("store") > 0.1) warning("BazaarCommitsSlow", `One commit in a hundred takes longer than ${time(slow("store"))}`, "Look at the disk of the catalog, or its database.");
  if (slow("show") > 0.2) warning("BazaarCachesHoldTradesUp", `One trade in a hundred waits longer than ${time(slow("show"))} for a gateway to let go of what it has cached`, "Find the gateway that hangs.");
  const saves = minute.histograms("bazaar_order_save_seconds", (_, who) => who, (who) => who.startsWith("replica "));
  for (const [who, save] of saves) {
    const p99 = quantile(save, 0.99);
    if (save.count >= 20 && p99 > 0.1) warning("BazaarReplicaDiskSlow", `The disk of ${who} takes longer than ${time(p99)} for one group of rows in a hundred`, "Look at that disk's latency.");
  }
}

// What is rare: one is enough, however short the time.
function events(all, critical, warning) {
  const failed = all.sum("bazaar_catalog_commits_total", undefined, ([result]) => result === "failed");
  if (failed > 0) critical("BazaarCommitsFail", `The catalog's database refused ${failed} commits in ${lately(all.seconds)}`, "Its disk is full or fails; the catalog's log has its words.");
  const dropped = all.sum("bazaar_log_records_dropped_total");
  if (dropped > 0) warning("BazaarLogDropped", `${dropped} records of logs could not be written in ${lately(all.seconds)}`, "Look at who reads standard error, and its disk.");
  for (const [who, [event], lost] of all.added("bazaar_session_events_total")) {
    if (event === "lost" && lost > 3 && all.sources.get(who).isThere) warning("BazaarSessionLost", `The ${who} keeps losing its session with the catalog`, "Its log says why.");
  }
}

function policy(gateway, policy, now, critical, warning) {
  if (!policy) return;
  if (policy.closed) critical("BazaarPolicyClosed", `Gateway ${gateway.key} serves nobody: ${policy.closed}`, "Push a policy that starts.");
  for (const version of [policy.active, policy.candidate]) {
    if (version?.condemned) warning("BazaarPolicyFails", `The policy ${version.name} fails too often at ${gateway.key}, and no other stands in for it`, "Activate another one.");
  }
  const last = (policy.changes ?? []).find((change) => isByItself(change));
  const seconds = last && now.at_ms / 1000 - last.at_ms / 1000;
  if (last && seconds < 900) {
    const what = last.what === "rollback" ? "rolled its policy back" : "dropped a candidate policy";
    warning("BazaarPolicyTakenOut", `Gateway ${gateway.key} ${what} by itself, ${ago(seconds)}`, last.why);
  }
}

// Whether the gateway made a change for the better of its clients, with nobody asking for it.
export const isByItself = (change) => ["rollback", "drop"].includes(change.what) && !change.known_by;
