// The policy of a gateway: what decides, what is on trial and how that goes, what failed, and how it came about.

import { $, ago, count, g, h, lately, rate, share, short, show, span as long, time } from "./dom.js";
import { DECISIONS, quantile } from "./figures.js";
import { isByItself } from "./alarms.js";

const WORDS = {
  activate: "Activated", configure: "Configured anew", shadow: "Put in the shadow", canary: "Put on trial as a canary", drop: "Candidate dropped",
  promote: "Promoted", rollback: "Rolled back", rollout: "Rollout begun", step: "Rollout: next step", pause: "Rollout paused",
  resume: "Rollout resumed", skip: "Rollout: step skipped", fallback: "Started with another version",
  record: "Recording of requests begun", recorded: "Recording ended", raise: "Protocol to be raised", "not-raised": "Protocol not raised",
};

const tag = (text, kind) => h("span", { class: `tag ${kind ?? ""}` }, text);
const button = (what, label, kind, more = {}) => h("button", { type: "button", class: `small ${kind ?? "plain"}`, "data-do": what, ...more }, label);
const digest = (text) => h("code", { title: text }, short(text));
const STALE = 3000; // ms: what is said of a policy comes every second
const named = (version) => `${version.name} ${version.version}`;

// ---- versions ----

function decided(view, version) {
  const { minute, chosen } = view;
  const isOf = (who) => who === `gateway ${chosen.key}`;
  const among = (results) => ([policy, result]) => policy === version.digest && results.includes(result);
  const of = (...results) => minute?.sum("bazaar_policy_decisions_total", isOf, among(results));
  const took = minute?.histograms("bazaar_policy_decision_seconds", ([policy]) => (policy === version.digest ? "all" : undefined), isOf).get("all");
  return { decisions: minute?.rate("bazaar_policy_decisions_total", isOf, among(["decided", "trapped", "overran", "invalid"])), failed: of("trapped", "overran", "invalid", "error"), impure: of("impure"), p99: quantile(took, 0.99, DECISIONS) };
}

function counted(view, version) {
  const { decisions, failed, impure, p99 } = decided(view, version);
  const item = (name, value, state) => h("div", { "data-state": state }, h("dt", {}, name), h("dd", {}, value));
  return h("dl", { class: "became" },
    item("decisions a second", rate(decisions)),
    item(`failed in ${lately(view.minute?.seconds)}`, count(failed), failed > 0 ? "bad" : undefined),
    item("p99 of a decision", time(p99)),
    impure > 0 && item("came out differently", count(impure), "warn"));
}

function versionCard(view, version, what, note, tags, actions, ...more) {
  return h("article", { class: "version", "data-key": what },
    h("header", {}, h("p", { class: "role" }, what), h("h3", {}, named(version)), tags),
    h("p", { class: "quiet" }, digest(version.digest), version.config && [" with configuration ", digest(version.config)], note && [" · ", note]),
    counted(view, version), more, actions.length > 0 && h("div", { class: "actions" }, actions));
}

function activeCard(view, policy) {
  const { active, previous } = policy;
  const { report } = view.chosen;
  const tags = [active.on_probation && tag("on probation", "warn"), active.condemned && tag("fails too often", "bad")];
  const actions = view.mayAct && previous ? [button("rollback", "Roll back…", "danger")] : [];
  const since = Number.isFinite(report?.active_ms) ? `for ${long(report.active_ms / 1000)}` : "";
  return versionCard(view, active, "Active", [since, previous && [since && ", ", "before it ", named(previous), " ", digest(previous.digest)]], tags, actions,
    active.held > 0 && h("p", {}, `${count(active.held)} failures are held against it.`),
    broken(active));
}

const broken = ({ broken_off: { paths, clients } = { paths: 0, clients: 0 } }) => paths + clients > 0
  && h("p", { "data-state": "warn" }, `It wastes time, and is not asked about ${count(paths)} paths and ${count(clients)} clients for a while.`);

function candidateCard(view, { candidate }) {
  const { rollout } = candidate;
  const at = rollout ? { "data-digest": candidate.digest, "data-step": rollout.step } : { "data-digest": candidate.digest };
  const actions = view.mayAct ? [
    button("promote", "Promote…", "go", at),
    rollout && rollout.state !== "paused" && button("pause", "Pause…", "plain", at),
    rollout && rollout.state === "paused" && button("resume", "Resume…", "plain", at),
    rollout && button("skip", "Skip the step…", "plain", at),
    button("drop", "Drop…", "danger", at),
  ].filter(Boolean) : [];
  const tags = [tag(candidate.stage, "lead"), tag(share(candidate.share)), candidate.condemned && tag("fails too often", "bad")];
  return versionCard(view, candidate, "Candidate", [candidate.who && `by ${candidate.who}`, candidate.only?.length > 0 && `, only ${candidate.only.join(", ")}`], tags, actions,
    rollout && rolledOut(rollout), broken(candidate));
}

