/* Layers on codes.
 *
 * Convolution is a matrix product in panels, as with floats (convolve.c), of pairs: a panel holds 16
 * pixels of the output, for each pair of channels under each place of the kernel 16 x 2 int16; a tile
 * of weights 8 filters x 2. A product of pairs is one instruction.
 */
#include "layers8.h"
#include "codes.h"
#include "depthwise.h"
#include "vector.h"

#if INT8_LAYERS

enum { TILE = 8, PANEL = 16, BLOCK_PAIRS = 1 << 15 };
enum { SIMD_PLAIN, SIMD_AVX2, SIMD_VNNI };

static u32 taps_of(const Node *node) { return node->on.window.kernel[0] * node->on.window.kernel[1]; }

static u32 pairs_of(const Node *node) { return taps_of(node) * ((node->constant[0]->shape[1] + 1) / 2); }

static u32 filters_of(const Node *node) { return node->constant[0]->shape[0] / node->on.window.groups; }

static u32 tiles_of(const Node *node) { return (filters_of(node) + TILE - 1) / TILE; }

static int is_packed(const Node *node) { return node->op == CONV && !sqz_is_depthwise(node); }

static u32 panels_of(const Node *node, const Value *out) {
    u32 most = BLOCK_PAIRS / PANEL / pairs_of(node), all = (out->shape[2] * out->shape[3] + PANEL - 1) / PANEL;
    return most > 1 ? u32_min(most, all) : 1;
}

u64 sqz_weights8(const Node *node) {
    if (!is_packed(node)) return node->constant[0]->weights;
    return (u64)node->on.window.groups * tiles_of(node) * TILE * 2 * pairs_of(node);
}

u64 sqz_scratch8(const Plan *plan, const Node *node) {
    const Value *out = plan->values + node->output;
    if (node->op == MAX_POOL) return plan->values[plan->inputs[node->first_input]].shape[3];
    if (node->op != CONV) return 0;
    if (!is_packed(node)) return 4 * (u64)out->shape[3];
    return 4 * (u64)pairs_of(node) * ((u64)panels_of(node, out) * PANEL + TILE);
}

void sqz_pack8(const Node *node, const i8 *from, i8 *to) {
    u32 channels = node->constant[0]->shape[1], taps = taps_of(node), filters = filters_of(node);
    for (u32 g = 0; g < node->on.window.groups; g++, from += (size_t)filters * channels * taps)
        for (u32 f = 0; f < filters; f += TILE)
            for (u32 tap = 0; tap < taps; tap++)
                for (u32 c = 0; c < channels; c += 2)
                    for (u32 i = 0; i < 2 * TILE; i++) {
                        u32 filter = f + i / 2, channel = c + i % 2;
                        int there = filter < filters && channel < channels;
                        *to++ = there ? from[((size_t)filter * channels + channel) * taps + tap] : 0;
                    }
}

/* ---- a tile at a panel ---- */

typedef void Multiply(const int16_t *w, const int16_t *x, u32 pairs, i32 sums[TILE][PANEL]);

static void multiply(const int16_t *w, const int16_t *x, u32 pairs, i32 sums[TILE][PANEL]) {
    for (u32 f = 0; f < TILE; f += 4)
        for (u32 p = 0; p < PANEL; p += 8) {
            const int16_t *weight = w + 2 * f, *pixel = x + 2 * p;
            V4I sum[4][2];
            UNROLLED for (u32 i = 0; i < 4; i++) sum[i][0] = sum[i][1] = v4i_zero();
            for (u32 d = 0; d < pairs; d++, weight += 2 * TILE, pixel += 2 * PANEL) {
                V8 left = v8_load(pixel), right = v8_load(pixel + 8);
                UNROLLED for (u32 i = 0; i < 4; i++) {
                    V8 pair = v8_pair(weight + 2 * i);
                    sum[i][0] = v4i_add_dot(sum[i][0], pair, left);
                    sum[i][1] = v4i_add_dot(sum[i][1], pair, right);
                }
            }
            UNROLLED for (u32 i = 0; i < 4; i++) {
                v4i_store(sums[f + i] + p, sum[i][0]);
                v4i_store(sums[f + i] + p + 4, sum[i][1]);
            }
        }
}

