/* Tensors from their payloads: one table of the coders, as docs/format.md numbers them. */
#include "tensors.h"
#include "entropy.h"
#include "huffman.h"
#include "settings.h"

/* ---- plain numbers ---- */

static u64 no_scratch(const Record *record) {
    (void)record;
    return 0;
}

static void put_bits(float *at, u32 bits) {
    union {
        u32 bits;
        float value;
    } both;
    both.bits = bits;
    *at = both.value;
}

static int dense(const Record *r, float *values, void *state, void *scratch) {
    (void)state;
    (void)scratch;
    if (size_of(r->parameters) || size_of(r->payload) != 4 * (u64)r->weights) return 0;
    for (u32 i = 0; i < r->weights; i++) put_bits(values + i, little32(r->payload.at + 4 * i));
    return 1;
}

static u32 from_half(u32 half) {
    u32 sign = (half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
    if (exponent == 31) return sign | 0x7f800000 | mantissa << 13;
    if (exponent) return sign | (exponent + 112) << 23 | mantissa << 13;
    if (!mantissa) return sign;
    for (exponent = 113; !(mantissa & 1024); exponent--) mantissa <<= 1; /* subnormal */
    return sign | exponent << 23 | (mantissa & 1023) << 13;
}

static int half(const Record *r, float *values, void *state, void *scratch) {
    (void)state;
    (void)scratch;
    if (size_of(r->parameters) || size_of(r->payload) != 2 * (u64)r->weights) return 0;
    for (u32 i = 0; i < r->weights; i++) {
        const u8 *at = r->payload.at + 2 * i;
        put_bits(values + i, from_half(at[0] | (u32)at[1] << 8));
    }
    return 1;
}

/* ---- tables of centroids ---- */

static u32 first_u16(const Record *r) {
    return size_of(r->parameters) < 2 ? 0 : r->parameters.at[0] | (u32)r->parameters.at[1] << 8;
}

/* How many of the centroids are negative; -1 where they do not ascend, or one is 0 or no number. */
static i32 count_negatives(const float *table, u32 centroids) {
    i32 negatives = 0;
    for (u32 i = 0; i < centroids; i++) {
        if (!(table[i] - table[i] == 0.0f) || table[i] == 0.0f) return -1;
        if (i && !(table[i] > table[i - 1])) return -1;
        negatives += table[i] < 0.0f;
    }
    return negatives;
}

/* ---- coder 2: Deep Compression ---- */

enum { GAP_FILLER = 15, GAPS = 16, LONGEST_TABLE = 1 << 15 };

/* The table, code lengths of at most 32,768 symbols, and two symbols a weight. */
static u64 huffman_scratch(const Record *r) {
    return 4 * (u64)first_u16(r) + LONGEST_TABLE + 4 * (u64)r->weights;
}

/* Reads `count` symbols behind their code lengths; 0 where they cannot be. */
static int symbols(void *state, Span *rest, u16 *out, u32 count, u32 alphabet, u8 *lengths) {
    if (alphabet > LONGEST_TABLE || size_of(*rest) < (alphabet + 1) / 2) return 0;
    for (u32 i = 0; i < alphabet; i++) lengths[i] = rest->at[i / 2] >> 4 * (i & 1) & 15;
    rest->at += (alphabet + 1) / 2;
    i32 used = sqz_huffman(state, *rest, out, count, lengths, alphabet);
    if (used < 0) return 0;
    rest->at += used;
    return 1;
}

static int deep_compression(const Record *r, float *values, void *state, void *scratch) {
    if (size_of(r->parameters) != 7) return 0;
    u32 centroids = first_u16(r), gap_count = little32(r->parameters.at + 2);
    u32 bitmap = r->parameters.at[6], placed = 0;
    Span rest = r->payload;
    float *table = (float *)scratch;
    u8 *lengths = (u8 *)(table + centroids);
    u16 *gaps = (u16 *)(void *)(lengths + LONGEST_TABLE), *codes = gaps + r->weights;
    if (size_of(rest) < 4 * centroids) return 0;
    for (u32 i = 0; i < centroids; i++, rest.at += 4) put_bits(table + i, little32(rest.at));
    if (count_negatives(table, centroids) < 0) return 0;

    /* A weight that is placed becomes 1 at first, and its centroid when the codes are known. */
    if (bitmap) {
        u32 bytes = (r->weights + 7) / 8;
        if (bitmap != 1 || gap_count || size_of(rest) < bytes) return 0;
        for (u32 i = 0; i < 8 * bytes; i++) {
            if (!(rest.at[i / 8] >> (i & 7) & 1)) continue;
            if (i >= r->weights) return 0;
            values[i] = 1.0f;
            placed++;
        }
        rest.at += bytes;
    } else {
        u64 at = 0; /* every gap moves on by 1 at least */
        if (gap_count > r->weights || !symbols(state, &rest, gaps, gap_count, GAPS, lengths)) return 0;
        for (u32 i = 0; i < gap_count; i++) {
            at += gaps[i];
            if (gaps[i] == GAP_FILLER) continue;
            if (at >= r->weights) return 0;
            values[at++] = 1.0f;
            placed++;
        }
        if (at > r->weights) return 0;
    }
    if (!symbols(state, &rest, codes, placed, centroids, lengths) || size_of(rest)) return 0;
    for (u32 i = 0; i < r->weights; i++)
        if (values[i] != 0.0f) values[i] = table[*codes++];
    return 1;
}

/* ---- coders 3 to 5: context mixing ---- */

enum { MANTISSA_BITS = 23, LEAST_SCALE = 1 << 23, MOST_SCALE = 231 << 23 }; /* 2^-126, 2^104 */

static u64 shared_scratch(const Record *r) { return 4 * (u64)first_u16(r); }

/* Rows, columns, height, width; see docs/format.md. */
static void as_kernels(const Record *r, u32 shape[4]) {
    for (u32 i = 0; i < 4; i++) shape[i] = 1;
    for (u32 i = 0; i < r->axes; i++) {
        if (i < 2) shape[i] = r->shape[i];
        else if (i + 1 < r->axes) shape[2] *= r->shape[i];
        else shape[3] = r->shape[i];
    }
    if (!r->weights) shape[0] = 0; /* other axes may be large */
}

static int shared(const Record *r, float *values, void *state, void *scratch) {
    if (size_of(r->parameters) != 3 || r->parameters.at[2] > MANTISSA_BITS) return 0;
    u32 centroids = first_u16(r), drop = r->parameters.at[2], shape[4];
    as_kernels(r, shape);
    i32 *levels = (i32 *)(void *)values; /* these become values where they lie */
    u32 *bits = scratch;
    float *table = scratch;
    for (u32 i = 0; i < centroids; i++) bits[i] = 0;
    if (sqz_entropy_shared(state, r->payload, levels, shape, bits, centroids,
                           drop) < 0)
        return 0;
    for (u32 i = 0; i < centroids; i++) put_bits(table + i, bits[i]);
    i32 negatives = count_negatives(table, centroids);
    if (negatives < 0) return 0;
    for (u32 i = 0; i < r->weights; i++) {
        i32 level = levels[i];
        values[i] = level ? table[negatives + level - (level > 0)] : 0.0f;
    }
    return 1;
}

static int entropy_floats(const Record *r, float *values, void *state, void *scratch) {
    (void)scratch;
    u32 *bits = (u32 *)(void *)values;
    if (size_of(r->parameters) != 1 || r->parameters.at[0] > MANTISSA_BITS) return 0;
    if (sqz_entropy_floats(state, r->payload, bits, r->weights,
                           r->parameters.at[0]) < 0)
        return 0;
    for (u32 i = 0; i < r->weights; i++) put_bits(values + i, bits[i]);
    return 1;
}

/* ---- coder 5: whole numbers times a scale ---- */

static int grid(const Record *r, float *values, void *state, void *scratch) {
    i32 *levels = (i32 *)(void *)values; /* these become values where they lie */
    u32 shape[4];
    float scale;
    (void)scratch;
    if (size_of(r->parameters) != 5 || r->parameters.at[4] > 1) return 0;
    u32 bits = little32(r->parameters.at);
    if (bits - LEAST_SCALE > MOST_SCALE - LEAST_SCALE) return 0;
    put_bits(&scale, bits);
    as_kernels(r, shape);
    if (sqz_entropy_whole(state, r->payload, levels, shape) < 0) return 0;
    for (u32 i = 0; i < r->weights; i++) values[i] = scale * (float)levels[i];
    return 1;
}

/* ---- by number ---- */

static u32 no_state(void) { return 0; }

static const struct {
    u32 (*state)(void);                   /* bytes */
    u64 (*scratch)(const Record *record); /* bytes */
    int (*decode)(const Record *record, float *values, void *state, void *scratch); /* or 0 */
} coders[] = {
    {no_state, no_scratch, dense},
    {no_state, no_scratch, half},
    {sqz_huffman_bytes, huffman_scratch, deep_compression},
    {sqz_entropy_bytes, shared_scratch, shared},
    {sqz_entropy_bytes, no_scratch, entropy_floats},
    {sqz_entropy_bytes, no_scratch, grid},
};

int sqz_has_coder(u32 number) { return number < sizeof coders / sizeof *coders; }

void sqz_tensor_scratch(const Record *record, u64 *state, u64 *scratch) {
    *state = *scratch = 0;
    if (record->coder == IN_GRAPH) return;
    *state = coders[record->coder].state();
    *scratch = coders[record->coder].scratch(record);
}

void sqz_tensor_start(void *state, u64 bytes) {
    if (bytes >= sqz_entropy_bytes()) sqz_entropy_start(state);
}

sqz_error sqz_tensor_decode(const Record *record, float *values, void *state, void *scratch) {
    if (record->coder == IN_GRAPH) {
        sqz_setting_floats(record, values);
        return SQZ_OK;
    }
    for (u32 i = 0; i < record->weights; i++) values[i] = 0.0f; /* some look at what they write over */
    if (!coders[record->coder].decode(record, values, state, scratch)) return SQZ_CODER;
    for (u32 i = 0; i < record->weights; i++)
        if (values[i] - values[i] != 0.0f) return SQZ_CODER; /* infinite or no number */
    return SQZ_OK;
}
