// Lets each client do so much in a time: who has used that up gets 429, with `Retry-After`. As
// `client-limits.rs`, with the same configuration:
//
//   {"requests": 50, "period_ms": 1000, "burst": 100, "client_header": "x-client"}
//
// Clients are told apart by their addresses, or networks of IPv6; with `client_header` by that header where a
// request has it. Only a proxy that lets no client choose it may set that header.

import { ApiError, decide, fromUtf8, policy as base } from "./policy.js";

const BUCKET = "requests";
// What tells clients apart, at most; one byte says whether it is a header or an address.
const KEY_BYTES_MAX = 255;

let clientHeader = null;

export const policy = {
  ...base,

  configure(config) {
    const { requests, period_ms, burst, client_header } = parse(config);
    clientHeader = client_header ?? null;
    const manifest = base.configure(new Uint8Array());
    return {
      ...manifest,
      name: "client-limits",
      headers: clientHeader === null ? manifest.headers : [...manifest.headers, clientHeader],
      connection: true,
      // Nobody gets more because something went wrong.
      onFailure: "refuse",
      buckets: [{ name: BUCKET, tokens: requests, periodMs: period_ms, burst }],
    };
  },

  onRequest(request) {
    return decide({ tag: "take", val: { bucket: BUCKET, key: client(request), cost: 1 } });
  },

  onOutcome(request, memo, outcome) {
    if (outcome.tag === "granted") return base.onRequest(request);
    if (outcome.tag !== "denied") return base.onOutcome(request, memo, outcome);
    const seconds = Math.max(1, Math.ceil(outcome.val / 1000));
    const error = new ApiError(429, "too many requests, try again later", ["retry-after", `${seconds}`]);
    return decide({ tag: "respond", val: error.response() });
  },
};

function parse(config) {
  const form = 'write {"requests": 50, "period_ms": 1000, "burst": 100}';
  let written;
  try {
    written = JSON.parse(fromUtf8(config));
  } catch (error) {
    throw `${form}: ${error.message}`;
  }
  const { requests, period_ms, burst, client_header = "-", ...others } = written ?? {};
  const areNumbers = [requests, period_ms, burst].every((it) => Number.isInteger(it) && it > 0 && it < 2 ** 32);
  if (!areNumbers || typeof client_header !== "string" || Object.keys(others).length > 0) throw form;
  return written;
}

// What tells a request's client from others. Of those who cannot be told apart all share one key.
function client({ headers, connection }) {
  const named = headers.filter(([name]) => name === clientHeader);
  if (named.length === 1) return Uint8Array.of(1, ...named[0][1].subarray(0, KEY_BYTES_MAX));
  // A client sent one of them, and nobody knows which.
  if (named.length > 1) return new Uint8Array();
  const place = network(connection?.client ?? "");
  return Uint8Array.from(place, (character) => character.charCodeAt(0));
}

// An address of IPv4, or the first half of one of IPv6: who has a network has all its addresses.
function network(address) {
  if (!address.includes(":")) return address;
  const mapped = address.match(/^::ffff:([0-9.]+)$/);
  if (mapped) return mapped[1];
  const [before, after] = address.split("::").map((part) => part.split(":").filter((group) => group));
  const zeros = after ? Array(8 - before.length - after.length).fill("0") : [];
  return [...before, ...zeros, ...(after ?? [])].slice(0, 4).join(":");
}