// ---- a rollout ----

const STATES = { running: "lead", gate: "warn", paused: "warn" };
const JUDGED = { within: "ok", beyond: "bad", open: "open" };

function rolledOut(rollout) {
  const part = rollout.samples_min > 0 ? Math.min(rollout.samples / rollout.samples_min, 1) : 1;
  return h("div", { class: "rollout" },
    h("p", {}, h("strong", {}, `Step ${rollout.step} of ${rollout.steps}`), ` ${rollout.doing} `, tag(rollout.state === "gate" ? "waits for its gate" : rollout.state, STATES[rollout.state])),
    h("ol", { class: "steps", "aria-hidden": "true" }, Array.from({ length: rollout.steps }, (_, place) => h("li", { class: place + 1 < rollout.step ? "done" : place + 1 === rollout.step ? "now" : "" }))),
    rollout.why && h("p", { "data-state": "warn" }, rollout.why),
    h("p", { class: "quiet" }, `${count(rollout.samples)} samples of at least ${count(rollout.samples_min)}, for ${long(rollout.elapsed_ms / 1000)} of at most ${long(rollout.within_ms / 1000)}`),
    h("progress", { max: 1, value: part.toFixed(3), "aria-label": "samples" }),
    rollout.measures.length > 0 && h("ul", { class: "measures" }, rollout.measures.map(measured)));
}

// What is seen of a limit: in words, and as the intervals that it was judged by.
function measured(measure) {
  return h("li", { "data-key": measure.name, "data-state": JUDGED[measure.judged] },
    h("p", {}, h("strong", {}, measure.name), h("span", { class: "mark", "data-state": JUDGED[measure.judged] }, { within: "within its limit", beyond: "beyond its limit", open: "not shown yet" }[measure.judged])),
    h("p", { class: "quiet" }, measure.seen), intervals(measure.intervals ?? []));
}

// Between which values lies what a version is held to, as a picture and in words.
export function intervals(all) {
  if (all.length === 0) return undefined;
  const ends = all.flatMap(({ low, high, limit }) => [low, high ?? low * 1.5, limit ?? 0]);
  const [least, most] = [Math.min(...ends, 0), Math.max(...ends, 1e-9)];
  const x = (value) => 236 * Math.min(Math.max((value - least) / (most - least), 0), 1) + 2;
  const shown = (value, unit) => (unit === "us" ? time(value / 1e6) : signed(value));
  return h("div", { class: "intervals" }, all.map(({ of, low, high, limit, unit }, place) => [
    h("span", { class: "of" }, of),
    g("svg", { viewBox: "0 0 240 14", width: 240, height: 14, preserveAspectRatio: "none", role: "img", "aria-label": `${of}: ${shown(low, unit)} to ${high === null ? "any" : shown(high, unit)}` },
      g("line", { class: "axis", x1: 0, x2: 240, y1: 7, y2: 7 }), least < 0 && g("line", { class: "axis", x1: x(0), x2: x(0), y1: 2, y2: 12 }),
      g("rect", { class: place === 0 ? "interval own" : "interval", x: x(low).toFixed(1), y: 3, height: 8, rx: 4, width: Math.max(x(high ?? most) - x(low), 3).toFixed(1) }),
      limit !== undefined && limit !== null && g("line", { class: "limit", x1: x(limit).toFixed(1), x2: x(limit).toFixed(1), y1: 0, y2: 14 })),
    h("span", { class: "number" }, `${shown(low, unit)} – ${high === null ? "?" : shown(high, unit)}`, limit !== undefined && limit !== null && h("small", {}, ` limit ${shown(limit, unit)}`))]));
}

const signed = (part) => (part < 0 ? `−${share(-part)}` : share(part));

// ---- differences ----

const part = (text) => (text === "" ? h("i", { class: "quiet" }, "nothing, or long") : h("code", {}, text));

