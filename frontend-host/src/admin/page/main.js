// The console: what all of a bazaar does, and why. Figures come every second; what is shown is made of the last minute's.

import { $, count, h, show } from "./dom.js";
import { ask, follow, hasToken, setToken } from "./link.js";
import { History, wellFormed } from "./figures.js";
import { Seen } from "./seen.js";
import { showGlance } from "./glance.js";
import { alarms } from "./alarms.js";
import { draw, showLedgers, showMap } from "./services.js";
import { showRoutes, showStages, showTiles } from "./requests.js";
import { action, showPolicy } from "./policy.js";

const NAME = "bazaar.console.name";

const history = new History();
const seen = new Seen();
let me = { may_change: false, knows_operators: false, release: "" };
let now;
let policies = {};
let chosen;
let view;
let arrived = 0;

// ---- what is shown ----

function lookAt() {
  const gone = seen.look({ at: now.at_ms / 1000, gateways: now.gateways, areKnown: now.gateways_known });
  const minute = history.over(60);
  const gateway = now.gateways.find(({ key }) => key === chosen) ?? now.gateways[0];
  return {
    now, me, policies, history, gone, passed: seen.passed, minute, last: history.over(5), start: history.sinceStart(),
    gateways: now.gateways, chosen: gateway, mayAct: me.may_change && gateway.own,
    span: document.querySelector("input[name=span]:checked").value,
    of: $("of-gateway").value,
  };
}

function showAlarms() {
  const found = alarms({ now, minute: view.minute, all: view.minute, policies, gone: view.gone });
  const critical = found.filter(({ severity }) => severity === "critical").length;
  const state = critical > 0 ? "bad" : found.length > 0 ? "warn" : "ok";
  document.body.dataset.state = state;
  document.title = `${found.length > 0 ? `(${found.length}) ` : ""}Bazaar console`;
  $("alarms-title").textContent = found.length === 0 ? "All is well" : `${found.length} ${found.length === 1 ? "alarm" : "alarms"}`;
  show($("alarm-list"), found.length === 0
    ? h("p", { class: "quiet", "data-key": "well" }, "Every service does its part, and no alarm is due.")
    : h("ul", { "data-key": "alarms" }, found.map(({ severity, name, words, what }) => h("li", { "data-key": `${name} ${words.replace(/[\d.,]+/g, "")}`, "data-state": severity === "critical" ? "bad" : "warn" },
      h("p", {}, h("strong", {}, words)), h("p", { class: "quiet" }, h("span", {}, what), h("code", { title: "docs/OPERATING.md, “Alarms”" }, name))))));
}

function showAll() {
  view = lookAt();
  $("journal").textContent = now.journal ? `journal ${now.journal}` : "the journal is not known yet";
  const keys = now.gateways.map(({ key }) => key);
  show($("of-gateway"), h("option", { value: "" }, "All gateways"), keys.map((key) => h("option", { value: key, selected: key === view.of }, key)));
  for (const part of [showAlarms, showGlance, showTiles, showMap, showRoutes, showStages, showPolicy, showLedgers]) {
    try {
      part(view);
    } catch (error) {
      console.error(error); // what one gateway says of itself does not hide what the others do
      instead(part);
    }
  }
  history.isNew = false;
}

// What is shown where a part cannot be: not what it was before.
function instead(part) {
  if (part === showAlarms) {
    document.body.dataset.state = "bad";
    $("alarms-title").textContent = "The alarms cannot be shown";
    show($("alarm-list"));
  }
  if (part === showGlance) show($("glance"), h("p", { class: "notice" }, "What is to be seen at a glance cannot be shown."));
  if (part === showPolicy) show($("policy-body"), h("p", { class: "notice" }, "What this gateway says of its policy cannot be shown."));
}

// ---- the link ----

const SAID = { connecting: "Connecting", live: "Live", lost: "Not live: reconnecting", locked: "Locked" };

function state(is, error) {
  document.body.dataset.link = is;
  $("live").textContent = SAID[is];
  $("unlock").hidden = is !== "locked";
  $("board").hidden = is === "locked" || !view;
  if (is === "locked") {
    const isGiven = hasToken();
    tell($("unlock-error"), !isGiven && error.status === 401 ? "" : error.status === 401 ? "That is not a token that this gateway knows." : error.message);
    setToken("");
    now = undefined;
    view = undefined;
    $("right").hidden = true;
    $("token").value = "";
    $("token").focus();
  }
  $("forget").hidden = !hasToken() || is === "locked";
  showAge();
}

function showAge() {
  const is = document.body.dataset.link;
  const seconds = Math.round((performance.now() - arrived) / 1000);
  const text = is === "lost" ? (now ? `The gateway does not answer. What is shown is ${count(seconds)} s old.` : "The gateway does not answer yet.") : "";
  $("stale").hidden = text === "";
  if ($("stale").textContent !== text) $("stale").textContent = text;
}

