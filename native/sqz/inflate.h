/* Raw deflate. */
#ifndef SQZ_INFLATE_H
#define SQZ_INFLATE_H

#include "basics.h"

/* Raw deflate (RFC 1951) that must fill `out` and use up its input, else it is SQZ_LENGTH; SQZ_HEAD
 * where it is none, by the rules of zlib. */
sqz_error sqz_inflate(Span in, u8 *out, u32 size);

#endif
