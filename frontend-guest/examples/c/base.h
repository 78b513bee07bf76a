// What the policies here have in common: `policy.c` of `bazaar policy new --lang c`, whose functions they
// call where they have nothing to say, and a few of their own.
//
// A policy has no I/O and no threads, so that what it makes of its configuration may be in static variables.

#include <stdlib.h>
#include <string.h>

#include "front_end.h"

// The functions of the world that a policy here has of its own.
#define exports_bazaar_policy_policy_configure base_configure
#define exports_bazaar_policy_policy_on_request base_on_request
#define exports_bazaar_policy_policy_on_outcome base_on_outcome
#include "policy.c"
#undef exports_bazaar_policy_policy_configure
#undef exports_bazaar_policy_policy_on_request
#undef exports_bazaar_policy_policy_on_outcome

// ---- the configuration: lines of words, where a blank ends a word ----

// A part of the configuration, which is kept.
typedef struct {
  const char *bytes;
  size_t length;
} word_t;

// Takes a line off the rest; false where there is none. Empty lines are left out.
static bool next_line(word_t *rest, word_t *line) {
  while (rest->length && *rest->bytes == '\n') rest->bytes++, rest->length--;
  if (!rest->length) return false;
  const char *end = memchr(rest->bytes, '\n', rest->length);
  line->bytes = rest->bytes;
  line->length = end ? (size_t)(end - rest->bytes) : rest->length;
  rest->bytes += line->length;
  rest->length -= line->length;
  return true;
}

// Takes a word off a line, and the blank after it.
static inline word_t next_word(word_t *line) {
  const char *end = line->length ? memchr(line->bytes, ' ', line->length) : NULL;
  word_t word = {line->bytes, end ? (size_t)(end - line->bytes) : line->length};
  size_t taken = word.length + (end ? 1 : 0);
  line->bytes += taken;
  line->length -= taken;
  return word;
}

static inline bool is_word(word_t word, const char *text) {
  return word.length == strlen(text) && memcmp(word.bytes, text, word.length) == 0;
}

// ---- the manifest ----

// That of policy.c, by another name.
static bool base_manifest(const char *name, exports_bazaar_policy_policy_manifest_t *manifest,
                          front_end_string_t *error) {
  front_end_list_u8_t none = {NULL, 0};
  if (!base_configure(&none, manifest, error)) return false;
  front_end_string_free(&manifest->name);
  front_end_string_dup(&manifest->name, name);
  return true;
}

// One more request header that the policy wants to see.
static inline void want_header(exports_bazaar_policy_policy_manifest_t *manifest, word_t name) {
  front_end_list_string_t *headers = &manifest->headers;
  headers->ptr = realloc(headers->ptr, (headers->len + 1) * sizeof *headers->ptr);
  if (!headers->ptr) abort();
  front_end_string_dup_n(&headers->ptr[headers->len++], name.bytes, name.length);
}

// ---- requests and responses ----

// The value of a header that is there once; none otherwise, since nobody knows which of several counts.
static inline const front_end_list_u8_t *header_of(const exports_bazaar_policy_policy_request_t *request,
                                                   word_t name) {
  const front_end_list_u8_t *found = NULL;
  for (size_t index = 0; index < request->headers.len; index++) {
    const bazaar_policy_types_request_header_t *header = &request->headers.ptr[index];
    if (header->f0.len != name.length || memcmp(header->f0.ptr, name.bytes, name.length) != 0) continue;
    if (found) return NULL;
    found = &header->f1;
  }
  return found;
}

// Whether a header is there, once or more often.
static inline bool has_header(const exports_bazaar_policy_policy_request_t *request, word_t name) {
  for (size_t index = 0; index < request->headers.len; index++) {
    const front_end_string_t *sent = &request->headers.ptr[index].f0;
    if (sent->len == name.length && memcmp(sent->ptr, name.bytes, name.length) == 0) return true;
  }
  return false;
}

// A header of a response, in the place of one that is there.
static inline void set_header(decision_t *decision, const char *name, const char *value) {
  bazaar_policy_types_list_header_t *headers = &decision->action.val.respond.headers;
  for (size_t index = 0; index < headers->len; index++) {
    bazaar_policy_types_header_t *header = &headers->ptr[index];
    if (!is_text(slice_of_string(header->f0), name)) continue;
    front_end_string_free(&header->f1);
    front_end_string_dup(&header->f1, value);
    return;
  }
  add_header(decision, name, value);
}
