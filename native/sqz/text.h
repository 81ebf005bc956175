/* Text: comparing it, and saying what an error is about. */
#ifndef SQZ_TEXT_H
#define SQZ_TEXT_H

#include "basics.h"

int sqz_same_text(Span a, Span b);

/* Whether text is a word that ends in a zero. */
int sqz_is(Span text, const char *word);

/* FNV-1a: of two texts with different ones, nothing more need be compared. */
u32 sqz_hash(Span text);

/* Whether bytes are UTF-8: shortest forms only, and no surrogates. */
int sqz_is_utf8(Span text);

/* An error, and what it is about. */
sqz_error sqz_refused(sqz_network *net, sqz_error error, Span what);

#endif
