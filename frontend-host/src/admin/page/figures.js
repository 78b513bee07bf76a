// What is counted, over a time: differences of counters, and quantiles of histograms' differences.

const KEPT = 61; // a minute, at one a second
const POINTS = 60; // of a small picture: a minute

const log = (first) => Array.from({ length: 19 }, (_, place) => first * [1, 2, 5][place % 3] * 10 ** Math.floor(place / 3));

// The bounds of docs/METRICS.md.
export const SECONDS = log(1e-5);
export const DECISIONS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000].map((us) => us / 1e6);

// What other gateways say is theirs: of their figures, those that are in the form of figures.
export function wellFormed(figures) {
  const areNumbers = (list) => Array.isArray(list) && list.every(Number.isFinite);
  const areTexts = (list) => Array.isArray(list) && list.every((one) => typeof one === "string");
  const isSample = (sample) => Array.isArray(sample) && areTexts(sample[0]) && Number.isFinite(sample[1]) && (sample[2] === undefined || areNumbers(sample[2]));
  const families = Object.entries(figures ?? {}).filter(([, samples]) => Array.isArray(samples) && samples.every(isSample));
  return Object.fromEntries(families);
}

// Everybody who counts at one moment: `[who, figures]`, by which a process is known again.
export function sources(now) {
  const of = (who, said) => (said?.figures ? [[who, said.figures]] : []);
  return [
    ...now.gateways.flatMap((gateway) => of(`gateway ${gateway.key}`, gateway.report)),
    ...now.replicas.flatMap((replica) => of(`replica ${replica.id}`, replica.said)),
    ...now.catalogs.flatMap((catalog) => of(`catalog ${catalog.url}`, catalog.said)),
  ];
}

// The one value of a family without labels.
export const gauge = (figures, name) => figures?.[name]?.[0]?.[1];

export class History {
  moments = [];
  series = new Map();
  isNew = false; // until all that is shown of the newest moment has its point

  // Takes in a moment.
  add(now) {
    const at = now.at_ms / 1000;
    const last = this.moments.at(-1);
    if (at === last?.at) return; // said again, as at the beginning of each stream
    this.isNew = true;
    if (last && (at < last.at || at - last.at > 30)) this.moments = []; // another clock, or it was away
    this.moments.push({ at, sources: new Map(sources(now)) });
    while (this.moments.length > KEPT) this.moments.shift();
  }

  // A picture's figures, with another one at the end.
  point(name, value) {
    const points = this.series.get(name) ?? Array(POINTS).fill(undefined);
    if (!this.isNew) return points;
    points.push(value);
    points.shift();
    this.series.set(name, points);
    return points;
  }

  // The newest two of which one is so many seconds older, or as much as there is; `undefined` where there is one alone.
  over(seconds) {
    const newest = this.moments.at(-1);
    if (!newest) return undefined;
    const moments = this.moments.filter(({ at }) => at >= newest.at - seconds - 0.5);
    return moments.length > 1 ? new Span(moments) : undefined;
  }

  // From when each process began.
  sinceStart() {
    const newest = this.moments.at(-1);
    return newest && new Span([newest]);
  }
}

// What was counted from the first to the last of some moments; from when each process began where there is one alone.
export class Span {
  constructor(moments) {
    const newest = moments.at(-1);
    this.seconds = moments.length > 1 ? newest.at - moments[0].at : undefined;
    // Of each who was there, what it said last and first, and how long ago that was: others say for the first time how they are
    // after the page was opened, and some have left since.
    this.sources = new Map();
    for (const { at, sources } of [...moments].reverse()) {
      for (const [who, figures] of sources) {
        const last = this.sources.get(who)?.last ?? figures;
        this.sources.set(who, { last, first: figures, seconds: newest.at - at, isThere: newest.sources.has(who) });
      }
    }
  }

  // Samples of a family with what was added to them: `[who, labels, value, buckets]`. One that was counted anew began at 0; of who
  // has said once how it is nothing is known yet.
  *added(name, isOf = () => true) {
    for (const [who, { last, first, seconds }] of this.sources) {
      if (!isOf(who) || !last[name] || (this.seconds && !seconds)) continue;
      const were = this.seconds ? first : undefined;
      const known = new Map((were?.[name] ?? []).map((sample) => [sample[0].join("\0"), sample]));
      for (const [labels, value, buckets] of last[name]) {
        const old = known.get(labels.join("\0"));
        const before = (place) => old[2]?.[place] ?? 0;
        const isNew = !old || value < old[1] || buckets?.some((one, place) => one < before(place));
        yield [who, labels, isNew ? value : value - old[1], buckets?.map((one, place) => (isNew ? one : one - before(place)))];
      }
    }
  }

