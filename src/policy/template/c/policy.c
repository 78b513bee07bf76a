// A policy in C: it looks up and lists stocks, places, looks up, lists and follows orders, and keeps a leader
// that works. What it answers is what the default policy answers, but for its page.
//
// A policy is a pure function over values: it does no I/O and keeps nothing between calls but its
// configuration, and the host may throw an instance away at any time. The world is `wit/policy.wit`; `bindings/front_end.h` is what C makes of it. What a
// function is given is its own to free, and what it returns the host frees: it must be from `malloc`.

#include "front_end.h"
#include "json.h"
#include "text.h"

// Longest idempotency key, in bytes.
#define IDEMPOTENCY_KEY_BYTES_MAX 128

// Stocks or orders on a page: of a request that does not say, and at most.
#define LIMIT_DEFAULT 1000
#define LIMIT_MAX 10000

// How long the host may keep what it renders of a stock, in milliseconds, within the freshness that is
// asked for; and of an order, which never changes.
#define STOCK_KEEP_MS 60000
#define ORDER_KEEP_MS 3600000

// How many orders a replica may lack and still lead at once.
#define ORDERS_BEHIND_MAX 4096

typedef exports_bazaar_policy_policy_request_t request_t;
typedef exports_bazaar_policy_policy_decision_t decision_t;

// ---- decisions ----

static void begin(decision_t *decision, uint8_t action) {
  memset(decision, 0, sizeof *decision);
  decision->action.tag = action;
}

// One more header of a response.
static void add_header(decision_t *decision, const char *name, const char *value) {
  bazaar_policy_types_list_header_t *headers = &decision->action.val.respond.headers;
  headers->ptr = realloc(headers->ptr, (headers->len + 1) * sizeof *headers->ptr);
  if (!headers->ptr) abort();
  front_end_string_dup(&headers->ptr[headers->len].f0, name);
  front_end_string_dup(&headers->ptr[headers->len].f1, value);
  headers->len++;
}

// An answer of JSON, which takes the body over. `keep_ms` of 0 is for none.
static void respond(decision_t *decision, uint16_t status, text_t body, uint32_t keep_ms) {
  begin(decision, BAZAAR_POLICY_TYPES_ACTION_RESPOND);
  bazaar_policy_types_response_t *response = &decision->action.val.respond;
  response->status = status;
  response->body.ptr = (uint8_t *)body.bytes;
  response->body.len = body.length;
  response->keep_ms.is_some = keep_ms > 0;
  response->keep_ms.val = keep_ms;
  add_header(decision, "content-type", "application/json");
}

// An error, which is never kept: its message is of two parts, without quotes. It is false, for whoever has to say
// that there is nothing else to decide.
static bool refuse_of(decision_t *decision, uint16_t status, const char *message, const char *more) {
  text_t body = {.length = 0};
  append(&body, "{\"error\":{\"code\":");
  append_number(&body, status);
  append(&body, ",\"message\":\"");
  append(&body, message);
  append(&body, more);
  append(&body, "\"}}");
  respond(decision, status, body, 0);
  return false;
}

static bool refuse(decision_t *decision, uint16_t status, const char *message) {
  return refuse_of(decision, status, message, "");
}

// Whether a request does what its path allows: reads, and for one path posts.
static bool is_allowed(const request_t *request, bool may_post, decision_t *decision) {
  const char *methods = may_post ? "GET, HEAD, POST" : "GET, HEAD";
  if (request->method == BAZAAR_POLICY_TYPES_METHOD_GET || request->method == BAZAAR_POLICY_TYPES_METHOD_HEAD) return true;
  if (request->method == BAZAAR_POLICY_TYPES_METHOD_POST && may_post) return true;
  refuse_of(decision, 405, "method not allowed, only ", methods);
  add_header(decision, "allow", methods);
  return false;
}

// ---- lists ----

// Which page a query asks for.
typedef struct {
  uint32_t limit;
  // Of stocks: the name after which it begins. Of orders: the stock whose orders are asked for. None without bytes.
  name_t name;
  // Of orders: the number after which it begins.
  bool has_after;
  uint64_t after;
} page_t;

// A parameter of a query: whether it is there. `is_twice` is set where it is there more than once.
static bool find_parameter(slice_t query, const char *name, slice_t *value, bool *is_twice) {
  bool is_there = false;
  while (query.length > 0) {
    slice_t rest = take_until(&query, '&');
    if (!is_text(take_until(&rest, '='), name)) continue;
    *is_twice |= is_there;
    is_there = true;
    *value = rest;
  }
  return is_there;
}

