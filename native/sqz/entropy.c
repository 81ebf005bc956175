/* The entropy coder, of which only decoding is left. */
#include "entropy.h"

#define EXPORT static __attribute__((unused))
#define ENCODING(coder) 0
#ifdef __OPTIMIZE_SIZE__ /* a call for each decision */
#define INLINE static __attribute__((noinline))
#define OUTLINE INLINE
#endif
#include "entropy_coder.h"

u32 sqz_entropy_bytes(void) { return sizeof(Model); }

void sqz_entropy_start(void *state) { ((Model *)state)->share[0] = 0; /* its tables are to be made */ }

i32 sqz_entropy_floats(void *state, Span bytes, u32 *values, u32 count, u32 drop) {
    return floats(state, 0, (u8 *)bytes.at, size_of(bytes), values, count, drop);
}

i32 sqz_entropy_shared(void *state, Span bytes, i32 *levels, const u32 *shape, u32 *table,
                       u32 centroids, u32 drop) {
    return shared(state, 0, (u8 *)bytes.at, size_of(bytes), levels, shape, table, centroids, drop);
}

i32 sqz_entropy_whole(void *state, Span bytes, i32 *levels, const u32 *shape) {
    return whole(state, 0, (u8 *)bytes.at, size_of(bytes), levels, shape);
}

i32 sqz_entropy_text(void *state, Span bytes, u8 *out, u32 count) {
    return text(state, 0, (u8 *)bytes.at, size_of(bytes), out, count);
}
