// Lets in who sends an API key that it knows, and has refused whatever it fails to decide about: nobody gets
// in because something went wrong. Its configuration has a client and its key on each line:
//
//   alice ${file:alice}
//   bob ${env:BAZAAR_SECRET_BOB}
//
// A client sends its key as `Authorization: Bearer KEY`. Idempotency keys are each client's own.

#include "base.h"

#define CLIENTS_MAX 1000

// Shorter keys can be guessed.
#define KEY_BYTES_MIN 16

// Names go before idempotency keys, which leaves those 95 bytes.
#define CLIENT_NAME_BYTES_MAX 32

typedef struct {
  word_t name, key;
} client_t;

static client_t clients[CLIENTS_MAX];
static size_t clients_count = 0;

static const word_t AUTHORIZATION = {"authorization", 13};

static bool refuse_config(front_end_string_t *error, const char *problem) {
  front_end_string_dup(error, problem);
  return false;
}

// Of letters, digits, - and _.
static bool is_client_name(word_t name) {
  for (size_t index = 0; index < name.length; index++) {
    char byte = name.bytes[index], letter = (char)(byte | 0x20);
    bool is_inside = (letter >= 'a' && letter <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' || byte == '_';
    if (!is_inside) return false;
  }
  return name.length > 0 && name.length <= CLIENT_NAME_BYTES_MAX;
}

static bool is_taken(word_t key) {
  for (size_t index = 0; index < clients_count; index++) {
    word_t other = clients[index].key;
    if (other.length == key.length && memcmp(other.bytes, key.bytes, key.length) == 0) return true;
  }
  return false;
}

bool exports_bazaar_policy_policy_configure(front_end_list_u8_t *config,
                                            exports_bazaar_policy_policy_manifest_t *manifest,
                                            front_end_string_t *error) {
  // It is not freed: the keys are in it.
  word_t rest = {(const char *)config->ptr, config->len}, line;
  while (next_line(&rest, &line)) {
    word_t name = next_word(&line), key = next_word(&line);
    if (!is_client_name(name) || line.length) {
      return refuse_config(error, "write a line `NAME KEY` for each client; a name has up to 32 letters, digits, - and _");
    }
    if (key.length < KEY_BYTES_MIN) return refuse_config(error, "a key must have 16 characters at least");
    for (size_t index = 0; index < key.length; index++) {
      if (key.bytes[index] < '!' || key.bytes[index] > '~') return refuse_config(error, "a key must be visible ASCII");
    }
    if (is_taken(key)) return refuse_config(error, "two clients have the same key");
    if (clients_count == CLIENTS_MAX) return refuse_config(error, "there are too many clients");
    clients[clients_count++] = (client_t){name, key};
  }
  if (clients_count == 0) return refuse_config(error, "nobody has a key: nobody could get in");
  if (!base_manifest("api-keys", manifest, error)) return false;
  manifest->on_failure = BAZAAR_POLICY_TYPES_ON_FAILURE_REFUSE;
  want_header(manifest, AUTHORIZATION);
  return true;
}

// Takes as long whatever differs. How long a key is, is no secret.
static bool is_same(const uint8_t *sent, size_t length, word_t key) {
  if (length != key.length) return false;
  volatile uint8_t difference = 0;
  for (size_t index = 0; index < length; index++) difference |= sent[index] ^ (uint8_t)key.bytes[index];
  return difference == 0;
}

// Who sent a request; NULL for nobody that is known.
static const client_t *client_of(const exports_bazaar_policy_policy_request_t *request) {
  static const char scheme[] = "Bearer ";
  const size_t prefix = sizeof scheme - 1;
  const front_end_list_u8_t *sent = header_of(request, AUTHORIZATION);
  if (!sent || sent->len < prefix || memcmp(sent->ptr, scheme, prefix) != 0) return NULL;
  // All are compared, whichever it is.
  const client_t *found = NULL;
  for (size_t index = 0; index < clients_count; index++) {
    if (is_same(sent->ptr + prefix, sent->len - prefix, clients[index].key)) found = &clients[index];
  }
  return found;
}

// Nobody gets the answer to another's order by its idempotency key.
static void scope_key(const client_t *client, decision_t *decision) {
  if (decision->action.tag != BAZAAR_POLICY_TYPES_ACTION_TRADE) return;
  front_end_option_string_t *key = &decision->action.val.trade.idempotency_key;
  if (!key->is_some) return;
  text_t scoped = {.length = 0};
  append_bytes(&scoped, client->name.bytes, client->name.length);
  append_byte(&scoped, ':');
  append_bytes(&scoped, key->val.ptr, key->val.len);
  front_end_string_free(&key->val);
  key->val.ptr = (uint8_t *)scoped.bytes;
  key->val.len = scoped.length;
  if (scoped.length <= IDEMPOTENCY_KEY_BYTES_MAX) return;
  exports_bazaar_policy_policy_decision_free(decision);
  refuse(decision, 400, "the Idempotency-Key is too long");
}

void exports_bazaar_policy_policy_on_request(exports_bazaar_policy_policy_request_t *request,
                                             decision_t *decision) {
  const client_t *client = client_of(request);
  if (client) {
    base_on_request(request, decision);
    scope_key(client, decision);
    return;
  }
  refuse(decision, 401, "send an API key: Authorization: Bearer KEY");
  add_header(decision, "www-authenticate", "Bearer realm=\"bazaar\"");
  exports_bazaar_policy_policy_request_free(request);
}

void exports_bazaar_policy_policy_on_outcome(exports_bazaar_policy_policy_request_t *request,
                                             front_end_list_u8_t *memo,
                                             exports_bazaar_policy_policy_outcome_t *outcome,
                                             decision_t *decision) {
  bool is_order = outcome->tag == BAZAAR_POLICY_TYPES_OUTCOME_ORDER;
  base_on_outcome(request, memo, outcome, decision);
  // A cache that several people share would let in those who have no key.
  if (is_order) set_header(decision, "cache-control", "private, max-age=31536000, immutable");
}