static bool decode_number(slice_t written, uint64_t *number) {
  name_t digits;
  if (!percent_decode(written, false, &digits) || digits.length > NAME_BYTES_MAX) return false;
  return parse_number(slice_of(&digits), number);
}

// Why a query asks for no page; NULL where it asks for one, if only for the first.
static const char *parse_page(slice_t query, bool is_of_orders, page_t *page) {
  slice_t value;
  uint64_t number;
  bool is_twice = false;
  *page = (page_t){.limit = LIMIT_DEFAULT};
  if (find_parameter(query, "after", &value, &is_twice)) {
    if (is_twice) return "the query's `after` was given more than once";
    page->has_after = is_of_orders;
    if (is_of_orders && !decode_number(value, &page->after)) {
      return "the query's `after` must be the number of an order, an integer from 0 to 18446744073709551615";
    }
    // A name without bytes comes before all others.
    bool is_name = is_of_orders || (percent_decode(value, true, &page->name) &&
                                    (page->name.length == 0 || is_stock_name(&page->name)));
    if (!is_name) {
      return "the query's `after` must be the name of a stock, percent-encoded: at most 64 bytes of UTF-8 without control characters";
    }
  }
  if (is_of_orders && find_parameter(query, "stock", &value, &is_twice)) {
    if (is_twice) return "the query's `stock` was given more than once";
    if (!percent_decode(value, true, &page->name) || !is_stock_name(&page->name)) {
      return "the query's `stock` must be the name of a stock, percent-encoded: 1 to 64 bytes of UTF-8 without control characters";
    }
  }
  if (find_parameter(query, "limit", &value, &is_twice)) {
    if (is_twice) return "the query's `limit` was given more than once";
    if (!decode_number(value, &number) || number < 1 || number > LIMIT_MAX) {
      return "the query's `limit` must be an integer from 1 to 10000";
    }
    page->limit = (uint32_t)number;
  }
  return NULL;
}

static void set_name(front_end_option_string_t *option, const name_t *name) {
  option->is_some = name->length > 0;
  if (option->is_some) front_end_string_dup_n(&option->val, (const char *)name->bytes, name->length);
}

static void list_stocks(slice_t query, decision_t *decision) {
  page_t page;
  const char *problem = parse_page(query, false, &page);
  if (problem) {
    refuse(decision, 400, problem);
    return;
  }
  begin(decision, BAZAAR_POLICY_TYPES_ACTION_LIST_STOCKS);
  set_name(&decision->action.val.list_stocks.after, &page.name);
  decision->action.val.list_stocks.limit = page.limit;
}

static void list_orders(slice_t query, decision_t *decision) {
  page_t page;
  const char *problem = parse_page(query, true, &page);
  if (problem) {
    refuse(decision, 400, problem);
    return;
  }
  begin(decision, BAZAAR_POLICY_TYPES_ACTION_LIST_ORDERS);
  bazaar_policy_types_list_orders_t *list = &decision->action.val.list_orders;
  list->after.is_some = page.has_after;
  list->after.val = page.after;
  list->limit = page.limit;
  set_name(&list->stock, &page.name);
}

static void follow_orders(slice_t query, decision_t *decision) {
  slice_t value;
  uint64_t after = 0;
  bool is_twice = false;
  bool has_after = find_parameter(query, "after", &value, &is_twice);
  if (is_twice) {
    refuse(decision, 400, "the query's `after` was given more than once");
  } else if (has_after && !decode_number(value, &after)) {
    refuse(decision, 400,
           "the query's `after` must be the number of an order, an integer from 0 to 18446744073709551615");
  } else {
    begin(decision, BAZAAR_POLICY_TYPES_ACTION_FOLLOW_ORDERS);
    decision->action.val.follow_orders.after.is_some = has_after;
    decision->action.val.follow_orders.after.val = after;
  }
}

// ---- an order ----

typedef struct {
  char bytes[IDEMPOTENCY_KEY_BYTES_MAX];
  size_t length;
} idempotency_key_t;

