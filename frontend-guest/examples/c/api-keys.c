// Lets in who sends an API key that it knows, and has refused whatever it fails to decide about: nobody gets
// in because something went wrong. Its configuration has a client and its key on each line:
//
//   alice ${file:alice}
//   bob ${env:BAZAAR_SECRET_BOB}
//
// A client sends its key as `Authorization: Bearer KEY`.

#include "base.h"

#define CLIENTS_MAX 1000

// Shorter keys can be guessed.
#define KEY_BYTES_MIN 16

static word_t keys[CLIENTS_MAX];
static size_t clients = 0;

static const word_t AUTHORIZATION = {"authorization", 13};

static bool refuse_config(front_end_string_t *error, const char *problem) {
  front_end_string_dup(error, problem);
  return false;
}

bool exports_bazaar_policy_policy_configure(front_end_list_u8_t *config,
                                            exports_bazaar_policy_policy_manifest_t *manifest,
                                            front_end_string_t *error) {
  // It is not freed: the keys are in it.
  word_t rest = {(const char *)config->ptr, config->len}, line;
  while (next_line(&rest, &line)) {
    word_t name = next_word(&line), key = next_word(&line);
    if (!name.length || line.length) return refuse_config(error, "write a line `NAME KEY` for each client");
    if (key.length < KEY_BYTES_MIN) return refuse_config(error, "a key must have 16 characters at least");
    for (size_t index = 0; index < key.length; index++) {
      if (key.bytes[index] < '!' || key.bytes[index] > '~') return refuse_config(error, "a key must be visible ASCII");
    }
    if (clients == CLIENTS_MAX) return refuse_config(error, "there are too many clients");
    keys[clients++] = key;
  }
  if (clients == 0) return refuse_config(error, "nobody has a key: nobody could get in");
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

static bool is_known(const exports_bazaar_policy_policy_request_t *request) {
  static const char scheme[] = "Bearer ";
  const size_t prefix = sizeof scheme - 1;
  const front_end_list_u8_t *sent = header_of(request, AUTHORIZATION);
  if (!sent || sent->len < prefix || memcmp(sent->ptr, scheme, prefix) != 0) return false;
  // All are compared, whichever it is.
  bool found = false;
  for (size_t index = 0; index < clients; index++) {
    found |= is_same(sent->ptr + prefix, sent->len - prefix, keys[index]);
  }
  return found;
}

void exports_bazaar_policy_policy_on_request(exports_bazaar_policy_policy_request_t *request,
                                             decision_t *decision) {
  if (is_known(request)) {
    base_on_request(request, decision);
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
  base_on_outcome(request, memo, outcome, decision);
}