const on = {
  state,
  event(name, data) {
    if (name === "you") {
      me = data;
      chosen ??= me.own;
      $("right").hidden = false;
      $("right").textContent = me.may_change ? "may change" : "read only";
      $("right").className = `tag ${me.may_change ? "own" : ""}`;
    } else if (name === "policy") {
      policies = data;
      if (now) showAll();
    } else if (name === "now") {
      now = data;
      for (const { own, report } of now.gateways) if (report && !own) report.figures = wellFormed(report.figures);
      arrived = performance.now();
      history.add(now);
      showAll();
      $("board").hidden = false;
      draw(view);
    }
  },
};

function tell(place, text) {
  place.hidden = !text;
  place.textContent = text ?? "";
}

let unlock;

$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  if (token === "") return tell($("unlock-error"), "Give a token.");
  setToken(token);
  unlock?.();
});

$("forget").addEventListener("click", () => {
  setToken("");
  location.reload();
});

// ---- what is done ----

let acting;

function open(what, data) {
  if (!view?.mayAct) return;
  acting = action(what, data, policies[view.chosen.key]?.policy ?? {});
  if (!acting) return;
  $("act-title").textContent = acting.title;
  $("act-text").textContent = acting.text;
  $("act-do").textContent = acting.label;
  $("act-do").className = acting.kind;
  $("act-why").value = "";
  try {
    $("act-who").value = localStorage.getItem(NAME) ?? "";
  } catch { /* a browser that keeps nothing */ }
  tell($("act-error"));
  $("act").showModal();
  $("act-why").focus();
}

async function act(event) {
  event.preventDefault();
  const why = $("act-why").value.trim();
  if (why === "") {
    tell($("act-error"), "Say why: whoever looks at the log of changes later wants to know.");
    $("act-why").focus();
    return;
  }
  const who = $("act-who").value.trim();
  try {
    localStorage.setItem(NAME, who);
  } catch { /* a browser that keeps nothing */ }
  tell($("act-error"));
  $("act-do").disabled = true;
  try {
    await ask(acting.path, acting.method, { why, who: who || "console" });
    $("act").close();
    say(`${acting.label}: done.`);
  } catch (error) {
    tell($("act-error"), error.message);
  } finally {
    $("act-do").disabled = false;
  }
}

let saying;

function say(text) {
  tell($("said"), text);
  clearTimeout(saying);
  saying = setTimeout(() => tell($("said")), 5000);
}

// ---- what is opened ----

const pre = (text) => h("pre", {}, text);

async function load(details) {
  const place = details.querySelector(".loaded");
  if (!view.chosen.own) return place.replaceChildren(h("p", { class: "quiet" }, "It is at that gateway's own console."));
  try {
    if (details.dataset.load === "trace") place.replaceChildren(trace(await ask("/policy"), Number(details.dataset.at)));
    else place.replaceChildren(...examples(await ask("/policy/differences")));
  } catch (error) {
    place.replaceChildren(h("p", { class: "notice" }, error.message));
  }
  return undefined;
}

function trace(policy, at) {
  const all = [...policy.changes.map(({ incident }) => incident), ...(policy.active?.incidents ?? []), ...(policy.candidate?.incidents ?? [])];
  const found = all.find((incident) => incident?.at_ms === at);
  return found ? h("div", {}, found.output && pre(found.output), found.backtrace && pre(found.backtrace)) : h("p", { class: "quiet" }, "It is not kept any more.");
}

function examples({ found }) {
  if (found.examples.length === 0) return [h("p", { class: "quiet" }, "No example is kept.")];
  return [...found.examples].reverse().map((example) => h("div", { class: "example" },
    h("p", {}, h("strong", {}, example.kind), " at ", h("code", {}, example.request), example.request_id && [" · request ", h("code", {}, example.request_id)]),
    h("div", { class: "both" }, h("div", {}, h("small", {}, "active"), pre(example.active)), h("div", {}, h("small", {}, "candidate"), pre(example.candidate)))));
}

document.addEventListener("toggle", (event) => {
  const details = event.target;
  if (details.nodeName === "DETAILS" && details.open && details.dataset.load) load(details);
}, true);

document.addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-do], [data-gateway]");
  if (!pressed) return;
  if (pressed.dataset.do) return open(pressed.dataset.do, pressed.dataset);
  chosen = pressed.dataset.gateway;
  showAll();
});

$("act-form").addEventListener("submit", act);
$("act-cancel").addEventListener("click", () => $("act").close());
$("requests").addEventListener("change", () => now && showAll());
new ResizeObserver(() => draw(view)).observe($("map"));
setInterval(showAge, 1000);
follow(on, () => new Promise((resolve) => { unlock = resolve; }));
