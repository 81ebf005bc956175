/* Raw deflate. */
#ifndef SQZ_INFLATE_H
#define SQZ_INFLATE_H

#include "basics.h"

/* Raw deflate (RFC 1951) that must fill `out` and use up its input. */
sqz_error sqz_inflate(Span in, u8 *out, u32 size);

#endif
