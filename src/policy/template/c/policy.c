// A policy in C. It looks up stocks and keeps a leader that works; whatever else is asked for gets 404.
//
// A policy is a pure function over values: it does no I/O and keeps nothing between calls but its
// configuration, and the host may throw an instance away at any time. The world is `wit/policy.wit`; `bindings/front_end.h` is what C makes of it. What a
// function is given is its own to free, and what it returns the host frees: it must be from `malloc`.

#include <stdlib.h>
#include <string.h>

#include "front_end.h"

// Longest name of a stock, in bytes.
#define NAME_BYTES_MAX 64

// Longest body of a response, in bytes: a name can be twice as long in JSON.
#define BODY_BYTES_MAX 512

// How long the host may keep what it renders of a stock, in milliseconds, within the freshness that is
// asked for.
#define STOCK_KEEP_MS 60000

// How many orders a replica may lack and still lead at once.
#define ORDERS_BEHIND_MAX 4096

// ---- texts ----

// A text that grows up to a bound, past which it is cut.
typedef struct {
  char bytes[BODY_BYTES_MAX];
  size_t length;
} text_t;

static void append_byte(text_t *text, char byte) {
  if (text->length < sizeof text->bytes) text->bytes[text->length++] = byte;
}

static void append(text_t *text, const char *more) {
  while (*more) append_byte(text, *more++);
}

static void append_number(text_t *text, uint64_t number) {
  if (number >= 10) append_number(text, number / 10);
  append_byte(text, (char)('0' + number % 10));
}

// A string of JSON. Names have no control characters.
static void append_quoted(text_t *text, front_end_string_t string) {
  append_byte(text, '"');
  for (size_t index = 0; index < string.len; index++) {
    char byte = (char)string.ptr[index];
    if (byte == '"' || byte == '\\') append_byte(text, '\\');
    append_byte(text, byte);
  }
  append_byte(text, '"');
}

// ---- decisions ----

typedef exports_bazaar_policy_policy_decision_t decision_t;

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (!memory) abort();  // The last good version decides in its place.
  return memory;
}

// An answer of JSON. `keep_ms` of 0 is for none.
static void respond(decision_t *decision, uint16_t status, const text_t *body, uint32_t keep_ms) {
  memset(decision, 0, sizeof *decision);
  decision->action.tag = BAZAAR_POLICY_TYPES_ACTION_RESPOND;
  bazaar_policy_types_response_t *response = &decision->action.val.respond;
  response->status = status;
  response->headers.len = 1;
  response->headers.ptr = allocate(sizeof *response->headers.ptr);
  front_end_string_dup(&response->headers.ptr[0].f0, "content-type");
  front_end_string_dup(&response->headers.ptr[0].f1, "application/json");
  response->body.len = body->length;
  response->body.ptr = allocate(body->length);
  memcpy(response->body.ptr, body->bytes, body->length);
  response->keep_ms.is_some = keep_ms > 0;
  response->keep_ms.val = keep_ms;
}

static void refuse(decision_t *decision, uint16_t status, const char *message) {
  text_t body = {.length = 0};
  append(&body, "{\"error\":{\"code\":");
  append_number(&body, status);
  append(&body, ",\"message\":\"");
  append(&body, message);
  append(&body, "\"}}");
  respond(decision, status, &body, 0);
}

// ---- requests ----