// The client's idempotency key, of no bytes where there is none. The draft has it as a string of RFC 8941, in
// quotes; one without quotes is taken as it is. Parameters after the closing quote are ignored.
static const char *parse_key(const request_t *request, idempotency_key_t *key) {
  const front_end_list_u8_t *sent = NULL;
  key->length = 0;
  for (size_t index = 0; index < request->headers.len; index++) {
    const bazaar_policy_types_request_header_t *header = &request->headers.ptr[index];
    if (!is_text((slice_t){header->f0.ptr, header->f0.len}, "idempotency-key")) continue;
    if (sent) return "the Idempotency-Key was given more than once";
    sent = &header->f1;
  }
  if (!sent) return NULL;
  const uint8_t *at = sent->ptr, *end = sent->ptr + sent->len;
  while (at < end && (*at == ' ' || *at == '\t')) at++;
  while (at < end && (end[-1] == ' ' || end[-1] == '\t')) end--;
  bool is_quoted = at < end && *at == '"';
  if (is_quoted) at++;
  for (; at < end && !(is_quoted && *at == '"'); at++) {
    if (is_quoted && *at == '\\') {
      at++;
      if (at == end || (*at != '"' && *at != '\\')) return "the Idempotency-Key is not a well-formed quoted string";
    }
    if (*at < ' ' || *at > '~') return "the Idempotency-Key has a character that is not printable ASCII";
    if (key->length == sizeof key->bytes) return "the Idempotency-Key is longer than 128 bytes";
    key->bytes[key->length++] = (char)*at;
  }
  if (is_quoted) {
    if (at == end) return "the Idempotency-Key is not a well-formed quoted string";
    at++;
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    if (at < end && *at != ';') return "the Idempotency-Key is not a well-formed quoted string";
  }
  return key->length > 0 ? NULL : "the Idempotency-Key is empty";
}

// A field that is not as it must be.
static bool refuse_field(decision_t *decision, const field_t *field, const char *what) {
  text_t about = {.length = 0};
  append(&about, "the field `");
  append(&about, field->name);
  append(&about, field->value.kind == JSON_NONE ? "` is missing" : "` must be ");
  append_byte(&about, '\0');
  refuse_of(decision, 400, about.bytes, field->value.kind == JSON_NONE ? "" : what);
  free(about.bytes);
  return false;
}

static bool text_field(const field_t *field, name_t *text, decision_t *decision) {
  if (field->value.kind == JSON_STRING && decode_string(field->value.written, text)) return true;
  return refuse_field(decision, field, "a string");
}

// Of a number below 0 it makes 0.
static bool quantity_field(const field_t *field, uint64_t *quantity, decision_t *decision) {
  slice_t digits = field->value.written;
  if (field->value.kind == JSON_NUMBER) {
    bool is_negative = take_text(&digits, "-");
    bool is_integer = parse_number(digits, quantity) && *quantity <= INT64_MAX;
    if (is_negative) *quantity = 0;
    if (is_integer) return true;
  }
  return refuse_field(decision, field, "an integer of at most 9223372036854775807");
}

// Checked in this order, so that an order with several faults always gets the same answer: the key, the body, its
// fields, its type, its quantity, its stock.
static bool parse_order(const request_t *request, idempotency_key_t *key, name_t *name, bool *is_buy,
                        uint64_t *quantity, decision_t *decision) {
  field_t fields[] = {{.name = "name"}, {.name = "type"}, {.name = "quantity"}};
  slice_t body = {NULL, 0};
  name_t side;
  const char *problem = parse_key(request, key);
  if (request->body.is_some) body = (slice_t){request->body.val.ptr, request->body.val.len};
  if (!problem) problem = read_object(body, fields, 3);
  if (problem) return refuse(decision, 400, problem);
  if (!text_field(&fields[0], name, decision)) return false;
  if (!text_field(&fields[1], &side, decision)) return false;
  if (!quantity_field(&fields[2], quantity, decision)) return false;
  *is_buy = is_text(slice_of(&side), "buy");
  if (!*is_buy && !is_text(slice_of(&side), "sell")) return refuse(decision, 400, "invalid request type");
  if (*quantity == 0) return refuse(decision, 404, "invalid number of stocks");
  return is_stock_name(name) || refuse(decision, 404, "stock not found");
}

static void place_order(const request_t *request, decision_t *decision) {
  idempotency_key_t key;
  name_t name;
  bool is_buy;
  uint64_t quantity;
  if (!parse_order(request, &key, &name, &is_buy, &quantity, decision)) return;
  begin(decision, BAZAAR_POLICY_TYPES_ACTION_TRADE);
  bazaar_policy_types_trade_t *trade = &decision->action.val.trade;
  front_end_string_dup_n(&trade->name, (const char *)name.bytes, name.length);
  trade->side = is_buy ? BAZAAR_POLICY_TYPES_SIDE_BUY : BAZAAR_POLICY_TYPES_SIDE_SELL;
  trade->quantity = quantity;
  trade->idempotency_key.is_some = key.length > 0;
  if (key.length > 0) front_end_string_dup_n(&trade->idempotency_key.val, key.bytes, key.length);
}

// ---- requests ----

