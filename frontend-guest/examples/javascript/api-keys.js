// Lets in who sends an API key that it knows, and has refused whatever it fails to decide about: nobody
// gets in because something went wrong. As `api-keys.rs`, with the same configuration:
//
//   {"keys": {"alice": "${file:alice}", "bob": "${env:BAZAAR_SECRET_BOB}"}}
//
// A client sends its key as `Authorization: Bearer KEY`. Idempotency keys are each client's own.

import { ApiError, decide, fromUtf8, policy as base } from "./policy.js";

// Shorter keys can be guessed.
const KEY_BYTES_MIN = 16;
// Names go before idempotency keys, which leaves those 95 bytes.
const NAME = /^[A-Za-z0-9_-]{1,32}$/;

// Each client's name, and its key as bytes.
let clients = [];

export const policy = {
  ...base,

  configure(config) {
    clients = Object.entries(parse(config)).map(([name, key]) => {
      if (!NAME.test(name)) throw `\`${name}\` is not a name of letters, digits, - and _`;
      if (typeof key !== "string" || key.length < KEY_BYTES_MIN || !/^[!-~]*$/.test(key)) {
        throw `the key of \`${name}\` must have ${KEY_BYTES_MIN} visible ASCII characters at least`;
      }
      return { name, key: bytes(key) };
    });
    if (new Set(Object.values(parse(config))).size < clients.length) throw "two clients have the same key";
    if (clients.length === 0) throw "nobody has a key: nobody could get in";
    return {
      ...base.configure(new Uint8Array()),
      name: "api-keys",
      headers: ["idempotency-key", "authorization"],
      onFailure: "refuse",
    };
  },

  onRequest(request) {
    const name = client(request);
    if (name === null) return unauthorized();
    const decision = base.onRequest(request);
    const { tag, val } = decision.action;
    if (tag === "trade" && val.idempotencyKey !== null) {
      val.idempotencyKey = `${name}:${val.idempotencyKey}`;
      if (val.idempotencyKey.length > 128) {
        return respond(new ApiError(400, "the Idempotency-Key is too long"));
      }
    }
    return decision;
  },

  onOutcome(request, memo, outcome) {
    const decision = base.onOutcome(request, memo, outcome);
    // A cache that several people share would let in those who have no key.
    if (outcome.tag === "order") {
      for (const header of decision.action.val.headers) {
        if (header[0] === "cache-control") header[1] = "private, max-age=31536000, immutable";
      }
    }
    return decision;
  },
};

function parse(config) {
  const form = 'write {"keys": {"NAME": "KEY"}}';
  let written;
  try {
    written = JSON.parse(fromUtf8(config));
  } catch (error) {
    throw `${form}: ${error.message}`;
  }
  const { keys, ...others } = written ?? {};
  if (typeof keys !== "object" || keys === null || Object.keys(others).length > 0) throw form;
  return keys;
}

// Who sent a request, or null.
function client({ headers }) {
  const sent = headers.filter(([name]) => name === "authorization");
  const scheme = bytes("Bearer ");
  if (sent.length !== 1 || !isSame(sent[0][1].subarray(0, scheme.length), scheme)) return null;
  const key = sent[0][1].subarray(scheme.length);
  // All are compared, whichever it is: how long that takes says nothing about the keys.
  let found = null;
  for (const client of clients) if (isSame(key, client.key)) found = client.name;
  return found;
}

// Takes as long whatever differs. How long a key is, is no secret.
function isSame(one, other) {
  if (one.length !== other.length) return false;
  let difference = 0;
  for (let index = 0; index < one.length; index++) difference |= one[index] ^ other[index];
  return difference === 0;
}

// Of ASCII.
function bytes(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function unauthorized() {
  const asks = ["www-authenticate", 'Bearer realm="bazaar"'];
  return respond(new ApiError(401, "send an API key: Authorization: Bearer KEY", asks));
}

function respond(error) {
  return decide({ tag: "respond", val: error.response() });
}
