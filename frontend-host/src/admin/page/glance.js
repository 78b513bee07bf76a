// What operators look for first: which replica lags, which route is slow, why a policy was taken back last. Pure functions: the
// same moment, the same words.

import { $, ago, count, h, lately, show, time } from "./dom.js";
import { routes } from "./figures.js";
import { isByItself, routeWords } from "./alarms.js";
import { isBehind, lagOf } from "./services.js";

const SLOW = 0.5; // seconds, of one request in a hundred: the bound of the alarm for trades

// The three answers: `{ key, name, words, more, state, href }`, and whose policy it is where that matters.
export const glance = (view) => [lagging(view.now), slow(view.minute), takenBack(view.now, view.policies)];

function lagging(now) {
  const answer = (state, words, more) => ({ key: "lagging", name: "Which replica lags", state, words, more, href: "#services" });
  const silent = now.replicas.filter(({ healthy }) => !healthy);
  const behind = now.replicas.filter((replica) => isBehind(replica, now)).map((replica) => ({ id: replica.id, ...lagOf(replica, now) }));
  behind.sort((one, other) => other.seconds - one.seconds || other.rows - one.rows);
  const how = ({ id, rows, seconds }) => `Replica ${id}: ${count(rows)} ${rows === 1 ? "row" : "rows"}${seconds > 0 ? `, ${time(seconds)}` : ""} behind`;
  const known = [...silent.map(({ id }) => `Replica ${id} does not answer`), ...behind.map(how)];
  if (known.length > 0) return answer(silent.length > 0 ? "bad" : "warn", known[0], known.slice(1).join("; "));
  if (!now.catalog.reachable) return answer("warn", "Not known", "The catalog does not say where the journal ends.");
  return answer("ok", "None", "All have what was acknowledged.");
}

function slow(minute) {
  const answer = (state, words, more) => ({ key: "slow", name: "Which route is slow", state, words, more, href: "#requests" });
  if (!minute) return answer("ok", "Not known yet", "It takes two looks.");
  const known = routes(minute).filter(({ p99 }) => p99 !== undefined);
  known.sort((one, other) => other.p99 - one.p99);
  if (known.length === 0) return answer("ok", "Nothing was asked for", `in ${lately(minute.seconds)}`);
  const [slowest, ...others] = known;
  const how = ({ name, p99 }) => `${routeWords(name)}: ${time(p99)}`;
  const words = how(slowest);
  return answer(slowest.p99 > SLOW ? "warn" : "ok", words.charAt(0).toUpperCase() + words.slice(1), ["one in 100 takes longer", ...others.slice(0, 1).map(how)].join(" · "));
}

// Of all gateways' policies the last that was taken back, by people or by a gateway itself.
function takenBack(now, policies) {
  const answer = (state, words, more, gateway) => ({ key: "taken-back", name: "Why a policy was taken back last", state, words, more, href: "#policy", gateway });
  const all = now.gateways.flatMap(({ key }) => {
    const changes = policies[key]?.policy?.changes;
    const isOne = (change) => (change?.what === "rollback" || (change && isByItself(change))) && Number.isFinite(change.at_ms);
    return Array.isArray(changes) ? changes.filter(isOne).map((change) => ({ key, ...change })) : [];
  });
  all.sort((one, other) => other.at_ms - one.at_ms);
  const [last] = all;
  if (!last) return answer("ok", "None was", "as far back as gateways say");
  const seconds = Math.max((now.at_ms - last.at_ms) / 1000, 0);
  const what = last.what === "rollback" ? `${last.from_name ?? "a version"} → ${last.to_name ?? "the one before"}` : "the candidate was dropped";
  const who = isByItself(last) ? "by the gateway itself" : `by ${last.who}`;
  const why = last.why === "not said" ? "Without a reason" : String(last.why);
  return answer(isByItself(last) && seconds < 900 ? "warn" : "ok", last.incident?.cause ? `${why}: ${last.incident.cause}` : why, [ago(seconds), who, what, now.gateways.length > 1 && `at ${last.key}`].filter(Boolean).join(" · "), last.key);
}

export function showGlance(view) {
  show($("glance"), glance(view).map(({ key, name, words, more, state, href, gateway }) =>
    h("a", { class: "answer", "data-key": key, "data-state": state, href, "data-gateway": gateway },
      h("span", { class: "name" }, name), h("strong", { title: words }, words), h("span", { class: "more", title: more }, more))));
}
