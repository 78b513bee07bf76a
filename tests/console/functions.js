async () => {
  // The page's own functions, where the page is: returns what is not as it should be.
  const [{ alarms, routeWords }, dom, { wellFormed }, { Seen }, { glance }, { action, failures, intervals }, { gatewayCard }] = await Promise.all(
    ["alarms", "dom", "figures", "seen", "glance", "policy", "services"].map((name) => import(`/console/${name}.js`)));
  const wrong = [];
  const check = (what, got, wanted) => {
    const [is, should] = [JSON.stringify(got), JSON.stringify(wanted)];
    if (is !== should) wrong.push(`${what}: ${is}, and not ${should}`);
  };
  const table = (of, name, cases) => cases.forEach(([given, wanted]) => check(`${name}(${String(given)})`, of[name](given), wanted));

  // Numbers, times and ages in words.
  table(dom, "count", [[undefined, "–"], [null, "–"], [0, "0"], [2.5, "3"], [1234567, "1,234,567"]]);
  table(dom, "rate", [[undefined, "–"], [0, "0"], [0.004, "< 0.01"], [0.5, "0.50"], [12.34, "12.3"], [123.4, "123"], [9999.6, "10,000"], [12345, "12.3k"]]);
  table(dom, "share", [[undefined, "–"], [NaN, "–"], [0, "0 %"], [1, "100 %"], [0.0004, "< 0.1 %"], [0.9995, "> 99.9 %"], [0.4963, "49.6 %"]]);
  table(dom, "time", [[undefined, "–"], [null, "–"], [NaN, "–"], [0, "0 s"], [0.00002, "20 µs"], [0.0009996, "1.0 ms"], [0.0042, "4.2 ms"],
    [0.00996, "10 ms"], [0.25, "250 ms"], [0.9996, "1.0 s"], [9.9, "9.9 s"], [9.97, "10 s"], [59.7, "1 min"], [Infinity, "> 10 s"]]);
  table(dom, "span", [[0.4, "0 s"], [59.9, "59 s"], [60, "1 min"], [3599, "59 min"], [7200, "2 h"], [172_799, "47 h"], [172_800, "2 days"]]);
  table(dom, "ago", [[-5, "just now"], [1.9, "just now"], [2, "2 s ago"], [61, "1 min ago"]]);
  table(dom, "lately", [[undefined, "the last minute"], [60, "the last minute"], [55.1, "the last minute"], [55, "the last 55 s"], [1.02, "the last 1 s"]]);
  table(dom, "short", [["0123456789abcdef", "0123456789ab"], ["", "–"], [undefined, "–"]]);

  // Text is only ever text, and what people have opened stays so.
  const hostile = "<img src=x onerror=alert(1)>";
  const made = dom.h("p", { title: hostile, hidden: false, class: undefined }, hostile, null, [false, 0]);
  check("markup makes no element", [made.childElementCount, made.textContent, made.getAttribute("title")], [0, `${hostile}0`, hostile]);
  check("what is false is left out", made.getAttributeNames(), ["title"]);
  const place = dom.h("div");
  const list = (...keys) => dom.show(place, keys.map((key) => dom.h("details", { "data-key": key }, key)));
  list("a", "b");
  const [a] = place.children;
  a.open = true;
  list(hostile, "b", "a");
  check("elements are known by their keys", [[...place.children].map((child) => child.textContent), place.lastChild === a, a.open, place.querySelector("img")], [[hostile, "b", "a"], true, true, null]);
  const drawn = (values) => dom.spark(values).querySelector(".line").getAttribute("d");
  check("a picture of nothing", drawn([undefined, undefined]), "");
  check("a picture of one point", /^M[\d.]+ [\d.]+h\.01$/.test(drawn([undefined, 1])), true);
  check("a picture of zeroes", drawn([0, 0]).includes("NaN"), false);

  // Intervals of a verdict.
  const words = (...all) => intervals(all)?.textContent;
  check("none", words(), undefined);
  check("of a share", words({ of: "candidate", low: -0.02, high: 0.03, limit: 0.01, unit: "part" }), "candidate−2.0 % – 3.0 % limit 1.0 %");
  check("of a time, open above", words({ of: "p99", low: 1200, high: null, limit: null, unit: "us" }), "p991.2 ms – ?");
  const width = intervals([{ of: hostile, low: 0, high: 0, limit: null, unit: "part" }]).querySelector("rect").getAttribute("width");
  check("of nothing", Number.isFinite(Number(width)), true);

  // What other gateways say is theirs.
  check("figures that are none", wellFormed({ a: [[["x"], 1]], b: [["x", 1]], c: "no", d: [[["x"], "1"]], e: [[["x"], 1, [null]]] }), { a: [[["x"], 1]] });
  check("no figures", wellFormed(null), {});

  // Alarms in words.
  const replica = (id, more) => ({ id, healthy: true, role: id === 3 ? "leader" : "follower", reaches_catalog: true, rows: 9, said: null, ...more });
  const moment = (more) => ({
    at_ms: 1e12, leader: 3, catalog: { reachable: true, in_sync: [1, 2, 3], journal_rows: 9 },
    catalogs: [{ url: "http://c", role: "active", said: null }], replicas: [1, 2, 3].map((id) => replica(id)),
    gateways: [{ key: "g", report: { why_not_ready: null, figures: {} } }], ...more,
  });
  table({ routeWords }, "routeWords", [["trade", "trading"], [hostile, hostile]]);
  const found = (more, policies) => alarms({ now: moment(more), policies }).map(({ words, what }) => [words, what]);
  const takenBack = { what: "rollback", at_ms: 1e12 - 65_000, why: hostile, from_name: "bad 2", to_name: "good 1", incident: { cause: "trapped" } };
  check("a policy was taken back", found({}, { g: { policy: { active: { name: "p" }, changes: [takenBack] } } }), [["Gateway g rolled its policy back by itself, 1 min ago", hostile]]);
  check("a replica lags", found({ replicas: [replica(1, { said: { figures: { bazaar_order_lag_seconds: [[[], 61]] } } }), replica(2), replica(3)] }).map(([words]) => words), ["Replica 1 lacks rows for 1 min"]);
  const expired = Array.from({ length: 100 }, (_, at) => [[`c${at}`], 1]);
  const loud = { key: "loud", report: { figures: { bazaar_certificate_expiry_timestamp_seconds: expired } } };
  const beside = alarms({ now: moment({ gateways: [loud], leader: null }) });
  check("one gateway's alarms hide no other's", [beside.length, beside.some(({ name }) => name === "BazaarNotReady")], [7, true]);

  // Who comes anew each second takes the place of none that was there for long.
  const seen = new Seen();
  const there = (key) => ({ key, name: key, release: "", report: {} });
  for (let at = 0; at < 100; at += 1) seen.look({ at, gateways: [there("own"), there("honest"), there(`host-${at}`)], areKnown: true });
  let gone = [];
  for (let at = 100; at < 200; at += 1) gone = seen.look({ at, gateways: [there("own"), there(`host-${at}`)], areKnown: true });
  check("those that are gone", [gone.length, gone[0]?.key, gone[0]?.seconds], [8, "honest", 100]);
  check("those that have no place", seen.passed, 199 - 7);
  check("what is kept", seen.all.size, 10);
  check("nobody knows", seen.look({ at: 200, gateways: [there("own")], areKnown: false }), []);
  check("for long", seen.look({ at: 900, gateways: [there("own")], areKnown: true }), []);

  // How old another gateway's word is.
  const card = (age_ms, why_not_ready = null) => {
    const { dataset, childNodes: [, says] } = gatewayCard({ key: "g", age_ms, release: "1", report: { why_not_ready, figures: {} } }, { now: moment(), policies: {}, me: {} });
    return `${dataset.state}: ${says.textContent}`;
  };
  check("heard a moment ago", card(1900), "ok: ready");
  check("heard long ago", card(12_000), "warn: last heard 12 s ago");
  check("not ready, long ago", card(12_000, "no session"), "bad: no session, last heard 12 s ago");

  // Failures of what is in service, the latest first.
  const incident = (kind, at_ms, has_trace) => ({ kind, at_ms, has_trace, request: `GET /${hostile}`, cause: hostile, request_id: "r" });
  const having = (digest, ...incidents) => ({ name: "p", version: "1", digest, incidents });
  const both = { active: having("a1", incident("trap", 1e12 - 9000, true)), candidate: having("b2", incident("overrun", 1e12 - 3000, false)) };
  const ofBoth = [...failures(both, { at_ms: 1e12 }).querySelectorAll(".incident")].map((one) => [
    ...["strong", "code", ".cause"].map((part) => one.querySelector(part).textContent), one.querySelectorAll("[data-load=trace]").length]);
  check("failures", ofBoth, [["took too long", `GET /${hostile}`, hostile, 0], ["trapped", `GET /${hostile}`, hostile, 1]]);
  check("no failures", failures({ active: having("a1") }, { at_ms: 1e12 }), undefined);

  // At a glance.
  const counted = (samples) => ({ newest: { sources: new Map([["gateway g", { bazaar_request_duration_seconds: samples }]]) } });
  const { History, Span, hitRatio, routes, stages, trades } = await import("/console/figures.js");
  const buckets = (place) => Array.from({ length: 20 }, (_, at) => (at === place ? 100 : 0));
  const minute = new Span([counted([[["trade", "none", "2xx"], 1, buckets(17)], [["stock", "hit", "2xx"], 1, buckets(3)]]).newest]);
  const answers = (more, policies = {}, over = minute) => glance({ now: moment(more), policies, minute: over }).map(({ state, words }) => `${state}: ${words}`);
  check("all is well", answers({}, {}, null), ["ok: None", "ok: Not known yet", "ok: None was"]);
  check("the slowest route", answers()[1], "warn: Trading: 5.0 s");
  const behind = replica(2, { said: { figures: { bazaar_order_lag_seconds: [[[], 12]], bazaar_order_lag_rows: [[[], 340]] } } });
  check("a replica lags", answers({ replicas: [replica(1), behind, replica(3)] })[0], "warn: Replica 2: 340 rows, 12 s behind");
  check("one is silent", answers({ replicas: [replica(1, { healthy: false }), behind, replica(3)] })[0], "bad: Replica 1 does not answer");
  const gateways = ["a", "b", "odd"].map((key) => ({ key, own: key === "a", report: null }));
  const byAda = { what: "rollback", at_ms: 1e12 - 1e7, why: "not said", who: "Ada", known_by: "token" };
  const policies = { a: { policy: { changes: [byAda] } }, b: { policy: { changes: [takenBack] } }, odd: { policy: { changes: "none" } } };
  check("why it was taken back", answers({ gateways }, policies)[2], `warn: ${hostile}: trapped`);
  const [, , last] = glance({ now: moment({ gateways }), policies, minute });
  check("when, by whom, and where", [last.more, last.gateway], ["1 min ago · by the gateway itself · bad 2 → good 1 · at b", "b"]);
  check("by people", answers({ gateways }, { a: policies.a })[2], "ok: Without a reason");

  // What is shown of figures: of each route what was asked, what came of it, and how long it took.
  const bucket = (place, many) => Array.from({ length: 20 }, (_, at) => (at === place ? many : 0));
  const figures = (many) => ({
    bazaar_request_duration_seconds: [[["stock", "hit", "2xx"], many, bucket(3, 9 * many)], [["stock", "miss", "4xx"], many, bucket(15, many)], [["trade", "none", "5xx"], many, bucket(15, many)]],
    bazaar_requests_total: [[["d", "stock", "hit", "2xx"], 1], [["d", "refused", "none", "4xx"], many]],
    bazaar_cache_lookups_total: [[["stock", "hit"], 9 * many], [["stock", "miss"], many]],
    bazaar_trades_total: [[["traded"], 3 * many], [["refused"], 2 * many], [["unavailable"], many]],
    bazaar_trade_stage_seconds: [[["place"], many, bucket(15, many)], [["append"], many, bucket(0, 2 * many)]],
  });
  const busy = new History();
  for (const [at, many] of [[0, 10], [20, 30]]) busy.add(moment({ at_ms: 1e12 + 1000 * at, gateways: [{ key: "g", report: { figures: figures(many) } }] }));
  const rows = (span) => routes(span).map(({ name, count, rate, hits, lookups, refused, failed, p50, p90, p99 }) => [name, count, rate, hits, lookups, refused, failed, ...[p50, p90, p99].map(dom.time)]);
  check("routes lately", rows(busy.over(60)), [
    ["stock", 200, 10, 180, 200, 20, 0, "78 µs", "100 µs", "950 ms"],
    ["trade", 20, 1, 0, 0, 0, 20, "750 ms", "950 ms", "995 ms"],
    ["refused", 20, 1, 0, 0, 20, 0, "–", "–", "–"],
  ]);
  check("routes since start", rows(busy.sinceStart()).map(([name, count]) => [name, count]), [["stock", 300], ["trade", 30], ["refused", 30]]);
  check("routes of another gateway", routes(busy.over(60), (who) => who === "gateway other"), []);
  check("the hit ratio", [hitRatio(busy.over(60)), hitRatio(minute)], [0.9, undefined]);
  check("what became of trades", trades(busy.over(60)), { traded: 60, refused: 40, unavailable: 20 });
  const told = stages(busy.over(60)).filter(({ count }) => count > 0).map(({ stage, count, p50, p99 }) => [stage, count, dom.time(p50), dom.time(p99)]);
  check("stages", told, [["place", 20, "750 ms", "995 ms"], ["append", 40, "5 µs", "10 µs"]]);

  // Who says for the first time how it is after the page was opened counts from then on, and who has left until then.
  const history = new History();
  const say = (seconds, said) => history.add(moment({ at_ms: 1e12 + 1000 * seconds, gateways: Object.entries(said).map(([key, requests]) => (
    { key, report: requests === undefined ? null : { figures: { bazaar_request_duration_seconds: [[["trade", "none", "2xx"], 1, [requests]]] } } })) }));
  say(0, { a: 100, left: 7, late: undefined });
  say(10, { a: 110, left: 27, late: 1000 });
  say(20, { a: 120, late: 1030 });
  const span = history.over(60);
  const [all] = routes(span);
  check("requests of all", [all.count, all.rate], [20 + 20 + 30, 20 / 20 + 20 / 20 + 30 / 10]);
  check("of the one that came late", routes(span, (who) => who === "gateway late").map(({ count, rate }) => [count, rate]), [[30, 3]]);
  check("who is there", [...span.sources].map(([who, { isThere }]) => [who, isThere]), [["gateway a", true], ["gateway late", true], ["gateway left", false]]);

  // What is done says what was seen.
  const version = (digest) => ({ name: digest, version: "1", digest });
  const policy = { active: version("aa"), previous: version("bb"), candidate: version("cc") };
  const path = (what, data = {}) => action(what, data, policy).path;
  check("rolls back", path("rollback"), "/policy/rollback?digest=bb&active=aa");
  check("promotes", path("promote"), "/policy/promote?digest=cc&active=aa");
  check("activates", path("activate", { digest: "dd" }), "/policy/activate?digest=dd&active=aa");
  check("drops", path("drop"), "/policy/candidate?digest=cc");
  for (const what of ["pause", "resume", "skip"]) check(what, path(what, { digest: "cc", step: "2" }), `/policy/rollout/${what}?digest=cc&step=2`);
  return wrong;
}