#if defined(__x86_64__) && defined(GNU_VECTORS) && !defined(SQZ_NO_AVX)
#define HAS_AVX 1
typedef int16_t V16 __attribute__((vector_size(32)));
typedef int16_t V16Anywhere __attribute__((vector_size(32), aligned(2), may_alias));
typedef int32_t V8I __attribute__((vector_size(32)));
typedef int32_t V8IAnywhere __attribute__((vector_size(32), aligned(4), may_alias));

__attribute__((target("avx2"))) static void multiply_avx2(const int16_t *w, const int16_t *x, u32 pairs,
                                                          i32 sums[TILE][PANEL]) {
    for (u32 f = 0; f < TILE; f += 4) {
        const int16_t *weight = w + 2 * f, *pixel = x;
        V8I sum[4][2];
        UNROLLED for (u32 i = 0; i < 4; i++) sum[i][0] = sum[i][1] = (V8I){0};
        for (u32 d = 0; d < pairs; d++, weight += 2 * TILE, pixel += 2 * PANEL) {
            V16 left = *(const V16Anywhere *)pixel, right = *(const V16Anywhere *)(pixel + 16);
            UNROLLED for (u32 i = 0; i < 4; i++) {
                i32 one = *(const PairAnywhere *)(weight + 2 * i);
                V16 pair = (V16)(V8I){one, one, one, one, one, one, one, one};
                sum[i][0] += (V8I)__builtin_ia32_pmaddwd256(pair, left);
                sum[i][1] += (V8I)__builtin_ia32_pmaddwd256(pair, right);
            }
        }
        UNROLLED for (u32 i = 0; i < 4; i++) {
            *(V8IAnywhere *)sums[f + i] = sum[i][0];
            *(V8IAnywhere *)(sums[f + i] + 8) = sum[i][1];
        }
    }
}

/* The same with VNNI: multiplies, adds up pairs and adds to the sum at once, 16 pixels wide. */
typedef int32_t V16I __attribute__((vector_size(64)));
typedef int32_t V16IAnywhere __attribute__((vector_size(64), aligned(2), may_alias));

__attribute__((target("avx512f"))) static void multiply_vnni(const int16_t *w, const int16_t *x, u32 pairs,
                                                             i32 sums[TILE][PANEL]) {
    V16I sum[TILE];
    UNROLLED for (u32 i = 0; i < TILE; i++) sum[i] = (V16I){0};
    for (u32 d = 0; d < pairs; d++, w += 2 * TILE, x += 2 * PANEL) {
        V16I pixels = *(const V16IAnywhere *)x;
        UNROLLED for (u32 i = 0; i < TILE; i++)
            __asm__("vpdpwssd %2%{1to16%}, %1, %0"
                    : "+v"(sum[i])
                    : "v"(pixels), "m"(*(const PairAnywhere *)(w + 2 * i)));
    }
    UNROLLED for (u32 i = 0; i < TILE; i++) *(V16IAnywhere *)sums[i] = sum[i];
}

static void cpuid(u32 leaf, u32 *a, u32 *b, u32 *c, u32 *d) {
    __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(0));
}

u32 sqz_find_simd(void) {
    u32 a, b, c, d, low, high;
    cpuid(0, &a, &b, &c, &d);
    if (a < 7) return SIMD_PLAIN;
    cpuid(1, &a, &b, &c, &d);
    if (!(c >> 27 & 1)) return SIMD_PLAIN; /* the system keeps no wide registers */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    cpuid(7, &a, &b, &c, &d);
    if ((low & 0xe6) == 0xe6 && (b >> 16 & 1) && (c >> 11 & 1)) return SIMD_VNNI;
    return (low & 6) == 6 && (b >> 5 & 1) ? SIMD_AVX2 : SIMD_PLAIN;
}
#else
u32 sqz_find_simd(void) { return SIMD_PLAIN; }
#endif

static Multiply *best_multiply(const Plan *plan) {
#ifdef HAS_AVX
    if (plan->simd == SIMD_VNNI) return multiply_vnni;
    if (plan->simd == SIMD_AVX2) return multiply_avx2;
#endif
    (void)plan;
    return multiply;
}

