// Says on every reply, the gateway's own errors included, which pages may read it (CORS) and how browsers are
// to treat it. Its configuration has an origin on each line:
//
//   https://shop.example
//   http://localhost:3000
//
// Pages of these origins may read what they ask for, without cookies. No origin is allowed that is not listed.

#include "base.h"

// One header is added for each.
#define ORIGINS_MAX 50

typedef struct {
  const char *name, *value;
} pair_t;

// What every reply says to browsers: it is data, and nothing of it loads, runs or is shown in a page.
static const pair_t ALWAYS[] = {
    {"content-security-policy", "default-src 'none'; frame-ancestors 'none'"},
    {"cross-origin-resource-policy", "same-origin"},
    {"referrer-policy", "no-referrer"},
    {"x-content-type-options", "nosniff"},
    {"access-control-expose-headers", "cache-status, etag, retry-after"},
};
#define ALWAYS_COUNT (sizeof ALWAYS / sizeof *ALWAYS)

// What pages may do, besides what all may.
static const pair_t ALLOWED[] = {
    {"access-control-allow-methods", "GET, HEAD, POST"},
    {"access-control-allow-headers", "authorization, content-type, idempotency-key"},
    {"access-control-max-age", "600"},
};
#define ALLOWED_COUNT (sizeof ALLOWED / sizeof *ALLOWED)

// A browser that asks before it sends says this.
static const word_t ASKS = {"access-control-request-method", 29};

// As browsers send it: neither `*`, which allows all, nor `null`, which any page can be.
static bool is_origin(word_t origin) {
  static const char *const schemes[] = {"https://", "http://"};
  size_t at = 0;
  for (size_t index = 0; index < 2 && !at; index++) {
    size_t length = strlen(schemes[index]);
    if (origin.length > length && memcmp(origin.bytes, schemes[index], length) == 0) at = length;
  }
  if (!at) return false;
  for (; at < origin.length; at++) {
    char byte = origin.bytes[at];
    bool is_inside = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || (byte && strchr(".-:[]", byte));
    if (!is_inside) return false;
  }
  return true;
}

static void allow(bazaar_policy_types_reply_header_t *header, word_t origin) {
  front_end_string_dup(&header->name, "access-control-allow-origin");
  front_end_string_dup_n(&header->value, origin.bytes, origin.length);
  header->when.is_some = true;
  front_end_string_dup(&header->when.val.f0, "origin");
  front_end_string_dup_n(&header->when.val.f1, origin.bytes, origin.length);
}

bool exports_bazaar_policy_policy_configure(front_end_list_u8_t *config,
                                            exports_bazaar_policy_policy_manifest_t *manifest,
                                            front_end_string_t *error) {
  word_t origins[ORIGINS_MAX], rest = {(const char *)config->ptr, config->len}, line;
  size_t count = 0;
  bool are_origins = true;
  while (next_line(&rest, &line)) {
    are_origins = are_origins && count < ORIGINS_MAX && is_origin(line);
    if (are_origins) origins[count++] = line;
  }
  if (!are_origins) {
    front_end_string_dup(error, "write an origin on each line, at most 50: https://HOST or https://HOST:PORT, in lower case");
    return false;
  }
  if (!base_manifest("cors", manifest, error)) return false;
  // The gateway adds them, so that kept responses and its own errors have them as well.
  bazaar_policy_types_list_reply_header_t *headers = &manifest->reply_headers;
  headers->ptr = calloc(count + ALWAYS_COUNT, sizeof *headers->ptr);
  if (!headers->ptr) abort();
  for (size_t index = 0; index < count; index++) allow(&headers->ptr[headers->len++], origins[index]);
  for (size_t index = 0; index < ALWAYS_COUNT; index++) {
    bazaar_policy_types_reply_header_t *header = &headers->ptr[headers->len++];
    front_end_string_dup(&header->name, ALWAYS[index].name);
    front_end_string_dup(&header->value, ALWAYS[index].value);
  }
  want_header(manifest, ASKS);
  front_end_list_u8_free(config);
  return true;
}

void exports_bazaar_policy_policy_on_request(exports_bazaar_policy_policy_request_t *request,
                                             decision_t *decision) {
  if (request->method != BAZAAR_POLICY_TYPES_METHOD_OPTIONS || !header_of(request, ASKS)) {
    base_on_request(request, decision);
    return;
  }
  // A browser goes on only if its page's origin is allowed, too.
  memset(decision, 0, sizeof *decision);
  decision->action.tag = BAZAAR_POLICY_TYPES_ACTION_RESPOND;
  decision->action.val.respond.status = 204;
  for (size_t index = 0; index < ALLOWED_COUNT; index++) {
    add_header(decision, ALLOWED[index].name, ALLOWED[index].value);
  }
  exports_bazaar_policy_policy_request_free(request);
}

void exports_bazaar_policy_policy_on_outcome(exports_bazaar_policy_policy_request_t *request,
                                             front_end_list_u8_t *memo,
                                             exports_bazaar_policy_policy_outcome_t *outcome,
                                             decision_t *decision) {
  base_on_outcome(request, memo, outcome, decision);
}