  sum(name, isOf, pick = () => true) {
    let sum = 0;
    for (const [, labels, value] of this.added(name, isOf)) if (pick(labels)) sum += value;
    return sum;
  }

  // The same a second, of each over the time that it is known for.
  rate(name, isOf, pick = () => true) {
    let rate = 0;
    for (const [who, labels, value] of this.added(name, isOf)) if (pick(labels)) rate += value / this.sources.get(who).seconds;
    return rate;
  }

  // Histograms added up, by what `group` says of their labels.
  histograms(name, group, isOf) {
    const all = new Map();
    for (const [who, labels, sum, buckets] of this.added(name, isOf)) {
      const key = group(labels, who);
      if (key === undefined || !buckets || (all.get(key) ?? { buckets }).buckets.length !== buckets.length) continue; // of another release
      const known = all.get(key) ?? { sum: 0, count: 0, buckets: Array(buckets.length).fill(0) };
      known.sum += sum;
      buckets.forEach((one, place) => {
        known.buckets[place] += one;
        known.count += one;
      });
      all.set(key, known);
    }
    return all;
  }
}

// A quantile of a histogram, as if what is in a bucket were evenly spread; `undefined` where there is nothing.
export function quantile(histogram, part, bounds = SECONDS) {
  if (!histogram || histogram.count <= 0) return undefined;
  const wanted = part * histogram.count;
  let below = 0;
  for (let place = 0; place < histogram.buckets.length; place += 1) {
    const here = histogram.buckets[place];
    if (here > 0 && below + here >= wanted) {
      if (place >= bounds.length) return Infinity;
      const low = place === 0 ? 0 : bounds[place - 1];
      return low + (bounds[place] - low) * ((wanted - below) / here);
    }
    below += here;
  }
  return Infinity;
}

// Requests that were answered: `[who, [route, cache, status], how many]`. By their durations, since a version of the policy takes
// what it has counted along when it goes; what was refused has none.
export function* answered(span, isOf) {
  for (const [who, labels, , buckets = []] of span.added("bazaar_request_duration_seconds", isOf)) {
    yield [who, labels, buckets.reduce((sum, one) => sum + one, 0)];
  }
  for (const [who, [, ...labels], many] of span.added("bazaar_requests_total", isOf)) {
    if (labels[0] === "refused") yield [who, labels, many];
  }
}

const LOOKUPS = ["hit", "miss", "stale", "bypass"];

// What the table of routes shows: each route that was asked for.
export function routes(span, isOf = () => true) {
  const isGateway = (who) => who.startsWith("gateway ") && isOf(who);
  const all = new Map();
  const route = (name) => {
    if (!all.has(name)) all.set(name, { name, count: 0, rate: span.seconds ? 0 : undefined, failed: 0, refused: 0, hits: 0, lookups: 0, buckets: undefined });
    return all.get(name);
  };
  for (const [who, [name, cache, status], added] of answered(span, isGateway)) {
    const known = route(name);
    known.count += added;
    if (span.seconds) known.rate += added / span.sources.get(who).seconds;
    if (status === "5xx") known.failed += added;
    if (status === "4xx") known.refused += added;
    if (LOOKUPS.includes(cache)) known.lookups += added;
    if (cache === "hit") known.hits += added;
  }
  for (const [name, histogram] of span.histograms("bazaar_request_duration_seconds", ([name]) => name, isGateway)) {
    route(name).took = histogram;
  }
  return [...all.values()].map((known) => ({
    ...known,
    p50: quantile(known.took, 0.5),
    p90: quantile(known.took, 0.9),
    p99: quantile(known.took, 0.99),
  }));
}

// A trade's way: each stage with how often, and how long.
export function stages(span) {
  const all = span.histograms("bazaar_trade_stage_seconds", ([stage]) => stage);
  const of = (stage) => {
    const took = all.get(stage);
    return { stage, count: took?.count ?? 0, p50: quantile(took, 0.5), p99: quantile(took, 0.99) };
  };
  return ["place", "lead", "commit", "queue", "store", "show", "append"].map(of);
}

export function trades(span) {
  const of = (result) => span.sum("bazaar_trades_total", undefined, ([it]) => it === result);
  return { traded: of("traded"), refused: of("refused"), unavailable: of("unavailable") };
}

// The share of lookups that the caches answered.
export function hitRatio(span) {
  const hits = span.sum("bazaar_cache_lookups_total", undefined, ([, result]) => result === "hit");
  const all = span.sum("bazaar_cache_lookups_total");
  return all > 0 ? hits / all : undefined;
}