/* ---- pixels ---- */

/* Where what lies under one place of the kernel is for each pixel of a panel; those in the padding are
 * masked. Returns how far it is from one to the next, or 0 where that is not always as far. */
static u32 offsets(const Node *node, const Value *in, const u32 *rows, const u32 *columns, u32 ky, u32 kx,
                   i32 *at, u32 *mask) {
    const Window *w = &node->on.window;
    i32 width = (i32)in->shape[3], height = (i32)in->shape[2];
    i32 down = (i32)(ky * w->dilation[0]) - (i32)w->before[0], across = (i32)(kx * w->dilation[1]) - (i32)w->before[1];
    u32 even = 1;
    for (u32 i = 0; i < PANEL; i++) {
        i64 y = (i64)rows[i] * w->stride[0] + down, x = (i64)columns[i] * w->stride[1] + across;
        int inside = y >= 0 && x >= 0 && y < height && x < width;
        i64 place = y * width + x;
        mask[i] = inside ? 0x00ff00ffu : 0;
        at[i] = place < -0x40000000 ? -0x40000000 : place > 0x40000000 ? 0x40000000 : (i32)place;
        even &= at[i] == at[0] + (i32)(i * w->stride[1]);
    }
    i32 last = at[0] + (i32)(PANEL * w->stride[1]);
    return even && w->stride[1] < 3 && at[0] >= 0 && last <= width * height ? w->stride[1] : 0;
}

static void pack_panel(const Node *node, const Value *in, const Value *out, const u8 *x, u32 pixel,
                       u32 *panel) {
    u32 rows[PANEL], columns[PANEL], channels = in->shape[1] / node->on.window.groups;
    u32 taps = taps_of(node), last = out->shape[2] * out->shape[3] - 1, zeros = in->zero | in->zero << 16;
    size_t plane = (size_t)in->shape[2] * in->shape[3];
    for (u32 i = 0; i < PANEL; i++) { /* behind the last pixel it stands again */
        u32 p = u32_min(pixel + i, last);
        rows[i] = p / out->shape[3];
        columns[i] = p % out->shape[3];
    }
    for (u32 tap = 0; tap < taps; tap++) {
        i32 at[PANEL];
        u32 mask[PANEL], fill[PANEL];
        u32 step = offsets(node, in, rows, columns, tap / node->on.window.kernel[1], tap % node->on.window.kernel[1], at, mask);
        for (u32 i = 0; i < PANEL; i++) {
            fill[i] = zeros & ~mask[i];
            if (!mask[i] && !step) at[i] = 0;
        }
        for (u32 c = 0; c < channels; c += 2, panel += PANEL) {
            const u8 *a = x + (size_t)c * plane, *b = c + 1 < channels ? a + plane : a;
            if (step == 1)
                for (u32 i = 0; i < PANEL; i += 4)
                    join_pairs(a + at[0] + i, b + at[0] + i, mask + i, fill + i, panel + i);
            else
                for (u32 i = 0; i < PANEL; i++)
                    panel[i] = ((a[at[i]] | (u32)b[at[i]] << 16) & mask[i]) | fill[i];
        }
    }
}

/* ---- layers ---- */

static void group(const Plan *plan, const Node *node, const Value *in, const Value *out, const u8 *x, void *y,
                  size_t at, const i8 *w, const Filter *filter) {
    u32 pairs = pairs_of(node), tiles = tiles_of(node), area = out->shape[2] * out->shape[3];
    u32 block = panels_of(node, out) * PANEL, filters = filters_of(node);
    Multiply *best = best_multiply(plan);
    int16_t *tile = (int16_t *)(void *)plan->scratch;
    u32 *panels = (u32 *)(void *)(tile + (size_t)pairs * 2 * TILE);
    for (u32 start = 0; start < area; start += block) {
        u32 end = u32_min(start + block, area);
        for (u32 p = start; p < end; p += PANEL)
            pack_panel(node, in, out, x, p, panels + (size_t)(p - start) * pairs);
        for (u32 t = 0; t < tiles; t++) {
            const i8 *from = w + (size_t)t * pairs * 2 * TILE;
            for (size_t i = 0; i < (size_t)pairs * 2 * TILE; i += 8) v8_widen(from + i, tile + i);
            for (u32 p = start; p < end; p += PANEL) {
                i32 sums[TILE][PANEL];
                best(tile, (const int16_t *)(const void *)(panels + (size_t)(p - start) * pairs), pairs, sums);
                for (u32 i = 0; i < TILE && t * TILE + i < filters; i++)
                    sqz_put_sums(node, filter + t * TILE + i, out, sums[i], u32_min(PANEL, end - p), y,
                                 at + (size_t)(t * TILE + i) * area + p);
            }
        }
    }
}

