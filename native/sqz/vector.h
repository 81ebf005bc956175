/* Four floats at a time. GCC and clang know such vectors and make SSE, NEON or WebAssembly SIMD of
 * them, or four floats where there is none; other compilers get the four floats from here. */
#ifndef SQZ_VECTOR_H
#define SQZ_VECTOR_H

/* Whether there are vectors of four; without, twice as many registers are wanted for a sum of each. */
#if defined(__SSE__) || defined(__ARM_NEON) || defined(__wasm_simd128__)
enum { HAS_VECTORS = 1 };
#else
enum { HAS_VECTORS = 0 };
#endif

/* Before a loop of a few steps whose variables should be registers. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* where nothing is optimized */
#define UNROLLED _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 8")
#else
#define UNROLLED
#endif

#if defined(__GNUC__)
typedef float V4 __attribute__((vector_size(16)));
typedef float V4Anywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t V4Mask __attribute__((vector_size(16)));

static inline V4 v4_load(const float *p) { return *(const V4Anywhere *)p; }
static inline void v4_store(float *p, V4 a) { *(V4Anywhere *)p = a; }
static inline V4 v4_all(float a) { return (V4){a, a, a, a}; }
static inline V4 v4_add(V4 a, V4 b) { return a + b; }
static inline V4 v4_mul(V4 a, V4 b) { return a * b; }
static inline V4 v4_above_zero(V4 a) { return (V4)((V4Mask)a & (V4Mask)(a > v4_all(0.0f))); }
#else
typedef struct {
    float x[4];
} V4;

static inline V4 v4_load(const float *p) {
    V4 a = {{p[0], p[1], p[2], p[3]}};
    return a;
}
static inline void v4_store(float *p, V4 a) {
    for (int i = 0; i < 4; i++) p[i] = a.x[i];
}
static inline V4 v4_all(float x) {
    V4 a = {{x, x, x, x}};
    return a;
}
static inline V4 v4_add(V4 a, V4 b) {
    for (int i = 0; i < 4; i++) a.x[i] += b.x[i];
    return a;
}
static inline V4 v4_mul(V4 a, V4 b) {
    for (int i = 0; i < 4; i++) a.x[i] *= b.x[i];
    return a;
}
static inline V4 v4_above_zero(V4 a) {
    for (int i = 0; i < 4; i++) a.x[i] = a.x[i] > 0.0f ? a.x[i] : 0.0f;
    return a;
}
#endif

#endif
