/* What a file may ask for; Python's limits for files of strangers (sqz/limits.py). Where the library
 * is built with SQZ_NO_LIMITS, only the format's own hold. */
#ifndef SQZ_LIMITS_H
#define SQZ_LIMITS_H

#include "basics.h"

enum { MOST_TEXT_BYTES = 1 << 20, MOST_STRINGS = 1 << 16, MOST_CHARACTERS = 1 << 16 };

/* SQZ_LIMIT where more than `most` is asked for, which grows by `more` with each byte of the file
 * beyond a mebibyte. */
static inline sqz_error within(u64 asked, u64 most, u64 more, u32 file_bytes) {
#ifdef SQZ_NO_LIMITS
    most = ~(u64)0;
    more = 0;
#endif
    if (file_bytes > 1u << 20) most += (file_bytes - (1u << 20)) * more;
    return asked > most ? SQZ_LIMIT : SQZ_OK;
}

static inline sqz_error weights_within(u64 weights, u32 file_bytes) {
    return within(weights, 4500000, 64, file_bytes);
}

static inline sqz_error memory_within(u64 bytes, u32 file_bytes) {
    return within(bytes, 96 << 20, 512, file_bytes);
}

static inline sqz_error work_within(u64 macs, u32 file_bytes) {
    return within(macs, 8000000000u, 8192, file_bytes);
}

#endif
