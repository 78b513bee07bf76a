// Key figures, requests by route, trades by stage.

import { $, count, h, lately, rate, share, show, spark, time } from "./dom.js";
import { hitRatio, routes, stages, trades } from "./figures.js";
import { lagOf } from "./services.js";

const tile = (key, name, value, unit, points, state, note) => h("div", { class: "tile", "data-key": key, "data-state": state },
  h("p", { class: "name" }, name), h("p", { class: "value" }, value, h("small", {}, unit)), spark(points, { kind: state ?? "" }), h("p", { class: "note" }, note));

export function showTiles({ now, last, minute, history }) {
  const seconds = last?.seconds;
  const per = (value) => (seconds ? value / seconds : undefined);
  const asked = last && routes(last);
  const all = asked?.reduce((sum, route) => sum + route.count, 0);
  const recent = minute ? routes(minute) : [];
  const requests = recent.reduce((sum, route) => sum + route.count, 0);
  const failed = recent.reduce((sum, route) => sum + route.failed, 0);
  const failing = asked?.reduce((sum, route) => sum + route.failed, 0);
  const trade = recent.find(({ name }) => name === "trade");
  const traded = last && trades(last).traded;
  const lags = now.replicas.map((replica) => [replica, lagOf(replica, now)]);
  const known = lags.filter(([, lag]) => lag);
  const worst = known.sort(([, one], [, other]) => other.seconds - one.seconds || other.rows - one.rows)[0];
  const isBehind = worst && worst[1].seconds > 1;
  const missing = now.replicas.filter((replica) => !replica.healthy).map(({ id }) => id);
  const hits = minute && hitRatio(minute);
  const p99 = last && routes(last).find(({ name }) => name === "trade")?.p99;
  show($("tiles"),
    tile("requests", "Requests", rate(per(all)), "/s", history.point("requests", per(all)), undefined, `${count(requests)} in ${lately(minute?.seconds)}`),
    tile("failed", "Failed", requests ? share(failed / requests) : "–", "", history.point("failed", per(failing)), failed > 0 ? "bad" : undefined, failed ? `${count(failed)} with 500 and above` : "none with 500 and above"),
    tile("hits", "Hit ratio", hits === undefined ? "–" : share(hits), "", history.point("hits", last && hitRatio(last)), undefined, "of lookups, from the caches"),
    tile("trades", "Trades", rate(per(traded)), "/s", history.point("trades", per(traded)), undefined, minute ? `${count(trades(minute).traded)} in ${lately(minute.seconds)}` : ""),
    tile("p99", "Trade p99", time(trade?.p99), "", history.point("p99", Number.isFinite(p99) ? p99 : undefined), trade?.p99 > 0.5 ? "warn" : undefined, "one in a hundred takes longer"),
    tile("lag", "Replica lag", worst ? (isBehind ? time(worst[1].seconds) : `${count(worst[1].rows)}`) : "–", worst && !isBehind ? "rows" : "", history.point("lag", worst?.[1].rows), isBehind || missing.length ? "warn" : undefined,
      missing.length ? `replica ${missing.join(", ")} does not answer` : isBehind ? `replica ${worst[0].id}` : "none lags"));
}

const NAMES = { stock: "Look up a stock", stocks: "List stocks", order: "Look up an order", orders: "List orders", events: "Follow orders",
  trade: "Trade", other: "Other", policy: "By the policy itself", refused: "Refused by HTTP" };

const PLACES = ["stock", "stocks", "order", "orders", "events", "trade", "policy", "other", "refused"];