function differences(view, found) {
  if (!found) return undefined;
  const groups = found.groups ?? [];
  return h("section", { class: "differences", "data-key": "differences" }, h("h3", {}, "Differences"),
    h("p", { class: "quiet" }, `${count(found.different)} of ${count(found.compared)} decisions that both made differ`, found.dropped > 0 && `; ${count(found.dropped)} were not compared, as the candidate was too slow`),
    groups.length === 0 ? h("p", {}, found.compared > 0 ? "They decide alike so far." : "Nothing was compared yet.") : h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, [["Route"], ["Field"], ["Active"], ["Candidate"], ["Count", "number"]].map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
      h("tbody", {}, groups.map((group) => h("tr", { "data-key": [group.route, group.field, group.from, group.to].join("\n") },
        h("td", {}, group.route), h("td", {}, group.field), h("td", {}, part(group.from)), h("td", {}, part(group.to)), h("td", { class: "number" }, count(group.count))))))),
    groups.length > 0 && h("details", { "data-key": "examples", "data-load": "examples" }, h("summary", {}, "Examples"), h("div", { class: "loaded", "data-own": "" })));
}

// ---- failures and changes ----

const KINDS = { trap: "trapped", overrun: "took too long", invalid: "answered what makes no sense", slow: "wasted time", error: "answered 500" };

const incident = (incident, key) => h("div", { class: "incident", "data-key": `incident ${key}` },
  h("p", {}, h("strong", {}, KINDS[incident.kind] ?? incident.kind), " at ", h("code", {}, incident.request)), h("p", { class: "cause" }, incident.cause),
  incident.request_id && h("p", { class: "quiet" }, "request ", h("code", {}, incident.request_id)),
  incident.has_trace && h("details", { "data-load": "trace", "data-at": incident.at_ms }, h("summary", {}, "Trace"), h("div", { class: "loaded", "data-own": "" })));

