/* The entropy coder of .sqz files: signed integers ("levels") and float32 arrays.
 *
 * Binary arithmetic coding of decisions whose probabilities are predicted by logistic mixing of
 * adaptive contexts (Mahoney 2005, "Adaptive weighing of context models"). Integers only, so that
 * every platform decodes the same. docs/format.md states every constant and rule used here.
 * Builds freestanding to WebAssembly (`make wasm`); no allocation, no libc.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef EXPORT /* native/sqz includes this file, and keeps its names to itself */
#define EXPORT __attribute__((visibility("default")))
#endif

/* ---- errors: negative results of the exported functions ---- */
enum { OUT_OF_SPACE = -1, OUT_OF_INPUT = -2, OUT_OF_RANGE = -3 };

/* ---- logistic domain: probabilities are 16 bit, stretched ones are ln(p / (1 - p)) * 256 ---- */
static const u32 LOGISTIC[33] = { /* 65536 / (1 + exp(-x)) at x = -8, -7.5 .. 8 */
    22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

static i32 stretch_table[4096];

static u32 squash(i32 x) { /* 16-bit probability at x / 256, linear between the 33 points */
    if (x > 2047) x = 2047;
    if (x < -2047) x = -2047;
    u32 at = (u32)(x + 2048), low = at & 127, i = at >> 7;
    return (LOGISTIC[i] * (128 - low) + LOGISTIC[i + 1] * low + 64) >> 7;
}

static void fill_stretch(void) { /* the inverse of squash, by upper 12 bits of the probability */
    u32 next = 0;
    for (i32 x = -2047; x <= 2047; x++) {
        u32 p = squash(x) >> 4;
        while (next <= p) stretch_table[next++] = x;
    }
    while (next < 4096) stretch_table[next++] = 2047;
}

/* ---- arithmetic coder (32-bit interval, carry-free; Witten, Neal, Cleary 1987 as in PAQ) ---- */
typedef struct {
    u32 low, high, code;
    u8 *at, *end;
    i32 encoding, error, missing;
} Coder;

static Coder coder;

static u32 take(void) { /* past the end: up to three zeros that the encoder left out */
    if (coder.at < coder.end) return *coder.at++;
    if (++coder.missing > 3) coder.error = OUT_OF_INPUT;
    return 0;
}

static void start(u8 *bytes, u32 size, i32 encoding) {
    coder.low = 0;
    coder.high = 0xffffffffu;
    coder.at = bytes;
    coder.end = bytes + size;
    coder.encoding = encoding;
    coder.error = 0;
    coder.missing = 0;
    coder.code = 0;
    if (!encoding)
        for (i32 i = 0; i < 4; i++) coder.code = coder.code << 8 | take();
}

static void put(u32 byte) {
    if (coder.at < coder.end) *coder.at++ = (u8)byte;
    else coder.error = OUT_OF_SPACE;
}

/* Codes one decision whose probability of being 1 is p / 65536, 0 < p < 65536. */
static u32 code_bit(u32 bit, u32 p) {
    u32 middle = coder.low + (u32)(((u64)(coder.high - coder.low) * p) >> 16);
    if (!coder.encoding) bit = coder.code <= middle;
    if (bit) coder.high = middle;
    else coder.low = middle + 1;
    while (!((coder.low ^ coder.high) >> 24)) {
        if (coder.encoding) put(coder.high >> 24);
        else coder.code = coder.code << 8 | take();
        coder.low <<= 8;
        coder.high = coder.high << 8 | 255;
    }
    return bit;
}

/* How many bytes end the payload: the fewest that, followed by zeros, lie in the interval. */
static i32 final_bytes(u32 *value) {
    i32 count = 0;
    do {
        u32 mask = ++count < 4 ? 0xffffffffu >> 8 * count : 0;
        *value = (coder.low + mask) & ~mask;
    } while (*value < coder.low || *value > coder.high);
    return count;
}

/* ---- predictor: slots, each a probability (22 bits) and a count (10 bits), mixed ---- */
typedef u32 Slot;

enum { INPUTS = 4, SETS = 128, RATE = 24, COUNT_LIMIT = 1000 };

static i32 mixer[SETS][INPUTS];
static Slot *chosen[INPUTS];
static u32 share[COUNT_LIMIT + 1]; /* of the way to the new bit, by count: 65536 / (count + 2) */
static i32 trust[COUNT_LIMIT + 1]; /* in a probability, by count: towards 256 */

static void fill_by_count(void) {
    for (u32 seen = 0; seen <= COUNT_LIMIT; seen++) {
        share[seen] = 65536 / (seen + 2);
        trust[seen] = seen > 30 ? 256 : (i32)(512 * seen / (2 * seen + 3));
    }
}

static void fresh(Slot *slots, u32 count) {
    for (u32 i = 0; i < count; i++) slots[i] = 1u << 31; /* probability 1/2, never seen */
}

static void reset_mixer(void) {
    for (u32 set = 0; set < SETS; set++)
        for (u32 i = 0; i < INPUTS; i++) mixer[set][i] = 27307; /* 5/12 of 65536 */
}

/* Codes one decision, predicted by the first `count` slots of chosen[] and the mixer's `set`. */
static u32 code_mixed(u32 bit, u32 count, u32 set) {
    i32 *weight = mixer[set], input[INPUTS];
    i64 sum = 0;
    for (u32 i = 0; i < count; i++) {
        input[i] = (stretch_table[*chosen[i] >> 20] * trust[*chosen[i] & 1023]) >> 8;
        sum += (i64)input[i] * weight[i];
    }
    u32 p = squash((i32)(sum >> 16));
    bit = code_bit(bit, p);
    i32 miss = (i32)(bit << 16) - (i32)p;
    for (u32 i = 0; i < count; i++) {
        weight[i] += (i32)(((i64)input[i] * miss * RATE + (1 << 19)) >> 20);
        u32 seen = *chosen[i] & 1023;
        i32 q = (i32)(*chosen[i] >> 10), target = bit ? (1 << 22) - 1 : 0;
        q += (i32)(((i64)(target - q) * share[seen]) >> 16);
        *chosen[i] = (u32)q << 10 | (seen < COUNT_LIMIT ? seen + 1 : seen);
    }
    return bit;
}

static u32 code_with(u32 bit, Slot *slot, u32 set) {
    chosen[0] = slot;
    return code_mixed(bit, 1, set);
}

static u32 code_raw(u32 value, u32 bits) { /* the lowest `bits` bits of value, evenly likely */
    u32 result = 0;
    while (bits--) result = result << 1 | code_bit(value >> bits & 1, 32768);
    return result;
}

static u32 code_tree(u32 value, u32 bits, Slot *nodes, u32 set) { /* highest bit first */
    u32 node = 1;
    while (bits--) node = node << 1 | code_with(value >> bits & 1, nodes + node, set);
    return node;
}

static u32 bit_length(u32 value) {
    u32 n = 0;
    while (value) n++, value >>= 1;
    return n;
}

/* ---- mixer sets: one per kind of decision ---- */
enum {
    SET_ZERO = 0,   /* + position in the kernel, at most 31 */
    SET_SIGN = 32,
    SET_LENGTH = 33, /* + step, at most 15 */
    SET_HIGH = 49,  /* + value so far, below 8 */
    SET_LOW = 57,   /* + bit, at most 7 */
    SET_FLOAT = 65  /* + kind of decision, below 6 */
};

/* ---- levels ---- */
enum { COLUMNS = 1 << 16, NODES = 4096, LOUDNESS = 24 };

static struct {
    Slot zero_column[COLUMNS], zero_near[32 * 64];
    Slot sign_near[9], sign_far[32 * 9], sign_column[COLUMNS];
    Slot node_signed[2 * NODES], node_near[NODES * LOUDNESS], node_low[NODES], node_bit[256];
    Slot zero_row, sign_row;
} levels_model;

/* Half-octave logarithm of the mean of up to two magnitudes: 0 where both are zero. */
static u32 loudness(u32 a, u32 b) {
    u32 count = (a != 0) + (b != 0);
    if (!count) return 0;
    u32 mean = ((a + b) * 8 + count / 2) / count, n = bit_length(mean);
    u32 half = 2 * n + (mean >> (n - 2) & 1) - 1; /* a magnitude is at least 1, so n >= 4 */
    return half > LOUDNESS - 1 ? LOUDNESS - 1 : half;
}

static u32 size_of(i32 level) { return level < 0 ? 0u - (u32)level : (u32)level; }
static u32 sign_of(i32 level) { return level > 0 ? 1 : level < 0 ? 2 : 0; }

static u32 code_node(u32 bit, u32 node, u32 negative, u32 loud, u32 set) {
    chosen[0] = &levels_model.node_signed[negative * NODES + node];
    chosen[1] = &levels_model.node_near[node * LOUDNESS + loud];
    return code_mixed(bit, 2, set);
}

/* A magnitude of at least 1 as its bit length in unary, then the bits below the first. */
static u32 code_magnitude(u32 magnitude, u32 negative, u32 loud) {
    u32 length = coder.encoding ? bit_length(magnitude) - 1 : 0, n = 0;
    while (n < 30 && code_node(n < length, n, negative, loud, SET_LENGTH + (n < 15 ? n : 15))) n++;
    u32 value = 1;
    for (u32 left = n; left-- > 0;) {
        u32 bit = magnitude >> left & 1, node = 32 + n * 128 + value;
        if (value < 8) bit = code_node(bit, node, negative, loud, SET_HIGH + value);
        else if (value < 128) {
            chosen[0] = &levels_model.node_signed[negative * NODES + node];
            chosen[1] = &levels_model.node_low[node];
            chosen[2] = &levels_model.node_bit[n * 8 + (left < 7 ? left : 7)];
            bit = code_mixed(bit, 3, SET_LOW + (left < 7 ? left : 7));
        } else bit = code_bit(bit, 32768);
        value = value << 1 | bit;
    }
    return value;
}

/* Codes levels of shape (rows, columns, height, width), each in -negatives .. positives. */
static void code_levels(i32 *level, u32 rows, u32 columns, u32 height, u32 width, u32 negatives,
                        u32 positives) {
    u32 area = height * width, row_size = columns * area;
    fresh((Slot *)&levels_model, sizeof levels_model / sizeof(Slot));
    for (u32 row = 0; row < rows; row++) {
        fresh(&levels_model.zero_row, 1);
        fresh(&levels_model.sign_row, 1);
        for (u32 column = 0; column < columns; column++) {
            u32 slot = column & (COLUMNS - 1), present = 0;
            for (u32 k = 0; k < area; k++, level++) {
                u32 x = k % width, y = k / width, place = k < 31 ? k : 31;
                i32 left = x ? level[-1] : 0, up = y ? level[-(i32)width] : 0;
                i32 corner = x && y ? level[-(i32)width - 1] : 0;
                chosen[0] = &levels_model.zero_column[slot];
                chosen[1] = &levels_model.zero_row;
                chosen[2] = &levels_model.zero_near[place << 6 | (present < 7 ? present : 7) << 3 |
                                                    (corner != 0) << 2 | (up != 0) << 1 |
                                                    (left != 0)];
                if (!code_mixed(*level != 0, 3, SET_ZERO + place)) {
                    *level = 0;
                    continue;
                }
                present++;
                i32 before = row ? level[-(i32)row_size] : 0, beside = column ? level[-(i32)area] : 0;
                chosen[0] = &levels_model.sign_near[sign_of(left) * 3 + sign_of(up)];
                chosen[1] = &levels_model.sign_far[place * 9 + sign_of(before) * 3 + sign_of(beside)];
                chosen[2] = &levels_model.sign_row;
                chosen[3] = &levels_model.sign_column[slot];
                u32 negative = code_mixed(*level < 0, 4, SET_SIGN);
                u32 loud = loudness(size_of(left), size_of(up));
                u32 magnitude = code_magnitude(size_of(*level), negative, loud);
                if (magnitude > (negative ? negatives : positives)) {
                    coder.error = OUT_OF_RANGE;
                    magnitude = 1; /* nothing that follows may overflow */
                }
                *level = negative ? -(i32)magnitude : (i32)magnitude;
            }
            if (coder.error) return;
        }
    }
}

/* ---- float32 values, as their bits ---- */
static struct {
    Slot zero[2], sign, exponent[256], mantissa[16 * 16];
    Slot step[33 * 64], step_top[32 * 4];
} floats_model;

/* Codes float32 values whose lowest `drop` bits are all zero. */
static void code_floats(u32 *value, u32 count, u32 drop) {
    fresh((Slot *)&floats_model, sizeof floats_model / sizeof(Slot));
    u32 before = 0, rest = drop < 19 ? 19 - drop : 0;
    for (u32 i = 0; i < count && !coder.error; i++) {
        u32 v = value[i];
        before = code_with(v != 0, &floats_model.zero[before], SET_FLOAT);
        if (!before) {
            value[i] = 0;
            continue;
        }
        u32 sign = code_with(v >> 31, &floats_model.sign, SET_FLOAT + 1);
        u32 exponent = code_tree(v >> 23 & 255, 8, floats_model.exponent, SET_FLOAT + 2) & 255;
        Slot *top = floats_model.mantissa + (exponent & 15) * 16;
        u32 mantissa = code_tree(v >> 19 & 15, 4, top, SET_FLOAT + 3) & 15;
        u32 low = code_raw(v >> (19 - rest) & ((1u << rest) - 1), rest);
        value[i] = sign << 31 | exponent << 23 | mantissa << 19 | low << (19 - rest);
    }
}

/* float32 bits to integers of the same order, and back. */
static u32 to_ordered(u32 bits) { return bits >> 31 ? ~bits : bits | 1u << 31; }
static u32 from_ordered(u32 bits) { return bits >> 31 ? bits & ~(1u << 31) : ~bits; }

/* Codes strictly ascending float32 values, none zero, whose lowest `drop` bits are all zero. */
static void code_table(u32 *value, u32 count, u32 drop) {
    fresh((Slot *)&floats_model, sizeof floats_model / sizeof(Slot));
    u32 before = 0, length = 0;
    for (u32 i = 0; i < count && !coder.error; i++) {
        u32 ordered = to_ordered(value[i]) >> drop, step = ordered - before;
        u32 limit = 32 - drop;
        length = code_tree(bit_length(step), 6, floats_model.step + length * 64, SET_FLOAT + 4) & 63;
        if (length < 1 || length > limit) {
            coder.error = OUT_OF_RANGE;
            return;
        }
        u32 below = length - 1, top = below < 2 ? below : 2, coded = 1;
        if (top)
            coded = code_tree(step >> (below - top) & ((1u << top) - 1), top,
                              floats_model.step_top + (length - 1) * 4, SET_FLOAT + 5);
        below -= top;
        step = coded << below | code_raw(step & ((1u << below) - 1), below);
        u64 next = (u64)before + step;
        if (next >> limit) {
            coder.error = OUT_OF_RANGE;
            return;
        }
        before = (u32)next;
        value[i] = from_ordered(before << drop | (before >> (31 - drop) ? 0 : (1u << drop) - 1));
    }
}

/* ---- what the host calls; each returns a size in bytes, or an error below zero ---- */
static void prepare(u8 *bytes, u32 size, i32 encoding) {
    fill_stretch();
    fill_by_count();
    reset_mixer();
    start(bytes, size, encoding);
}

static i32 result(const u8 *bytes) {
    u32 value;
    i32 last = final_bytes(&value);
    if (coder.encoding)
        for (i32 i = 0; i < last; i++) put(value >> (24 - 8 * i));
    else if (!coder.error && (coder.at != coder.end || coder.missing != 4 - last))
        coder.error = OUT_OF_RANGE; /* the payload is not as long as this tensor's would be */
    return coder.error ? coder.error : (i32)(coder.at - bytes);
}

EXPORT i32 floats(i32 encoding, u8 *bytes, u32 size, u32 *values, u32 count, u32 drop) {
    prepare(bytes, size, encoding);
    code_floats(values, count, drop);
    return result(bytes);
}

/* shape: rows, columns, height, width. table: the centroids other than zero, ascending. */
EXPORT i32 shared(i32 encoding, u8 *bytes, u32 size, i32 *levels, const u32 *shape, u32 *table,
                  u32 centroids, u32 drop) {
    prepare(bytes, size, encoding);
    code_table(table, centroids, drop);
    u32 negatives = 0;
    for (u32 i = 0; i < centroids; i++) negatives += table[i] >> 31;
    if (!coder.error)
        code_levels(levels, shape[0], shape[1], shape[2], shape[3], negatives,
                    centroids - negatives);
    return result(bytes);
}
