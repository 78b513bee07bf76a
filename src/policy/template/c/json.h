// What JSON a client sends: an object's fields, as far as somebody asks for them.

#pragma once

#include "text.h"

// How deep lists and objects may be within each other: reading them takes the stack.
#define JSON_NESTING_MAX 32

typedef enum { JSON_NONE, JSON_STRING, JSON_NUMBER, JSON_OTHER } json_kind_t;

// A value; `written` is what is between the quotes of a string, and all of a number.
typedef struct {
  json_kind_t kind;
  slice_t written;
} json_t;

// A field that is asked for, and what the object has there: of several of a name the last.
typedef struct {
  const char *name;
  json_t value;
} field_t;

// ---- strings ----

static inline uint32_t four_digits(const uint8_t *digits) {
  uint32_t number = 0;
  for (int index = 0; index < 4; index++) number = number * 16 + (uint32_t)hex_digit(digits[index]);
  return number;
}

// Without its escapes. False where that is no text: half of a pair of surrogates is none.
static inline bool decode_string(slice_t written, name_t *text) {
  text->length = 0;
  for (size_t index = 0; index < written.length; index++) {
    uint8_t byte = written.bytes[index];
    if (byte != '\\') {
      push(text, byte);
      continue;
    }
    byte = written.bytes[++index];
    switch (byte) {
      case 'b': push(text, '\b'); break;
      case 'f': push(text, '\f'); break;
      case 'n': push(text, '\n'); break;
      case 'r': push(text, '\r'); break;
      case 't': push(text, '\t'); break;
      case 'u': {
        uint32_t character = four_digits(written.bytes + index + 1);
        index += 4;
        if (character >= 0xdc00 && character < 0xe000) return false;
        if (character >= 0xd800 && character < 0xdc00) {
          slice_t rest = {written.bytes + index + 1, written.length - index - 1};
          uint32_t low = take_text(&rest, "\\u") ? four_digits(rest.bytes) : 0;
          if (low < 0xdc00 || low >= 0xe000) return false;
          character = 0x10000 + ((character - 0xd800) << 10) + (low - 0xdc00);
          index += 6;
        }
        push_character(text, character);
        break;
      }
      default: push(text, byte);  // A quote or a slash of either kind.
    }
  }
  return true;
}

// ---- reading: false where it is not JSON ----

typedef struct {
  const uint8_t *at, *end;
} reader_t;

static inline bool is_next(const reader_t *reader, char byte) {
  return reader->at < reader->end && *reader->at == (uint8_t)byte;
}

static inline bool take_byte(reader_t *reader, char byte) {
  bool is_there = is_next(reader, byte);
  if (is_there) reader->at++;
  return is_there;
}

static inline void skip_blanks(reader_t *reader) {
  while (is_next(reader, ' ') || is_next(reader, '\t') || is_next(reader, '\n') || is_next(reader, '\r')) reader->at++;
}

static inline bool read_word(reader_t *reader, const char *word) {
  slice_t rest = {reader->at, (size_t)(reader->end - reader->at)};
  if (!take_text(&rest, word)) return false;
  reader->at = rest.bytes;
  return true;
}

static inline bool read_string(reader_t *reader, slice_t *written) {
  if (!take_byte(reader, '"')) return false;
  const uint8_t *from = reader->at;
  while (reader->at < reader->end && *reader->at != '"') {
    if (*reader->at < ' ') return false;
    if (*reader->at++ != '\\') continue;
    if (reader->at == reader->end) return false;
    uint8_t escaped = *reader->at++;
    if (escaped == 'u') {
      for (int digit = 0; digit < 4; digit++) {
        if (reader->at == reader->end || hex_digit(*reader->at++) < 0) return false;
      }
    } else if (!memchr("\"\\/bfnrt", escaped, 8)) {
      return false;
    }
  }
  *written = (slice_t){from, (size_t)(reader->at - from)};
  return take_byte(reader, '"');
}

static inline size_t read_digits(reader_t *reader) {
  const uint8_t *from = reader->at;
  while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') reader->at++;
  return (size_t)(reader->at - from);
}

static inline bool read_number(reader_t *reader) {
  take_byte(reader, '-');
  bool begins_with_zero = is_next(reader, '0');
  size_t digits = read_digits(reader);
  if (digits == 0 || (begins_with_zero && digits > 1)) return false;
  if (take_byte(reader, '.') && read_digits(reader) == 0) return false;
  if (!take_byte(reader, 'e') && !take_byte(reader, 'E')) return true;
  if (!take_byte(reader, '+')) take_byte(reader, '-');
  return read_digits(reader) > 0;
}

static inline bool read_value(reader_t *reader, int nesting, json_t *value);

static inline bool read_list(reader_t *reader, int nesting) {
  json_t value;
  if (!take_byte(reader, '[')) return false;
  skip_blanks(reader);
  if (take_byte(reader, ']')) return true;
  do {
    if (!read_value(reader, nesting, &value)) return false;
  } while (take_byte(reader, ','));
  return take_byte(reader, ']');
}

static inline bool read_members(reader_t *reader, int nesting, field_t *fields, size_t count) {
  if (!take_byte(reader, '{')) return false;
  skip_blanks(reader);
  if (take_byte(reader, '}')) return true;
  do {
    slice_t written;
    json_t value;
    name_t name;
    skip_blanks(reader);
    if (!read_string(reader, &written)) return false;
    skip_blanks(reader);
    if (!take_byte(reader, ':') || !read_value(reader, nesting, &value)) return false;
    if (count == 0 || !decode_string(written, &name) || name.length > NAME_BYTES_MAX) continue;
    for (size_t index = 0; index < count; index++) {
      if (is_text(slice_of(&name), fields[index].name)) fields[index].value = value;
    }
  } while (take_byte(reader, ','));
  return take_byte(reader, '}');
}

// With the blanks before and behind it.
static inline bool read_value(reader_t *reader, int nesting, json_t *value) {
  bool is_read;
  skip_blanks(reader);
  const uint8_t *from = reader->at;
  if (from == reader->end || nesting == JSON_NESTING_MAX) return false;
  *value = (json_t){.kind = JSON_OTHER};
  switch (*from) {
    case '"':
      value->kind = JSON_STRING;
      is_read = read_string(reader, &value->written);
      break;
    case '{': is_read = read_members(reader, nesting + 1, NULL, 0); break;
    case '[': is_read = read_list(reader, nesting + 1); break;
    case 't': is_read = read_word(reader, "true"); break;
    case 'f': is_read = read_word(reader, "false"); break;
    case 'n': is_read = read_word(reader, "null"); break;
    default:
      value->kind = JSON_NUMBER;
      is_read = read_number(reader);
      value->written = (slice_t){from, (size_t)(reader->at - from)};
  }
  skip_blanks(reader);
  return is_read;
}

// Finds fields of an object; else says why there is none.
static inline const char *read_object(slice_t text, field_t *fields, size_t count) {
  reader_t reader = {text.bytes, text.bytes + text.length};
  json_t value;
  if (!is_utf8(text)) return "the body is not UTF-8";
  skip_blanks(&reader);
  bool is_object = is_next(&reader, '{');
  bool is_read = is_object ? read_members(&reader, 0, fields, count) : read_value(&reader, 0, &value);
  skip_blanks(&reader);
  if (!is_read || reader.at != reader.end) return "the body is not JSON";
  return is_object ? NULL : "the body is not a JSON object";
}