export function failures({ active, candidate }, now) {
  const all = [active, candidate].flatMap((version) => (version?.incidents ?? []).map((one) => ({ ...one, of: version })));
  if (all.length === 0) return undefined;
  all.sort((one, other) => other.at_ms - one.at_ms);
  return h("section", { "data-key": "failures" }, h("h3", {}, "Failures"),
    all.map((one) => h("div", { class: "failure", "data-key": `${one.of.digest} ${one.at_ms}` }, h("p", { class: "quiet" }, named(one.of), ` · ${ago(now.at_ms / 1000 - one.at_ms / 1000)}`), incident(one, one.at_ms))));
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

function when(ms, now) {
  const at = new Date(ms);
  const isToday = at.toDateString() === new Date(now.at_ms).toDateString();
  return h("time", { datetime: at.toISOString(), title: at.toISOString() }, isToday ? clock.format(at) : `${day.format(at)} ${clock.format(at)}`);
}

function timeline({ changes = [] }, names, now) {
  const of = (text, name) => h("span", { class: "of" }, (name ?? names.get(text)) && h("b", {}, name ?? names.get(text)), " ", digest(text));
  return h("section", { class: "timeline", "data-key": "timeline" }, h("h3", {}, "Timeline"),
    changes.length === 0 ? h("p", { class: "quiet" }, "Nothing has changed since the gateway began.") : h("ol", {}, changes.map((change) => {
      const isBad = isByItself(change) || change.what === "fallback";
      const is = isBad ? "bad" : ["rollback", "drop", "pause"].includes(change.what) ? "warn" : ["promote", "activate", "configure"].includes(change.what) ? "ok" : "";
      return h("li", { "data-key": `${change.at_ms} ${change.what} ${change.to}`, "data-state": is },
        h("p", { class: "what" }, h("strong", {}, WORDS[change.what] ?? change.what), isByItself(change) && tag("by the gateway itself", "bad"), when(change.at_ms, now)),
        change.why === "not said" ? h("p", { class: "quiet" }, "without a reason") : h("p", { class: "why" }, change.why),
        h("p", { class: "quiet" }, change.from === change.to ? of(change.to, change.to_name) : [of(change.from, change.from_name), " → ", of(change.to, change.to_name)], change.candidate && [" · candidate ", of(change.candidate, change.candidate_name)]),
        h("p", { class: "quiet" }, "by ", h("b", {}, change.who), change.known_by && ` (${[change.known_by === "nothing" ? "" : change.known_by, change.address].filter(Boolean).join(", ")})`),
        change.incident && incident(change.incident, change.at_ms));
    })));
}

function kept(view, policy) {
  const others = (policy.kept ?? []).filter(({ digest: it }) => it !== policy.active.digest && it !== policy.candidate?.digest);
  if (others.length === 0) return undefined;
  return h("details", { "data-key": "kept" }, h("summary", {}, `Kept: ${count(others.length)} other ${others.length === 1 ? "version" : "versions"}`), h("ul", { class: "kept" }, [...others].reverse().map((one) => h("li", { "data-key": one.digest },
    digest(one.digest), one.failed ? tag("failed", "bad") : one.good && tag("good", "ok"), view.mayAct && button("activate", "Activate…", "plain", { "data-digest": one.digest })))));
}

// ---- all of it ----

// The names of versions, as far as they are known: those that were seen before stay known.
const names = new Map();

export function showPolicy(view) {
  const { policies, now, gateways } = view;
  show($("policy-of"), gateways.length > 1 && gateways.map((gateway) => h("button", { type: "button", class: "tab", "data-key": gateway.key, "data-gateway": gateway.key, "aria-pressed": gateway === view.chosen ? "true" : "false" }, gateway.key, gateway.own && h("small", {}, "this one"))));
  const { policy, differences: found } = policies[view.chosen.key] ?? {};
  if (!policy) {
    show($("policy-body"), h("p", { class: "quiet" }, view.chosen.report?.is_cut ? "It is too long to be sent: see it at that gateway's own console." : "Not known yet."));
    return;
  }
  for (const version of [policy.active, policy.previous, policy.candidate]) if (version) names.set(version.digest, named(version));
  show($("policy-body"),
    h("div", { class: "left", "data-key": "left" },
      policy.closed && h("p", { class: "notice" }, policy.closed),
      view.chosen.report?.policy_age_ms > STALE && h("p", { class: "notice", "data-key": "stale" }, `What is shown here is ${long(view.chosen.report.policy_age_ms / 1000)} old: whoever changes the policy waits for that gateway's disk.`),
      !view.chosen.own && h("p", { class: "quiet", "data-key": "elsewhere" }, `What changes it is at that gateway's own console, at ${view.chosen.report?.admin ?? "its admin address"} of ${view.chosen.report?.host ?? "its machine"}.`),
      activeCard(view, policy), policy.candidate ? candidateCard(view, policy) : h("p", { class: "quiet none", "data-key": "none" }, "No candidate is on trial."),
      differences(view, found), failures(policy, now), kept(view, policy)),
    h("div", { class: "right", "data-key": "right" }, timeline(policy, names, now)));
}

// What an action is, by the button's `data-do`.
export function action(what, data, policy) {
  const { active, previous, candidate } = policy;
  const on = (path, query) => `${path}?${new URLSearchParams(query)}`;
  const at = { digest: data.digest ?? "", ...(data.step ? { step: data.step } : {}) };
  // What is seen here goes along: nothing is changed where somebody else has changed it since.
  const seen = (digest) => ({ digest, active: active.digest });
  switch (what) {
    case "rollback": return { title: `Roll back to ${previous ? named(previous) : "the version before"}?`, text: `${named(active)} stops deciding for clients at this gateway; the last good other version decides from then on, at once.`, label: "Roll back", kind: "danger", method: "POST", path: on("/policy/rollback", previous ? seen(previous.digest) : { active: active.digest }) };
    case "promote": return { title: `Promote ${named(candidate)}?`, text: `It decides for all clients of this gateway in the place of ${named(active)}, and is on probation.`, label: "Promote", kind: "go", method: "POST", path: on("/policy/promote", seen(candidate.digest)) };
    case "drop": return { title: `Drop ${named(candidate)}?`, text: "It is not tried any more. Clients that it decided for get the active version's answers.", label: "Drop", kind: "danger", method: "DELETE", path: on("/policy/candidate", { digest: candidate.digest }) };
    case "pause": return { title: "Pause the rollout?", text: "The candidate stays as it is, on the same share, until somebody resumes it.", label: "Pause", kind: "", method: "POST", path: on("/policy/rollout/pause", at) };
    case "resume": return { title: "Resume the rollout?", text: "The step that it is at begins anew.", label: "Resume", kind: "go", method: "POST", path: on("/policy/rollout/resume", at) };
    case "skip": return { title: "Skip this step?", text: "The next step begins with no verdict about this one; after the last one the candidate is promoted.", label: "Skip", kind: "danger", method: "POST", path: on("/policy/rollout/skip", at) };
    case "activate": return { title: `Activate ${short(data.digest)}?`, text: `The kept version decides for all clients of this gateway in the place of ${named(active)}.`, label: "Activate", kind: "go", method: "POST", path: on("/policy/activate", seen(data.digest)) };
    default: return undefined;
  }
}