/* sums[i] += w * (x[i * stride] - zero) */
static void add_row(i32 *sums, const u8 *x, i32 w, i32 zero, u32 count, u32 stride) {
    for (u32 i = 0; i < count; i++) sums[i] += w * ((i32)x[(size_t)i * stride] - zero);
}

static void depthwise(const Plan *plan, const Node *node, const Value *in, const Value *out, const u8 *x,
                      void *y, size_t to, const i8 *taps, const Filter *filter) {
    const Window *w = &node->on.window;
    u32 height = in->shape[2], width = in->shape[3], columns = out->shape[3];
    i32 *sums = (i32 *)(void *)plan->scratch;
    for (u32 row = 0; row < out->shape[2]; row++) {
        for (u32 i = 0; i < columns; i++) sums[i] = 0;
        for (u32 ky = 0; ky < w->kernel[0]; ky++) {
            i64 at = (i64)row * w->stride[0] + (i64)ky * w->dilation[0] - w->before[0];
            if (at < 0 || at >= height) continue;
            for (u32 kx = 0; kx < w->kernel[1]; kx++) {
                i64 start = (i64)kx * w->dilation[1] - w->before[1];
                u32 first = reaching(start, w->stride[1], 0, columns);
                u32 end = reaching(start, w->stride[1], width, columns);
                if (first >= end) continue;
                add_row(sums + first, x + (size_t)at * width + (size_t)(start + (i64)first * w->stride[1]),
                        taps[ky * w->kernel[1] + kx], (i32)in->zero, end - first, w->stride[1]);
            }
        }
        sqz_put_sums(node, filter, out, sums, columns, y, to + (size_t)row * columns);
    }
}

void sqz_convolve8(const Plan *plan, const Node *node, const Value *in, const Value *out, const u8 *x, void *y) {
    u32 groups = node->on.window.groups, filters = out->shape[1], each = filters / in->shape[1];
    size_t plane = (size_t)in->shape[2] * in->shape[3], area = (size_t)out->shape[2] * out->shape[3];
    for (u32 n = 0; n < in->shape[0]; n++, x += plane * in->shape[1]) {
        size_t to = (size_t)n * filters * area;
        for (u32 f = 0; f < filters && !is_packed(node); f++)
            depthwise(plan, node, in, out, x + f / each * plane, y, to + f * area,
                      node->weights + (size_t)f * taps_of(node), node->filters + f);
        for (u32 g = 0; g < groups && is_packed(node); g++)
            group(plan, node, in, out, x + (size_t)g * (in->shape[1] / groups) * plane, y,
                  to + (size_t)g * filters_of(node) * area,
                  node->weights + (size_t)g * tiles_of(node) * TILE * 2 * pairs_of(node),
                  node->filters + (size_t)g * filters_of(node));
    }
}

void sqz_dense8(const Node *node, const Value *in, const Value *out, const u8 *x, void *y) {
    u32 features = in->count / node->rows, outputs = out->count / node->rows;
    for (u32 row = 0; row < node->rows; row++, x += features)
        for (u32 o = 0; o < outputs; o++) {
            const i8 *w = node->weights + (size_t)o * features;
            i32 sum = 0;
            for (u32 i = 0; i < features; i++) sum += w[i] * x[i];
            sqz_put_sums(node, node->filters + o, out, &sum, 1, y, (size_t)row * outputs + o);
        }
}

#endif
