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

/* Eight int16 and four int32, for products of codes. `dot` multiplies and adds up pairs. */
#if defined(__GNUC__)
#define GNU_VECTORS 1
typedef int16_t V8 __attribute__((vector_size(16)));
typedef int16_t V8Anywhere __attribute__((vector_size(16), aligned(2), may_alias));
typedef int32_t V4I __attribute__((vector_size(16)));
typedef int32_t V4IAnywhere __attribute__((vector_size(16), aligned(4), may_alias));

typedef int32_t PairAnywhere __attribute__((aligned(2), may_alias));

static inline V8 v8_load(const int16_t *p) { return *(const V8Anywhere *)p; }
static inline V8 v8_pair(const int16_t *p) { /* two, four times */
    int32_t pair = *(const PairAnywhere *)p;
    return (V8)(V4I){pair, pair, pair, pair};
}
static inline V4I v4i_zero(void) { return (V4I){0, 0, 0, 0}; }

typedef uint8_t V4Bytes __attribute__((vector_size(4)));
typedef uint8_t V4BytesAnywhere __attribute__((vector_size(4), aligned(1), may_alias));
typedef uint32_t V4U __attribute__((vector_size(16)));
typedef uint32_t V4UAnywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint8_t V16U __attribute__((vector_size(16)));
typedef uint8_t V16UAnywhere __attribute__((vector_size(16), aligned(1), may_alias));

typedef int8_t V8Bytes __attribute__((vector_size(8)));
typedef int8_t V8BytesAnywhere __attribute__((vector_size(8), aligned(1), may_alias));

static inline void v8_widen(const int8_t *from, int16_t *to) {
    *(V8Anywhere *)to = __builtin_convertvector(*(const V8BytesAnywhere *)from, V8);
}

/* Each of four bytes as the pair of it and one of b's. */
static inline void join_pairs(const uint8_t *a, const uint8_t *b, const uint32_t *mask, const uint32_t *fill,
                              uint32_t *to) {
    V4U low = __builtin_convertvector(*(const V4BytesAnywhere *)a, V4U);
    V4U high = __builtin_convertvector(*(const V4BytesAnywhere *)b, V4U);
    *(V4UAnywhere *)to = ((low | high << 16) & *(const V4UAnywhere *)mask) | *(const V4UAnywhere *)fill;
}

typedef uint64_t V2L __attribute__((vector_size(16)));
typedef uint32_t V2U __attribute__((vector_size(8)));

static inline V2L v2_product(V4U a, int high, uint32_t b) {
    V2U half = high ? (V2U){a[2], a[3]} : (V2U){a[0], a[1]};
    return __builtin_convertvector(half, V2L) * __builtin_convertvector(((V2U){b, b}), V2L);
}

/* Four bytes: ((sums + bias) * multiplier + start >> shift) + zero, from low to high. */
static inline void scale_sums(const int32_t *sums, uint32_t bias, uint32_t multiplier, uint64_t start,
                              uint32_t shift, uint32_t zero, uint32_t low, uint32_t high, uint8_t *to) {
    V4U x = *(const V4UAnywhere *)sums + (V4U){bias, bias, bias, bias};
    V2L a = (v2_product(x, 0, multiplier) + (V2L){start, start}) >> (V2L){shift, shift};
    V2L b = (v2_product(x, 1, multiplier) + (V2L){start, start}) >> (V2L){shift, shift};
    V4I code = (V4I)((V4U){(uint32_t)a[0], (uint32_t)a[1], (uint32_t)b[0], (uint32_t)b[1]} + (V4U){zero, zero, zero, zero});
    V4I least = (V4I)(V4U){low, low, low, low}, most = (V4I)(V4U){high, high, high, high}, over = code > least;
    code = (code & over) | (least & ~over);
    over = code < most;
    code = (code & over) | (most & ~over);
    *(V4BytesAnywhere *)to = __builtin_convertvector(code, V4Bytes);
}

/* The larger of each of 16 bytes. */
static inline void take_larger(uint8_t *a, const uint8_t *b) {
    V16U x = *(V16UAnywhere *)a, y = *(const V16UAnywhere *)b, larger = (V16U)(x > y);
    *(V16UAnywhere *)a = (x & larger) | (y & ~larger);
}
static inline void v4i_store(int32_t *p, V4I a) { *(V4IAnywhere *)p = a; }
static inline V4I v4i_add_dot(V4I sum, V8 a, V8 b) {
#if defined(__wasm_simd128__)
    return sum + (V4I)__builtin_wasm_dot_s_i32x4_i16x8(a, b);
#elif defined(__SSE2__)
    return sum + (V4I)__builtin_ia32_pmaddwd128(a, b);
#else
    for (int i = 0; i < 4; i++) sum[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    return sum;
#endif
}
#else
typedef struct {
    int16_t x[8];
} V8;
typedef struct {
    int32_t x[4];
} V4I;

static inline V8 v8_load(const int16_t *p) {
    V8 a;
    for (int i = 0; i < 8; i++) a.x[i] = p[i];
    return a;
}
static inline V8 v8_pair(const int16_t *p) {
    V8 a;
    for (int i = 0; i < 8; i++) a.x[i] = p[i & 1];
    return a;
}
static inline void v8_widen(const int8_t *from, int16_t *to) {
    for (int i = 0; i < 8; i++) to[i] = from[i];
}
static inline void join_pairs(const uint8_t *a, const uint8_t *b, const uint32_t *mask, const uint32_t *fill,
                              uint32_t *to) {
    for (int i = 0; i < 4; i++) to[i] = ((a[i] | (uint32_t)b[i] << 16) & mask[i]) | fill[i];
}
static inline void scale_sums(const int32_t *sums, uint32_t bias, uint32_t multiplier, uint64_t start,
                              uint32_t shift, uint32_t zero, uint32_t low, uint32_t high, uint8_t *to) {
    for (int i = 0; i < 4; i++) {
        uint64_t x = (uint32_t)((uint32_t)sums[i] + bias);
        int32_t code = (int32_t)((uint32_t)((x * multiplier + start) >> shift) + zero);
        code = code > (int32_t)low ? code : (int32_t)low;
        to[i] = (uint8_t)(code < (int32_t)high ? code : (int32_t)high);
    }
}
static inline void take_larger(uint8_t *a, const uint8_t *b) {
    for (int i = 0; i < 16; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
}
static inline V4I v4i_zero(void) {
    V4I a = {{0, 0, 0, 0}};
    return a;
}
static inline void v4i_store(int32_t *p, V4I a) {
    for (int i = 0; i < 4; i++) p[i] = a.x[i];
}
static inline V4I v4i_add_dot(V4I sum, V8 a, V8 b) {
    for (int i = 0; i < 4; i++) sum.x[i] += a.x[2 * i] * b.x[2 * i] + a.x[2 * i + 1] * b.x[2 * i + 1];
    return sum;
}
#endif

#endif
