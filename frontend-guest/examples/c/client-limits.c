// Lets each client do so much in a time: who has used that up gets 429, with `Retry-After`. Its configuration
// has a line for each of these, the last where it is wanted:
//
//   requests 50
//   period_ms 1000
//   burst 100
//   client_header x-client
//
// Clients are told apart by their addresses, or networks of IPv6; with `client_header` by that header where a
// request has it. Only a proxy that lets no client choose it may set that header.

#include "base.h"

#define BUCKET "requests"

// What the host takes for a bucket's key, in bytes.
#define KEY_BYTES_MAX 256

static word_t client_header = {NULL, 0};

// A number of decimal digits from 1 on; 0 for whatever is none.
static uint32_t number_of(word_t word) {
  uint32_t number = 0;
  for (size_t index = 0; index < word.length; index++) {
    if (word.bytes[index] < '0' || word.bytes[index] > '9' || number > 400000000) return 0;
    number = number * 10 + (uint32_t)(word.bytes[index] - '0');
  }
  return number;
}

bool exports_bazaar_policy_policy_configure(front_end_list_u8_t *config,
                                            exports_bazaar_policy_policy_manifest_t *manifest,
                                            front_end_string_t *error) {
  // It is not freed: the header's name is in it.
  word_t rest = {(const char *)config->ptr, config->len}, line;
  uint32_t requests = 0, period_ms = 0, burst = 0;
  bool is_known = true;
  while (next_line(&rest, &line)) {
    word_t name = next_word(&line);
    if (is_word(name, "requests")) requests = number_of(line);
    else if (is_word(name, "period_ms")) period_ms = number_of(line);
    else if (is_word(name, "burst")) burst = number_of(line);
    else if (is_word(name, "client_header")) client_header = line;
    else is_known = false;
  }
  if (!is_known || !requests || !period_ms || !burst) {
    front_end_string_dup(error, "write the lines `requests 50`, `period_ms 1000` and `burst 100`");
    return false;
  }
  if (!base_manifest("client-limits", manifest, error)) return false;
  manifest->connection = true;
  // Nobody gets more because something went wrong.
  manifest->on_failure = BAZAAR_POLICY_TYPES_ON_FAILURE_REFUSE;
  manifest->buckets.len = 1;
  manifest->buckets.ptr = allocate(sizeof *manifest->buckets.ptr);
  bazaar_policy_types_bucket_t *bucket = manifest->buckets.ptr;
  front_end_string_dup(&bucket->name, BUCKET);
  bucket->tokens = requests;
  bucket->period_ms = period_ms;
  bucket->burst = burst;
  if (client_header.length) want_header(manifest, client_header);
  return true;
}

// The eight groups of an address of IPv6, as the host writes it.
static void parse_groups(const uint8_t *text, size_t length, uint16_t groups[8]) {
  size_t count = 0, gap = 8, at = 0;
  memset(groups, 0, 8 * sizeof *groups);
  while (at < length && count < 8) {
    if (text[at] == ':') {
      if (at + 1 < length && text[at + 1] == ':') gap = count;
      at++;
      continue;
    }
    while (at < length && hex_digit(text[at]) >= 0) {
      groups[count] = (uint16_t)(groups[count] * 16 + hex_digit(text[at++]));
    }
    count++;
    if (at < length && text[at] != ':') break;
  }
  if (gap > count) return;
  // What is after the gap goes to the end.
  memmove(groups + 8 - (count - gap), groups + gap, (count - gap) * sizeof *groups);
  memset(groups + gap, 0, (8 - count) * sizeof *groups);
}

// What tells a request's client from others: its length. Of those who cannot be told apart all share one.
static size_t client_key(const exports_bazaar_policy_policy_request_t *request, uint8_t key[KEY_BYTES_MAX]) {
  const front_end_list_u8_t *named = client_header.length ? header_of(request, client_header) : NULL;
  if (named) {
    size_t length = named->len < KEY_BYTES_MAX - 1 ? named->len : KEY_BYTES_MAX - 1;
    key[0] = 'h';
    if (length) memcpy(key + 1, named->ptr, length);
    return length + 1;
  }
  // Where it is there several times, a client sent one of them, and nobody knows which.
  if (client_header.length && has_header(request, client_header)) return 0;
  if (!request->connection.is_some) return 0;
  const uint8_t *text = request->connection.val.client.ptr;
  size_t length = request->connection.val.client.len;
  static const char mapped[] = "::ffff:";
  const size_t prefix = sizeof mapped - 1;
  if (length > prefix && memcmp(text, mapped, prefix) == 0 && memchr(text, '.', length)) {
    text += prefix;
    length -= prefix;
  }
  if (!memchr(text, ':', length)) {
    key[0] = '4';
    memcpy(key + 1, text, length < 15 ? length : 15);
    return 1 + (length < 15 ? length : 15);
  }
  // Who has a network has all its addresses.
  uint16_t groups[8];
  parse_groups(text, length, groups);
  key[0] = '6';
  memcpy(key + 1, groups, 4 * sizeof *groups);
  return 1 + 4 * sizeof *groups;
}

void exports_bazaar_policy_policy_on_request(exports_bazaar_policy_policy_request_t *request,
                                             decision_t *decision) {
  uint8_t key[KEY_BYTES_MAX];
  size_t length = client_key(request, key);
  memset(decision, 0, sizeof *decision);
  decision->action.tag = BAZAAR_POLICY_TYPES_ACTION_TAKE;
  bazaar_policy_types_take_t *take = &decision->action.val.take;
  front_end_string_dup(&take->bucket, BUCKET);
  if (length) {
    take->key.ptr = allocate(length);
    take->key.len = length;
    memcpy(take->key.ptr, key, length);
  }
  take->cost = 1;
  exports_bazaar_policy_policy_request_free(request);
}

static void deny(uint32_t retry_after_ms, decision_t *decision) {
  uint32_t seconds = retry_after_ms / 1000 + (retry_after_ms % 1000 > 0);
  text_t text = {.length = 0};
  append_number(&text, seconds ? seconds : 1);
  append_byte(&text, '\0');
  refuse(decision, 429, "too many requests, try again later");
  add_header(decision, "retry-after", text.bytes);
  free(text.bytes);
}

void exports_bazaar_policy_policy_on_outcome(exports_bazaar_policy_policy_request_t *request,
                                             front_end_list_u8_t *memo,
                                             exports_bazaar_policy_policy_outcome_t *outcome,
                                             decision_t *decision) {
  bool is_granted = outcome->tag == BAZAAR_POLICY_TYPES_OUTCOME_GRANTED;
  if (!is_granted && outcome->tag != BAZAAR_POLICY_TYPES_OUTCOME_DENIED) {
    base_on_outcome(request, memo, outcome, decision);
    return;
  }
  if (is_granted) decide(request, decision);
  else deny(outcome->val.denied, decision);
  exports_bazaar_policy_policy_request_free(request);
  front_end_list_u8_free(memo);
  exports_bazaar_policy_policy_outcome_free(outcome);
}
