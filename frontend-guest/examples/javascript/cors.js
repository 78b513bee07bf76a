// Says on every reply, the gateway's own errors included, which pages may read it (CORS) and how browsers
// are to treat it. As `cors.rs`, with the same configuration:
//
//   {"origins": ["https://shop.example", "http://localhost:3000"]}
//
// Pages of these origins may read what they ask for, and send orders, without cookies. No origin is allowed
// that is not on the list.

import { decide, fromUtf8, policy as base } from "./policy.js";

// One header is added for each.
const ORIGINS_MAX = 50;

// A browser that asks before it sends says this.
const ASKS = "access-control-request-method";

// What every reply says to browsers: it is data, and nothing of it loads, runs or is shown in a page.
const ALWAYS = [
  ["content-security-policy", "default-src 'none'; frame-ancestors 'none'"],
  ["cross-origin-resource-policy", "same-origin"],
  ["referrer-policy", "no-referrer"],
  ["x-content-type-options", "nosniff"],
  ["access-control-expose-headers", "cache-status, etag, retry-after"],
];

// What pages may do, besides what all may.
const ALLOWED = [
  ["access-control-allow-methods", "GET, HEAD, POST"],
  ["access-control-allow-headers", "authorization, content-type, idempotency-key"],
  ["access-control-max-age", "600"],
];

export const policy = {
  ...base,

  configure(config) {
    const origins = parse(config);
    const manifest = base.configure(new Uint8Array());
    const allow = (origin) => ({
      name: "access-control-allow-origin",
      value: origin,
      when: ["origin", origin],
    });
    const always = ([name, value]) => ({ name, value, when: null });
    return {
      ...manifest,
      name: "cors",
      headers: [...manifest.headers, ASKS],
      // The gateway adds them, so that kept responses and its own errors have them as well.
      replyHeaders: [...origins.map(allow), ...ALWAYS.map(always)],
    };
  },

  onRequest(request) {
    const asks = request.method === "options" && request.headers.some(([name]) => name === ASKS);
    if (!asks) return base.onRequest(request);
    // A browser goes on only if its page's origin is allowed, too.
    const val = { status: 204, headers: ALLOWED, body: new Uint8Array(), keepMs: null };
    return decide({ tag: "respond", val });
  },
};

function parse(config) {
  const form = 'write {"origins": ["https://HOST"]}';
  let written;
  try {
    written = JSON.parse(fromUtf8(config));
  } catch (error) {
    throw `${form}: ${error.message}`;
  }
  const { origins, ...others } = written ?? {};
  if (!Array.isArray(origins) || Object.keys(others).length > 0) throw form;
  if (origins.length > ORIGINS_MAX) throw `more than ${ORIGINS_MAX} origins are listed`;
  // As browsers send it: neither `*`, which allows all, nor `null`, which any page can be.
  for (const origin of origins) {
    if (typeof origin !== "string" || !/^https?:\/\/[a-z0-9.:[\]-]+$/.test(origin)) {
      throw `\`${origin}\` is not an origin: https://HOST or https://HOST:PORT, in lower case`;
    }
  }
  return origins;
}