// Reads are never older than what any client has already seen, and answers depend on nothing but what is read.
static void read_stock(slice_t segment, decision_t *decision) {
  name_t name;
  if (!percent_decode(segment, false, &name) || !is_stock_name(&name)) {
    refuse(decision, 404, "stock not found");
    return;
  }
  begin(decision, BAZAAR_POLICY_TYPES_ACTION_READ_STOCK);
  bazaar_policy_types_read_stock_t *read = &decision->action.val.read_stock;
  front_end_string_dup_n(&read->name, (const char *)name.bytes, name.length);
  read->caching.freshness.tag = BAZAAR_POLICY_TYPES_FRESHNESS_LINEARIZABLE;
}

static void read_order(slice_t segment, decision_t *decision) {
  uint64_t number;
  if (!parse_number(segment, &number)) {
    refuse(decision, 404, "transaction not found");
    return;
  }
  begin(decision, BAZAAR_POLICY_TYPES_ACTION_READ_ORDER);
  decision->action.val.read_order.number = number;
  decision->action.val.read_order.caching.freshness.tag = BAZAAR_POLICY_TYPES_FRESHNESS_LINEARIZABLE;
}

static bool is_segment(slice_t path) {
  return !path.length || !memchr(path.bytes, '/', path.length);
}

static void decide(const request_t *request, decision_t *decision) {
  slice_t query = {request->target.ptr, request->target.len};
  query = take_until(&query, '#');
  slice_t path = take_until(&query, '?'), stock = path, order = path;
  if (request->method == BAZAAR_POLICY_TYPES_METHOD_OTHER) {
    refuse(decision, 501, "no such method");
  } else if (is_text(path, "/stocks")) {
    if (is_allowed(request, false, decision)) list_stocks(query, decision);
  } else if (take_text(&stock, "/stocks/") && is_segment(stock)) {
    if (is_allowed(request, false, decision)) read_stock(stock, decision);
  } else if (is_text(path, "/orders")) {
    if (!is_allowed(request, true, decision)) return;
    if (request->method == BAZAAR_POLICY_TYPES_METHOD_POST) place_order(request, decision);
    else list_orders(query, decision);
  } else if (take_text(&order, "/orders/") && is_segment(order)) {
    if (is_allowed(request, false, decision)) read_order(order, decision);
  } else if (is_text(path, "/events")) {
    if (is_allowed(request, false, decision)) follow_orders(query, decision);
  } else {
    refuse(decision, 404, "no such path");
  }
}

// ---- responses ----

static slice_t slice_of_string(front_end_string_t string) {
  return (slice_t){string.ptr, string.len};
}

// The price as a decimal number: `240.63`, and `20.0` for a whole one.
static void append_stock(text_t *text, const bazaar_policy_types_stock_t *stock) {
  append(text, "{\"name\":");
  append_quoted(text, slice_of_string(stock->name));
  append(text, ",\"price\":");
  append_number(text, stock->price_minor / 100);
  append_byte(text, '.');
  append_number(text, stock->price_minor / 10 % 10);
  if (stock->price_minor % 10 > 0) append_number(text, stock->price_minor % 10);
  append(text, ",\"quantity\":");
  append_number(text, stock->quantity);
  append_byte(text, '}');
}

static void append_order(text_t *text, const bazaar_policy_types_order_t *order) {
  append(text, "{\"number\":");
  append_number(text, order->number);
  append(text, ",\"name\":");
  append_quoted(text, slice_of_string(order->name));
  append(text, order->side == BAZAAR_POLICY_TYPES_SIDE_BUY ? ",\"type\":\"buy\"" : ",\"type\":\"sell\"");
  append(text, ",\"quantity\":");
  append_number(text, order->quantity);
  append_byte(text, '}');
}

// Which page a request asked for whose answer is rendered.
static page_t page_of(const request_t *request, bool is_of_orders) {
  page_t page;
  slice_t query = {request->target.ptr, request->target.len};
  query = take_until(&query, '#');
  take_until(&query, '?');
  if (parse_page(query, is_of_orders, &page)) page = (page_t){.limit = LIMIT_DEFAULT};
  return page;
}

// A page, which says where the next one is.
static void render_stocks(const request_t *request, const bazaar_policy_types_page_t *page, decision_t *decision) {
  text_t body = {.length = 0};
  append(&body, "{\"data\":[");
  for (size_t index = 0; index < page->stocks.len; index++) {
    if (index > 0) append_byte(&body, ',');
    append_stock(&body, &page->stocks.ptr[index]);
  }
  append_byte(&body, ']');
  if (page->more && page->stocks.len > 0) {
    append(&body, ",\"next\":\"/stocks?limit=");
    append_number(&body, page_of(request, false).limit);
    append(&body, "&after=");
    append_encoded(&body, slice_of_string(page->stocks.ptr[page->stocks.len - 1].name));
    append_byte(&body, '"');
  }
  append_byte(&body, '}');
  respond(decision, 200, body, 0);
}

