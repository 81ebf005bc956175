/* JSON (RFC 8259), without a stack of calls and without memory. */
#ifndef SQZ_JSON_H
#define SQZ_JSON_H

#include "basics.h"

/* Whether UTF-8 is one JSON value, by the rules of Python's json module, which takes NaN and
 * Infinity as well; nested at most MOST_DEPTH times. Everything below is for what is valid. */
enum { MOST_DEPTH = 64 };
int sqz_json_valid(Span text);

/* What is inside of a list ('[') or an object ('{'); 0 where the value is none. */
int sqz_json_open(Span value, u8 bracket, Span *inside);

/* The next item of a list, or member of an object, whose key is given then; 0 behind the last. */
int sqz_json_next(Span *inside, Span *key, Span *value);

/* The member of an object; of a key that is there twice the last, as Python has it. */
int sqz_json_member(Span object, const char *key, Span *value);

/* A string's bytes between its quotes, escapes as they are; 0 where it is none, or is no Unicode. */
int sqz_json_string(Span value, Span *inside);

/* The next character of a string, escapes undone; its bytes in UTF-8 follow one another. */
u32 sqz_json_character(Span *inside, u8 bytes[4]);

/* Whether a string is this word, or the text of another. */
int sqz_json_is(Span inside, const char *word);
int sqz_json_same(Span inside, Span text);

/* That of its text, as sqz_hash has it. */
u32 sqz_json_hash(Span inside);

/* A finite number, rounded to double as near as makes no difference to a float. */
int sqz_json_number(Span value, double *number);

/* A number without point and exponent, as near as int64 comes. */
int sqz_json_integer(Span value, i64 *number);

#endif