export function showRoutes({ minute, start, last, history, span, of }) {
  $("lately").textContent = lately(minute?.seconds).replace("the last", "Last");
  const over = span === "minute" ? minute : start;
  const isOf = of ? (who) => who === `gateway ${of}` : undefined;
  const known = over ? routes(over, isOf) : [];
  const now = last ? routes(last, isOf) : [];
  for (const name of PLACES) history.point(`route ${of} ${name}`, last ? (now.find((route) => route.name === name)?.rate ?? 0) : undefined);
  // The same rows in the same places, from the first moment on.
  const rows = PLACES.map((name) => known.find((route) => route.name === name) ?? { name, count: 0, rate: 0, failed: 0, refused: 0, lookups: 0 });
  const slowest = Math.max(...rows.map(({ p99 }) => p99 ?? 0));
  const bar = (p99) => (p99 ? Math.max(4, 100 * (Math.log10(Math.min(p99, 10) / 1e-5) / 6)) : 0);
  show($("routes"), h("table", { class: "routes" },
    h("thead", {}, h("tr", {}, [["Route"], ["", "trend"], [span === "minute" ? "per s" : "count", "number"], ["hits", "number wide"], ["4xx", "number wide"], ["5xx", "number"], ["p50", "number wide"], ["p90", "number wide"], ["p99", "number"], ["", "bar wide"]].map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
    h("tbody", {}, rows.map((route) => {
      const isSlowest = route.p99 !== undefined && route.p99 === slowest && slowest > 0;
      const points = history.series.get(`route ${of} ${route.name}`) ?? [];
      return h("tr", { "data-key": route.name, class: route.count ? "" : "idle", "data-state": route.failed > 0 ? "bad" : undefined },
        h("th", { scope: "row" }, NAMES[route.name] ?? route.name, isSlowest && h("span", { class: "tag slow" }, "slowest")),
        h("td", { class: "trend" }, spark(points, { width: 72, height: 20 })),
        h("td", { class: "number" }, span === "minute" ? rate(over && route.rate) : count(route.count)),
        h("td", { class: "number wide" }, route.lookups ? share(route.hits / route.lookups) : "–"),
        h("td", { class: "number wide" }, count(route.refused)),
        h("td", { class: "number", "data-state": route.failed > 0 ? "bad" : undefined }, count(route.failed)),
        h("td", { class: "number wide" }, time(route.p50)), h("td", { class: "number wide" }, time(route.p90)), h("td", { class: "number strong" }, time(route.p99)),
        h("td", { class: "bar wide" }, h("meter", { class: isSlowest ? "slow" : "", min: 0, max: 100, value: bar(route.p99).toFixed(1), "aria-label": "p99, on a scale from 10 µs to 10 s" })));
    }))));
}

const STAGES = {
  place: ["At the gateway", "place: from the policy's decision to the answer, over all attempts", 0],
  lead: ["At the leader", "lead: from the order's arrival until every in-sync replica has its row", 1],
  commit: ["Catalog, and back", "commit: for all orders that went with it", 2],
  queue: ["waits its turn", "queue: for the catalog's writer", 3],
  store: ["is made durable", "store: by the catalog's database", 3],
  show: ["caches let go", "show: of what they hold, by their word or the end of their leases", 3],
  append: ["Followers' disks", "append: beside the commit", 2],
};

export function showStages({ minute, start, span }) {
  const over = span === "minute" ? minute : start;
  const known = over ? stages(over) : [];
  const rows = Object.keys(STAGES).map((stage) => known.find((one) => one.stage === stage) ?? { stage, count: 0 });
  const longest = Math.max(...rows.map(({ p99 }) => (Number.isFinite(p99) ? p99 : 0)), 0.001);
  const wide = (seconds) => (seconds === undefined ? 0 : Math.min(100 * Math.sqrt(Math.min(seconds, longest) / longest), 100));
  const became = over && trades(over);
  show($("stages"),
    h("ol", { class: "stages" }, rows.map(({ stage, count: times, p50, p99 }) => {
      const [name, what, depth] = STAGES[stage];
      return h("li", { "data-key": stage, class: times ? "" : "idle", "data-depth": depth },
        h("p", { title: what }, h("strong", {}, name)),
        h("p", { class: "times" }, h("span", {}, time(p50)), h("b", {}, time(p99))),
        h("div", { class: "way", "aria-hidden": "true" }, h("progress", { class: "p99", max: 100, value: wide(p99).toFixed(1) }), h("progress", { class: "p50", max: 100, value: wide(p50).toFixed(1) })));
    })),
    h("p", { class: "legend quiet" }, h("span", { class: "p50" }, "p50"), h("span", { class: "p99" }, "p99"), span === "minute" ? `in ${lately(minute?.seconds)}` : "since start"),
    h("dl", { class: "became" }, [["traded", became?.traded], ["refused", became?.refused], ["not answered in time", became?.unavailable]].map(([name, value]) =>
      h("div", { "data-state": name.startsWith("not") && value > 0 ? "bad" : undefined }, h("dt", {}, name), h("dd", {}, count(value))))));
}
