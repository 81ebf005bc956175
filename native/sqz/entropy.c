/* The entropy coder of native/coder.c, of which only decoding is left. */
#define EXPORT static __attribute__((unused))
#ifdef __OPTIMIZE_SIZE__ /* a call for each decision */
#define INLINE static __attribute__((noinline))
#endif
#include "../coder.c"

static Model model;

i32 sqz_entropy_floats(const u8 *bytes, u32 size, u32 *values, u32 count, u32 drop);
i32 sqz_entropy_shared(const u8 *bytes, u32 size, i32 *levels, const u32 *shape, u32 *table,
                       u32 centroids, u32 drop);

i32 sqz_entropy_floats(const u8 *bytes, u32 size, u32 *values, u32 count, u32 drop) {
    return floats(&model, 0, (u8 *)bytes, size, values, count, drop);
}

i32 sqz_entropy_shared(const u8 *bytes, u32 size, i32 *levels, const u32 *shape, u32 *table,
                       u32 centroids, u32 drop) {
    return shared(&model, 0, (u8 *)bytes, size, levels, shape, table, centroids, drop);
}
