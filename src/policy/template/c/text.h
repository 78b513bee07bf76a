// Texts as a policy meets them: parts of what a client sent, names, numbers, UTF-8, and a body that grows.

#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Longest name of a stock, in bytes.
#define NAME_BYTES_MAX 64

static inline void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (!memory) abort();  // The last good version decides in its place.
  return memory;
}

// ---- parts of a text ----

// Bytes that are somebody else's.
typedef struct {
  const uint8_t *bytes;
  size_t length;
} slice_t;

static inline bool is_text(slice_t slice, const char *text) {
  return slice.length == strlen(text) && memcmp(slice.bytes, text, slice.length) == 0;
}

// Takes a text off the beginning of a slice, if it begins so.
static inline bool take_text(slice_t *slice, const char *text) {
  size_t length = strlen(text);
  if (slice->length < length || memcmp(slice->bytes, text, length) != 0) return false;
  slice->bytes += length;
  slice->length -= length;
  return true;
}

// Takes off what comes before a byte, and that byte; all where it is not there.
static inline slice_t take_until(slice_t *slice, char byte) {
  const uint8_t *end = slice->length ? memchr(slice->bytes, byte, slice->length) : NULL;
  slice_t part = {slice->bytes, end ? (size_t)(end - slice->bytes) : slice->length};
  size_t taken = part.length + (end ? 1 : 0);
  slice->bytes += taken;
  slice->length -= taken;
  return part;
}

// A number of decimal digits alone; false where it is none, or is beyond 2^64 - 1.
static inline bool parse_number(slice_t digits, uint64_t *number) {
  *number = 0;
  for (size_t index = 0; index < digits.length; index++) {
    if (digits.bytes[index] < '0' || digits.bytes[index] > '9') return false;
    uint64_t digit = digits.bytes[index] - '0';
    if (*number > (UINT64_MAX - digit) / 10) return false;
    *number = *number * 10 + digit;
  }
  return digits.length > 0;
}

static inline int hex_digit(uint8_t digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

// ---- UTF-8 ----

// How many bytes the character has that begins there, and which one it is; 0 where none does.
static inline size_t read_character(slice_t text, uint32_t *character) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (text.length == 0) return 0;
  uint8_t first = text.bytes[0];
  size_t count = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (count == 0 || count > text.length || first > 0xf4) return 0;
  *character = count == 1 ? first : (uint32_t)(first & (0x7f >> count));
  for (size_t index = 1; index < count; index++) {
    if ((text.bytes[index] & 0xc0) != 0x80) return 0;
    *character = (*character << 6) | (text.bytes[index] & 0x3f);
  }
  bool is_surrogate = *character >= 0xd800 && *character < 0xe000;
  return *character < least[count] || *character > 0x10ffff || is_surrogate ? 0 : count;
}

static inline bool is_utf8(slice_t text) {
  uint32_t character;
  while (text.length > 0) {
    size_t count = read_character(text, &character);
    if (count == 0) return false;
    text.bytes += count;
    text.length -= count;
  }
  return true;
}

// ---- names ----

// A name, or another short text. A length beyond NAME_BYTES_MAX is of one that is longer than that.
typedef struct {
  uint8_t bytes[NAME_BYTES_MAX];
  size_t length;
} name_t;

static inline slice_t slice_of(const name_t *name) {
  return (slice_t){name->bytes, name->length};
}

static inline void push(name_t *name, uint8_t byte) {
  if (name->length < NAME_BYTES_MAX) name->bytes[name->length++] = byte;
  else name->length = NAME_BYTES_MAX + 1;
}

static inline void push_character(name_t *name, uint32_t character) {
  if (character < 0x80) {
    push(name, (uint8_t)character);
    return;
  }
  int more = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
  push(name, (uint8_t)((0xf00 >> (more + 1)) | (character >> (6 * more))));
  while (more-- > 0) push(name, (uint8_t)(0x80 | ((character >> (6 * more)) & 0x3f)));
}

// Percent-decoded; in a query a plus is a blank. False where a percent sign has no two digits behind it.
static inline bool percent_decode(slice_t written, bool is_query, name_t *name) {
  name->length = 0;
  for (size_t index = 0; index < written.length; index++) {
    uint8_t byte = written.bytes[index];
    if (byte == '%') {
      if (index + 2 >= written.length) return false;
      int high = hex_digit(written.bytes[index + 1]), low = hex_digit(written.bytes[index + 2]);
      if (high < 0 || low < 0) return false;
      byte = (uint8_t)(high * 16 + low);
      index += 2;
    } else if (byte == '+' && is_query) {
      byte = ' ';
    }
    push(name, byte);
  }
  return true;
}

// Whether a stock can have that name: 1 to 64 bytes of UTF-8 without control characters.
static inline bool is_stock_name(const name_t *name) {
  if (name->length == 0 || name->length > NAME_BYTES_MAX) return false;
  slice_t rest = slice_of(name);
  while (rest.length > 0) {
    uint32_t character;
    size_t count = read_character(rest, &character);
    if (count == 0 || character < 0x20 || (character >= 0x7f && character < 0xa0)) return false;
    rest.bytes += count;
    rest.length -= count;
  }
  return true;
}

// ---- a text that grows ----

// Its bytes are from `malloc`, and whoever has the text last frees them. It has no zero at its end.
typedef struct {
  char *bytes;
  size_t length, room;
} text_t;

static inline void append_bytes(text_t *text, const void *bytes, size_t count) {
  if (count > text->room - text->length) {
    text->room = 2 * text->room + count + 128;
    text->bytes = realloc(text->bytes, text->room);
    if (!text->bytes) abort();
  }
  if (count > 0) memcpy(text->bytes + text->length, bytes, count);
  text->length += count;
}

static inline void append_byte(text_t *text, char byte) {
  append_bytes(text, &byte, 1);
}

static inline void append(text_t *text, const char *more) {
  append_bytes(text, more, strlen(more));
}

static inline void append_number(text_t *text, uint64_t number) {
  char digits[20];
  size_t first = sizeof digits;
  do {
    digits[--first] = (char)('0' + number % 10);
    number /= 10;
  } while (number > 0);
  append_bytes(text, digits + first, sizeof digits - first);
}

// A string of JSON. Names have no control characters.
static inline void append_quoted(text_t *text, slice_t string) {
  append_byte(text, '"');
  for (size_t index = 0; index < string.length; index++) {
    if (string.bytes[index] == '"' || string.bytes[index] == '\\') append_byte(text, '\\');
    append_byte(text, (char)string.bytes[index]);
  }
  append_byte(text, '"');
}

// A value of a query, percent-encoded.
static inline void append_encoded(text_t *text, slice_t value) {
  static const char digits[] = "0123456789ABCDEF";
  for (size_t index = 0; index < value.length; index++) {
    uint8_t byte = value.bytes[index];
    uint8_t letter = byte | 0x20;
    bool is_plain = (byte >= '0' && byte <= '9') || (letter >= 'a' && letter <= 'z') ||
                    (byte && strchr("-._~", byte));
    if (is_plain) {
      append_byte(text, (char)byte);
    } else {
      append_byte(text, '%');
      append_byte(text, digits[byte >> 4]);
      append_byte(text, digits[byte & 15]);
    }
  }
}