static int hex_digit(uint8_t digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

// The name of a stock in a path, percent-decoded: its length, or 0 where it is none. Names in other
// letters than ASCII's are left to you.
static size_t stock_name(const uint8_t *segment, size_t length, char name[NAME_BYTES_MAX]) {
  size_t bytes = 0;
  for (size_t index = 0; index < length; index++) {
    int byte = segment[index];
    if (byte == '%') {
      if (index + 2 >= length) return 0;
      int high = hex_digit(segment[index + 1]), low = hex_digit(segment[index + 2]);
      if (high < 0 || low < 0) return 0;
      byte = high * 16 + low;
      index += 2;
    } else if (byte == '/') {
      return 0;
    }
    if (byte < ' ' || byte > '~' || bytes == NAME_BYTES_MAX) return 0;
    name[bytes++] = (char)byte;
  }
  return bytes;
}

static void decide(const exports_bazaar_policy_policy_request_t *request, decision_t *decision) {
  static const char stocks[] = "/stocks/";
  const size_t prefix = sizeof stocks - 1;
  const uint8_t *target = request->target.ptr;
  size_t length = request->target.len;
  const uint8_t *query = length ? memchr(target, '?', length) : NULL;
  if (query) length = (size_t)(query - target);
  if (length < prefix || memcmp(target, stocks, prefix) != 0) {
    refuse(decision, 404, "no such path");
    return;
  }
  if (request->method != BAZAAR_POLICY_TYPES_METHOD_GET &&
      request->method != BAZAAR_POLICY_TYPES_METHOD_HEAD) {
    refuse(decision, 405, "method not allowed, only GET, HEAD");
    return;
  }
  char name[NAME_BYTES_MAX];
  size_t bytes = stock_name(target + prefix, length - prefix, name);
  if (bytes == 0) {
    refuse(decision, 404, "stock not found");
    return;
  }
  memset(decision, 0, sizeof *decision);
  decision->action.tag = BAZAAR_POLICY_TYPES_ACTION_READ_STOCK;
  bazaar_policy_types_read_stock_t *read = &decision->action.val.read_stock;
  front_end_string_dup_n(&read->name, name, bytes);
  read->caching.freshness.tag = BAZAAR_POLICY_TYPES_FRESHNESS_LINEARIZABLE;
}

static void render(const bazaar_policy_types_stock_t *stock, decision_t *decision) {
  text_t body = {.length = 0};
  append(&body, "{\"data\":{\"name\":");
  append_quoted(&body, stock->name);
  append(&body, ",\"price\":");
  append_number(&body, stock->price_minor / 100);
  append_byte(&body, '.');
  append_byte(&body, (char)('0' + stock->price_minor / 10 % 10));
  append_byte(&body, (char)('0' + stock->price_minor % 10));
  append(&body, ",\"quantity\":");
  append_number(&body, stock->quantity);
  append(&body, "}}");
  respond(decision, 200, &body, STOCK_KEEP_MS);
}

// ---- the functions of the world ----

// Called once, before anything else: what is made of a configuration may be kept. False is an error, for
// the operator to read. This policy has no configuration.
bool exports_bazaar_policy_policy_configure(front_end_list_u8_t *config,
                                            exports_bazaar_policy_policy_manifest_t *manifest,
                                            front_end_string_t *error) {
  bool is_empty = config->len == 0;
  front_end_list_u8_free(config);
  if (!is_empty) {
    front_end_string_dup(error, "this policy takes no configuration");
    return false;
  }
  memset(manifest, 0, sizeof *manifest);
  front_end_string_dup(&manifest->name, "POLICY-NAME");
  front_end_string_dup(&manifest->version, "0.1.0");
  manifest->cache.stocks_max = 10000;
  manifest->cache.eviction = BAZAAR_POLICY_TYPES_EVICTION_LRU;
  manifest->on_failure = BAZAAR_POLICY_TYPES_ON_FAILURE_LAST_GOOD;
  return true;
}

void exports_bazaar_policy_policy_on_request(exports_bazaar_policy_policy_request_t *request,
                                             decision_t *decision) {
  decide(request, decision);
  exports_bazaar_policy_policy_request_free(request);
}

void exports_bazaar_policy_policy_on_outcome(exports_bazaar_policy_policy_request_t *request,
                                             front_end_list_u8_t *memo,
                                             exports_bazaar_policy_policy_outcome_t *outcome,
                                             decision_t *decision) {
  switch (outcome->tag) {
    case BAZAAR_POLICY_TYPES_OUTCOME_STOCK:
      render(&outcome->val.stock, decision);
      break;
    case BAZAAR_POLICY_TYPES_OUTCOME_REFUSED:
      refuse(decision, 404, "stock not found");
      break;
    default:
      refuse(decision, 503, "the catalog does not answer");
  }
  exports_bazaar_policy_policy_request_free(request);
  front_end_list_u8_free(memo);
  exports_bazaar_policy_policy_outcome_free(outcome);
}

// A leader that works stays; else the highest id that works and can lead at once takes over.
bool exports_bazaar_policy_policy_elect(exports_bazaar_policy_policy_view_t *view,
                                        exports_bazaar_policy_policy_replica_id_t *elected) {
  const bazaar_policy_types_replica_t *replicas = view->replicas.ptr;
  uint64_t furthest = 0;
  bool leader_works = false, found = false;
  for (size_t index = 0; index < view->replicas.len; index++) {
    const bazaar_policy_types_replica_t *replica = &replicas[index];
    if (!replica->healthy || !replica->reaches_catalog) continue;
    if (replica->orders > furthest) furthest = replica->orders;
    leader_works |= view->leader.is_some && replica->id == view->leader.val;
  }
  for (size_t index = 0; index < view->replicas.len && !leader_works; index++) {
    const bazaar_policy_types_replica_t *replica = &replicas[index];
    if (!replica->healthy || !replica->reaches_catalog) continue;
    bool can_lead = replica->in_sync || furthest - replica->orders <= ORDERS_BEHIND_MAX;
    if (can_lead && (!found || replica->id > *elected)) {
      *elected = replica->id;
      found = true;
    }
  }
  exports_bazaar_policy_policy_view_free(view);
  return found;
}
