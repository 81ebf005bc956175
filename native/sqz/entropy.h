/* Context mixing, decoded. */
#ifndef SQZ_ENTROPY_H
#define SQZ_ENTROPY_H

#include "basics.h"

/* Bytes of the coder's state, which must be started before its first use. */
u32 sqz_entropy_bytes(void);
void sqz_entropy_start(void *state);

/* Below zero where they fail. */
i32 sqz_entropy_floats(void *state, Span bytes, u32 *values, u32 count, u32 drop);
i32 sqz_entropy_shared(void *state, Span bytes, i32 *levels, const u32 *shape, u32 *table,
                       u32 centroids, u32 drop);
i32 sqz_entropy_whole(void *state, Span bytes, i32 *levels, const u32 *shape);
i32 sqz_entropy_text(void *state, Span bytes, u8 *out, u32 count);

#endif