static void render_orders(const request_t *request, const bazaar_policy_types_order_page_t *page,
                          decision_t *decision) {
  text_t body = {.length = 0};
  append(&body, "{\"data\":[");
  for (size_t index = 0; index < page->orders.len; index++) {
    if (index > 0) append_byte(&body, ',');
    append_order(&body, &page->orders.ptr[index]);
  }
  append_byte(&body, ']');
  if (page->next_after.is_some) {
    page_t asked = page_of(request, true);
    append(&body, ",\"next\":\"/orders?limit=");
    append_number(&body, asked.limit);
    append(&body, "&after=");
    append_number(&body, page->next_after.val);
    if (asked.name.length > 0) {
      append(&body, "&stock=");
      append_encoded(&body, slice_of(&asked.name));
    }
    append_byte(&body, '"');
  }
  append_byte(&body, '}');
  respond(decision, 200, body, 0);
}

static void render_refusal(bazaar_policy_types_refusal_t refusal, decision_t *decision) {
  switch (refusal) {
    case BAZAAR_POLICY_TYPES_REFUSAL_STOCK_NOT_FOUND: refuse(decision, 404, "stock not found"); break;
    case BAZAAR_POLICY_TYPES_REFUSAL_NOT_ENOUGH: refuse(decision, 404, "not enough stocks available to buy"); break;
    case BAZAAR_POLICY_TYPES_REFUSAL_ORDER_NOT_FOUND: refuse(decision, 404, "transaction not found"); break;
    case BAZAAR_POLICY_TYPES_REFUSAL_KEY_CONFLICT:
      refuse(decision, 409, "the Idempotency-Key was used for a different order");
      break;
    default: refuse(decision, 400, "the quantity would take the stock past the most it can have");
  }
}

static void render_unavailable(bazaar_policy_types_unavailability_t what, decision_t *decision) {
  bool is_catalog = what == BAZAAR_POLICY_TYPES_UNAVAILABILITY_NO_CATALOG;
  refuse(decision, 503, is_catalog ? "catalog unavailable, try again" : "no order replica available, try again");
  add_header(decision, "retry-after", "1");
}

static void render(const request_t *request, const exports_bazaar_policy_policy_outcome_t *outcome,
                   decision_t *decision) {
  text_t body = {.length = 0};
  switch (outcome->tag) {
    case BAZAAR_POLICY_TYPES_OUTCOME_STOCK:
      append(&body, "{\"data\":");
      append_stock(&body, &outcome->val.stock);
      append_byte(&body, '}');
      respond(decision, 200, body, STOCK_KEEP_MS);
      break;
    case BAZAAR_POLICY_TYPES_OUTCOME_STOCKS: render_stocks(request, &outcome->val.stocks, decision); break;
    case BAZAAR_POLICY_TYPES_OUTCOME_ORDER:
      append(&body, "{\"data\":");
      append_order(&body, &outcome->val.order);
      append_byte(&body, '}');
      respond(decision, 200, body, ORDER_KEEP_MS);
      // For caches in front of Bazaar.
      add_header(decision, "cache-control", "public, max-age=31536000, immutable");
      break;
    case BAZAAR_POLICY_TYPES_OUTCOME_ORDERS: render_orders(request, &outcome->val.orders, decision); break;
    case BAZAAR_POLICY_TYPES_OUTCOME_TRADED:
      append(&body, "{\"data\":{\"transaction_number\":");
      append_number(&body, outcome->val.traded);
      append(&body, "}}");
      respond(decision, 200, body, 0);
      break;
    case BAZAAR_POLICY_TYPES_OUTCOME_REFUSED: render_refusal(outcome->val.refused, decision); break;
    case BAZAAR_POLICY_TYPES_OUTCOME_UNAVAILABLE: render_unavailable(outcome->val.unavailable, decision); break;
    default: abort();  // It takes out of no bucket.
  }
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
  manifest->headers.len = 1;
  manifest->headers.ptr = allocate(sizeof *manifest->headers.ptr);
  front_end_string_dup(manifest->headers.ptr, "idempotency-key");
  manifest->cache.stocks_max = 10000;
  manifest->cache.orders_max = 100000;
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
  render(request, outcome, decision);
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
