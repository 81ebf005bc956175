/* The entropy coder of .sqz files: signed integers ("levels") and float32 arrays.
 *
 * Binary arithmetic coding of decisions whose probabilities are predicted by logistic mixing of
 * adaptive contexts (Mahoney 2005, "Adaptive weighing of context models"). Integers only, so that
 * every platform decodes the same. docs/format.md states every constant and rule used here.
 * Builds freestanding to WebAssembly (`make wasm`); no allocation, no libc, no state of its own.
 */
typedef short i16;
#ifndef SQZ_BASICS_H
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;
#endif

#ifndef EXPORT /* entropy.c includes this file, and keeps its names to itself */
#define EXPORT __attribute__((visibility("default")))
#endif
#ifndef INLINE /* what every decision runs through: inlined, its state stays in registers */
#define INLINE static inline __attribute__((always_inline))
#endif

#ifndef ENCODING /* where only decoding is wanted, it is 0: nothing is left of the rest */
#define ENCODING(coder) (coder)->encoding
#endif

#ifndef OUTLINE /* where size matters, what is called from many places is called */
#define OUTLINE static
#endif

/* ---- errors: negative results of the exported functions ---- */
enum { OUT_OF_SPACE = -1, OUT_OF_INPUT = -2, OUT_OF_RANGE = -3 };

/* ---- logistic domain: probabilities are 16 bit, stretched ones are ln(p / (1 - p)) * 256 ---- */
static const u32 LOGISTIC[33] = { /* 65536 / (1 + exp(-x)) at x = -8, -7.5 .. 8 */
    22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

static u32 squash(i32 x) { /* 16-bit probability at x / 256, linear between the 33 points */
    u32 at = (u32)(x + 2048), low = at & 127, i = at >> 7;
    return (LOGISTIC[i] * (128 - low) + LOGISTIC[i + 1] * low + 64) >> 7;
}

/* ---- predictor: slots, each a probability (22 bits) and a count (10 bits), mixed ---- */
typedef u32 Slot;

enum { INPUTS = 6, SETS = 128, RATE = 24, COUNT_LIMIT = 1000, TEXT_LIMIT = 10 };
enum { TEXT_BITS = 17, SEEN_BITS = 16 };
enum { COLUMNS = 1 << 16, NODES = 4096, LOUDNESS = 32, MOST_WHOLE = 1 << 22 };

/* The caller's memory, all zero before its first use; threads need one each. */
typedef struct {
    i16 stretched[4096];  /* by the upper 12 bits of a probability */
    u16 squashed[4096];   /* by x + 2048 */
    u16 share[COUNT_LIMIT + 1]; /* of the way to the new bit, by count: 65536 / (count + 2) */
    i16 trust[COUNT_LIMIT + 1]; /* in a probability, by count: towards 256 */
    i32 mixer[SETS][INPUTS];
    struct { /* of which only what a tensor can come to is made fresh */
        Slot zero_column[COLUMNS], sign_column[COLUMNS];
        Slot node_signed[2 * NODES], node_near[NODES * LOUDNESS], node_low[NODES];
    } levels;
    struct {
        Slot zero_near[32 * 64], sign_near[9], sign_far[32 * 9], node_bit[256];
        Slot zero_around[64], sign_mean[32 * 16], sign_before[81];
    } few;
    Slot zero_row, sign_row;
    struct {
        Slot zero[2], sign, exponent[256], mantissa[16 * 16];
        Slot step[33 * 64], step_top[32 * 4];
    } floats;
} Model;

static void fill_tables(Model *model) {
    u32 next = 0;
    for (i32 x = -2047; x <= 2047; x++) {
        u32 p = squash(x);
        model->squashed[x + 2048] = (u16)p;
        while (next <= p >> 4) model->stretched[next++] = (i16)x; /* the inverse */
    }
    while (next < 4096) model->stretched[next++] = 2047;
    for (u32 seen = 0; seen <= COUNT_LIMIT; seen++) {
        model->share[seen] = (u16)(65536 / (seen + 2));
        model->trust[seen] = seen > 30 ? 256 : (i16)(512 * seen / (2 * seen + 3));
    }
}

OUTLINE void fresh(Slot *slots, u32 count) {
    for (u32 i = 0; i < count; i++) slots[i] = 1u << 31; /* probability 1/2, never seen */
}

#define FRESH(slots) fresh((Slot *)&(slots), sizeof(slots) / sizeof(Slot))

static void reset_mixer(Model *model) {
    for (u32 set = 0; set < SETS; set++)
        for (u32 i = 0; i < INPUTS; i++) model->mixer[set][i] = 27307; /* 5/12 of 65536 */
}

/* ---- arithmetic coder (32-bit interval, carry-free; Witten, Neal, Cleary 1987 as in PAQ) ---- */
typedef struct {
    Model *model;
    u32 low, high, code;
    u8 *at, *end;
    i32 encoding, error, missing;
} Coder;

INLINE u32 take(Coder *coder) { /* past the end: up to three zeros that the encoder left out */
    if (coder->at < coder->end) return *coder->at++;
    if (++coder->missing > 3) coder->error = OUT_OF_INPUT;
    return 0;
}

static Coder start(Model *model, u8 *bytes, u32 size, i32 encoding) {
    if (!model->share[0]) fill_tables(model);
    reset_mixer(model);
    Coder coder = {model, 0, 0xffffffffu, 0, bytes, bytes + size, encoding, 0, 0};
    if (!ENCODING(&coder))
        for (i32 i = 0; i < 4; i++) coder.code = coder.code << 8 | take(&coder);
    return coder;
}

static inline void put(Coder *coder, u32 byte) {
    if (coder->at < coder->end) *coder->at++ = (u8)byte;
    else coder->error = OUT_OF_SPACE;
}

/* Codes one decision whose probability of being 1 is p / 65536, 0 < p < 65536. */
INLINE u32 code_bit(Coder *coder, u32 bit, u32 p) {
    u32 middle = coder->low + (u32)(((u64)(coder->high - coder->low) * p) >> 16);
    if (!ENCODING(coder)) bit = coder->code <= middle;
    if (bit) coder->high = middle;
    else coder->low = middle + 1;
    while (!((coder->low ^ coder->high) >> 24)) {
        if (ENCODING(coder)) put(coder, coder->high >> 24);
        else coder->code = coder->code << 8 | take(coder);
        coder->low <<= 8;
        coder->high = coder->high << 8 | 255;
    }
    return bit;
}

/* How many bytes end the payload: the fewest that, followed by zeros, lie in the interval. */
static i32 final_bytes(const Coder *coder, u32 *value) {
    i32 count = 0;
    do {
        u32 mask = ++count < 4 ? 0xffffffffu >> 8 * count : 0;
        *value = (coder->low + mask) & ~mask;
    } while (*value < coder->low || *value > coder->high);
    return count;
}

/* Codes one decision, predicted by `count` slots and the mixer's `set`; slots count up to `limit`. */
INLINE u32 code_limited(Coder *coder, u32 bit, Slot *const *slots, u32 count, u32 set, u32 limit) {
    Model *model = coder->model;
    i32 *weight = model->mixer[set], input[INPUTS];
    Slot slot[INPUTS];
    i64 sum = 0;
    for (u32 i = 0; i < count; i++) {
        slot[i] = *slots[i];
        input[i] = (model->stretched[slot[i] >> 20] * model->trust[slot[i] & 1023]) >> 8;
        sum += (i64)input[i] * weight[i];
    }
    i32 x = (i32)(sum >> 16);
    x = x > 2047 ? 2047 : x < -2047 ? -2047 : x;
    u32 p = model->squashed[x + 2048];
    bit = code_bit(coder, bit, p);
    i32 miss = (i32)(bit << 16) - (i32)p;
    for (u32 i = 0; i < count; i++) {
        weight[i] += (i32)(((i64)input[i] * miss * RATE + (1 << 19)) >> 20);
        u32 seen = slot[i] & 1023;
        i32 q = (i32)(slot[i] >> 10), target = bit ? (1 << 22) - 1 : 0;
        q += (i32)(((i64)(target - q) * model->share[seen]) >> 16);
        *slots[i] = (u32)q << 10 | (seen < limit ? seen + 1 : seen);
    }
    return bit;
}

INLINE u32 code_mixed(Coder *coder, u32 bit, Slot *const *slots, u32 count, u32 set) {
    return code_limited(coder, bit, slots, count, set, COUNT_LIMIT);
}

OUTLINE u32 code_with(Coder *coder, u32 bit, Slot *slot, u32 set) {
    return code_mixed(coder, bit, &slot, 1, set);
}

/* The lowest `bits` bits of value, evenly likely. */
static u32 code_raw(Coder *coder, u32 value, u32 bits) {
    u32 result = 0;
    while (bits--) result = result << 1 | code_bit(coder, value >> bits & 1, 32768);
    return result;
}

/* Highest bit first. */
OUTLINE u32 code_tree(Coder *coder, u32 value, u32 bits, Slot *nodes, u32 set) {
    u32 node = 1;
    while (bits--) node = node << 1 | code_with(coder, value >> bits & 1, nodes + node, set);
    return node;
}

static u32 bit_length(u32 value) { return value ? 32 - (u32)__builtin_clz(value) : 0; }

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
/* Only what a tensor with so many columns, and magnitudes up to `most`, can come to. */
static void fresh_levels(Model *model, u32 columns, u32 most) {
    u32 places = columns < COLUMNS ? columns : COLUMNS, nodes = 32 + 128 * bit_length(most);
    fresh(model->levels.zero_column, places);
    fresh(model->levels.sign_column, places);
    FRESH(model->few);
    fresh(model->levels.node_signed, nodes);
    fresh(model->levels.node_signed + NODES, nodes);
    fresh(model->levels.node_near, nodes * LOUDNESS);
    fresh(model->levels.node_low, nodes);
}

/* Half-octave logarithm of the mean of up to two magnitudes: 0 where both are zero. */
static u32 loudness(u32 a, u32 b) {
    u32 count = (a != 0) + (b != 0);
    if (!count) return 0;
    u32 mean = ((a + b) * 8 + count / 2) / count, n = bit_length(mean);
    u32 half = 2 * n + (mean >> (n - 2) & 1) - 1; /* a magnitude is at least 1, so n >= 4 */
    return half > 23 ? 23 : half;
}

static u32 magnitude_of(i32 level) { return level < 0 ? 0u - (u32)level : (u32)level; }
OUTLINE u32 sign_of(i32 level) { return level > 0 ? 1 : level < 0 ? 2 : 0; }

INLINE u32 code_node(Coder *coder, u32 bit, u32 node, u32 negative, u32 loud, u32 set) {
    Slot *const slots[] = {&coder->model->levels.node_signed[negative * NODES + node],
                           &coder->model->levels.node_near[node * LOUDNESS + loud]};
    return code_mixed(coder, bit, slots, 2, set);
}

/* A magnitude of at least 1 as its bit length in unary, then the bits below the first. */
INLINE u32 code_magnitude(Coder *coder, u32 magnitude, u32 negative, u32 loud) {
    u32 length = ENCODING(coder) ? bit_length(magnitude) - 1 : 0, n = 0, set = SET_LENGTH;
    while (n < 30 && code_node(coder, n < length, n, negative, loud, set)) set += ++n <= 15;
    u32 value = 1;
    for (u32 left = n; left-- > 0;) {
        u32 bit = magnitude >> left & 1, node = 32 + n * 128 + value;
        if (value < 8) bit = code_node(coder, bit, node, negative, loud, SET_HIGH + value);
        else if (value < 128) {
            Slot *const slots[] = {&coder->model->levels.node_signed[negative * NODES + node],
                                   &coder->model->levels.node_low[node],
                                   &coder->model->few.node_bit[n * 8 + (left < 7 ? left : 7)]};
            bit = code_mixed(coder, bit, slots, 3, SET_LOW + (left < 7 ? left : 7));
        } else bit = code_bit(coder, bit, 32768);
        value = value << 1 | bit;
    }
    return value;
}

/* Logarithm to base 2 in sixteenths, linear between the powers of 2; of at least 1. */
OUTLINE i32 logarithm(u32 value) {
    u32 n = bit_length(value) - 1;
    return (i32)(n << 4 | ((n < 4 ? value << (4 - n) : value >> (n - 4)) & 15));
}

static u32 clamped(i64 value, u32 most) { return value < 0 ? 0 : value > most ? most : (u32)value; }

/* Codes levels of shape (rows, columns, height, width), each in -negatives .. positives: either
 * few that are not zero, or whole numbers on a uniform grid, most of them not zero. */
INLINE void code_levels(Coder *state, i32 *level, const u32 *shape, u32 negatives, u32 positives,
                        i32 grid) {
    Coder coder = *state; /* of which no address leaves here */
    Model *model = coder.model;
    u32 rows = shape[0], columns = shape[1], width = shape[3], area = shape[2] * width;
    u32 row_size = columns * area, most = negatives > positives ? negatives : positives;
    fresh_levels(model, columns, most);
    u32 *column_loud = model->levels.zero_column, *column_sum = model->levels.sign_column;
    u64 loud_all = 0, count = 0;
    if (grid)
        for (u32 i = 0; i < COLUMNS; i++) column_loud[i] = column_sum[i] = 0;
    for (u32 row = 0; row < rows && !coder.error; row++) {
        u64 row_loud = 0;
        u32 i = 0;
        fresh(&model->zero_row, 1);
        fresh(&model->sign_row, 1);
        for (u32 column = 0; column < columns && !coder.error; column++) {
            u32 present = 0, x = 0, y = 0;
            for (u32 k = 0; k < area; k++, i++, level++) {
                u32 place = k < 31 ? k : 31, at = (grid ? i : column) & (COLUMNS - 1), bucket = 0;
                i32 left = x ? level[-1] : 0, up = y ? level[-(i32)width] : 0;
                i32 corner = x && y ? level[-(i32)width - 1] : 0;
                i32 before = row ? level[-(i32)row_size] : 0;
                i32 beside = column ? level[-(i32)area] : 0;
                Slot *slots[INPUTS];
                u32 here, far;
                u64 loud = 0;
                if (grid) {
                    /* Sixteen times mean magnitudes; the row's and the column's begin at that of all. */
                    u32 mean = (u32)((loud_all * 16 + 32) / (count + 1));
                    u32 row_mean = (u32)((row_loud * 16 + 2 * mean) / (i + 2));
                    loud = (u64)column_loud[at] * 16 + 2 * mean;
                    i32 expected = logarithm(row_mean + 1) + logarithm((u32)(loud / (row + 2)) + 1) -
                                   logarithm(mean + 1);
                    here = bucket = clamped((expected - 48) >> 2, LOUDNESS - 1);
                    u32 around = magnitude_of(left) + magnitude_of(up) + magnitude_of(before) +
                                 magnitude_of(beside);
                    slots[1] = &model->few.zero_around[clamped(logarithm(around + 1) >> 2, 63)];
                } else {
                    here = (present < 7 ? present : 7) << 3 | (corner != 0) << 2 | (up != 0) << 1 |
                           (left != 0);
                    slots[1] = &model->levels.zero_column[at];
                    slots[2] = &model->zero_row;
                }
                slots[0] = &model->few.zero_near[place << 6 | here];
                if (++x == width) x = 0, y++;
                i32 value = *level;
                if (code_mixed(&coder, value != 0, slots, grid ? 2 : 3, SET_ZERO + place)) {
                    u32 near = sign_of(left) * 3 + sign_of(up);
                    present++;
                    if (grid) {
                        u32 signs = 0, lean;
                        for (u32 back = 1; back <= 4; back++)
                            signs = signs * 3 +
                                    (row < back ? 0 : sign_of(level[-(i64)back * row_size]));
                        lean = clamped((i32)column_sum[at] * (i64)256 / (i64)(loud + 1) + 8, 15);
                        slots[1] = &model->few.sign_mean[place * 16 + lean];
                        slots[2] = &model->few.sign_before[signs];
                        far = near;
                    } else {
                        far = sign_of(before) * 3 + sign_of(beside);
                        slots[1] = &model->few.sign_near[near];
                        slots[2] = &model->sign_row;
                        slots[3] = &model->levels.sign_column[at];
                        bucket = loudness(magnitude_of(left), magnitude_of(up));
                    }
                    slots[0] = &model->few.sign_far[place * 9 + far];
                    u32 negative = code_mixed(&coder, value < 0, slots, grid ? 3 : 4, SET_SIGN);
                    u32 magnitude = code_magnitude(&coder, magnitude_of(value), negative, bucket);
                    if (magnitude > (negative ? negatives : positives)) {
                        coder.error = OUT_OF_RANGE;
                        magnitude = 1; /* nothing that follows may overflow */
                    }
                    value = negative ? -(i32)magnitude : (i32)magnitude;
                } else value = 0;
                *level = value;
                if (grid) {
                    row_loud += magnitude_of(value);
                    loud_all += magnitude_of(value);
                    column_loud[at] += magnitude_of(value);
                    column_sum[at] += (u32)value;
                    count++;
                }
            }
        }
    }
    *state = coder;
}

/* ---- float32 values, as their bits ---- */
/* Codes float32 values whose lowest `drop` bits are all zero. */
static void code_floats(Coder *coder, u32 *value, u32 count, u32 drop) {
    Model *model = coder->model;
    FRESH(model->floats);
    u32 before = 0, rest = drop < 19 ? 19 - drop : 0;
    for (u32 i = 0; i < count && !coder->error; i++) {
        u32 v = value[i];
        before = code_with(coder, v != 0, &model->floats.zero[before], SET_FLOAT);
        if (!before) {
            value[i] = 0;
            continue;
        }
        u32 sign = code_with(coder, v >> 31, &model->floats.sign, SET_FLOAT + 1);
        u32 exponent = v >> 23 & 255;
        exponent = code_tree(coder, exponent, 8, model->floats.exponent, SET_FLOAT + 2) & 255;
        Slot *top = model->floats.mantissa + (exponent & 15) * 16;
        u32 mantissa = code_tree(coder, v >> 19 & 15, 4, top, SET_FLOAT + 3) & 15;
        u32 low = code_raw(coder, v >> (19 - rest) & ((1u << rest) - 1), rest);
        value[i] = sign << 31 | exponent << 23 | mantissa << 19 | low << (19 - rest);
    }
}

/* float32 bits to integers of the same order, and back. */
static u32 to_ordered(u32 bits) { return bits >> 31 ? ~bits : bits | 1u << 31; }
static u32 from_ordered(u32 bits) { return bits >> 31 ? bits & ~(1u << 31) : ~bits; }

/* Codes how far a value goes, in at most `most` bits, by the length of the step before. */
static u32 code_step(Coder *coder, u32 step, u32 *length, u32 most) {
    Model *model = coder->model;
    Slot *lengths = model->floats.step + *length * 64;
    *length = code_tree(coder, bit_length(step), 6, lengths, SET_FLOAT + 4) & 63;
    if (*length < 1 || *length > most) {
        coder->error = OUT_OF_RANGE;
        return 0;
    }
    u32 below = *length - 1, top = below < 2 ? below : 2, coded = 1;
    if (top)
        coded = code_tree(coder, step >> (below - top) & ((1u << top) - 1), top,
                          model->floats.step_top + (*length - 1) * 4, SET_FLOAT + 5);
    below -= top;
    return coded << below | code_raw(coder, step & ((1u << below) - 1), below);
}

/* Codes strictly ascending float32 values, none zero, whose lowest `drop` bits are all zero. */
static void code_table(Coder *coder, u32 *value, u32 count, u32 drop) {
    Model *model = coder->model;
    FRESH(model->floats);
    u32 before = 0, length = 0;
    for (u32 i = 0; i < count && !coder->error; i++) {
        u32 ordered = to_ordered(value[i]) >> drop, step = ordered - before;
        u32 limit = 32 - drop;
        step = code_step(coder, step, &length, limit);
        if (coder->error) return;
        u64 next = (u64)before + step;
        if (next >> limit) {
            coder->error = OUT_OF_RANGE;
            return;
        }
        before = (u32)next;
        value[i] = from_ordered(before << drop | (before >> (31 - drop) ? 0 : (1u << drop) - 1));
    }
}

/* ---- text: bytes, predicted by those before, by the word, by the string before, by a repetition ---- */
/* The first `known` bytes are at hand and only learnt from (by an encoder that writes nowhere). */
static void code_text(Coder *state, u8 *text, u32 size, u32 known) {
    Coder learning = *state, *coder = state;
    u8 nowhere[64];
    learning.encoding = 1;
    Slot *table = (Slot *)&coder->model->levels; /* of which the slots and the places are parts */
    u32 *seen = table + (1 << TEXT_BITS), contexts[INPUTS - 1];
    u32 last = 0, word = 0, match = 0, length = 0, start = 0, before = 0, equal = 1;
    Slot *repeated = coder->model->few.zero_near;
    fresh(table, 1 << TEXT_BITS);
    FRESH(coder->model->few);
    for (u32 i = 0; i < 1 << SEEN_BITS; i++) seen[i] = 0;
    for (u32 i = 0; i < size && !coder->error; i++) {
        if (known) {
            coder = i < known ? &learning : state;
            learning.at = nowhere;
            learning.end = nowhere + sizeof nowhere;
        }
        /* The string before is from `before` on, and ends where this one starts. */
        u32 above = before + (i - start), expected = match ? text[match] | 256u : 0, node = 1;
        u32 over = above < start ? text[above] : 0, next = above + 1 < start ? text[above + 1] : 0;
        u32 along = i - start < 12 ? i - start : 12;
        contexts[0] = last & 0xff;
        contexts[1] = last & 0xffff;
        contexts[2] = last & 0xffffff;
        contexts[3] = word;
        contexts[4] = over | along << 8 | (equal ? next : 256) << 12;
        for (u32 bit = 8; bit--;) {
            u32 agrees = expected >> (bit + 1) == node;
            u32 set = agrees ? 1 + (length > 8) + (length > 16) : 0;
            Slot *slots[INPUTS];
            for (u32 j = 0; j < INPUTS - 1; j++) {
                u32 hash = ((contexts[j] + (j << 28)) * 0x9e3779b1u ^ node * 0x2545f491u) * 0x85ebca6bu;
                slots[j] = table + ((hash ^ hash >> 15) >> (32 - TEXT_BITS));
            }
            slots[INPUTS - 1] = repeated + (agrees ? (length < 15 ? length : 15) * 2 +
                                                     (expected >> bit & 1) : 32);
            node = node << 1 | code_limited(coder, text[i] >> bit & 1, slots, INPUTS,
                                            set * 8 + (along < 7 ? along : 7), TEXT_LIMIT);
        }
        u32 byte = text[i] = (u8)node;
        last = last << 8 | byte;
        word = (byte | 32) - 'a' < 26 ? (word + byte + 1) * 0x2f0b4c47u : 0;
        equal &= over == byte;
        if (byte == '"' || byte == '\n') {
            before = start;
            start = i + 1;
            equal = 1;
        }
        if (match && text[match] == byte) match++, length++;
        else match = length = 0;
        u32 *place = seen + (last * 0x9e3779b1u >> (32 - SEEN_BITS));
        if (!match) match = *place;
        *place = i + 1;
    }
}

/* ---- what the host calls; each returns a size in bytes, or an error below zero ---- */
EXPORT i32 model_bytes(void) { return sizeof(Model); }

static i32 result(Coder *coder, const u8 *bytes) {
    u32 value;
    i32 last = final_bytes(coder, &value);
    if (ENCODING(coder))
        for (i32 i = 0; i < last; i++) put(coder, value >> (24 - 8 * i));
    else if (!coder->error && (coder->at != coder->end || coder->missing != 4 - last))
        coder->error = OUT_OF_RANGE; /* the payload is not as long as this tensor's would be */
    return coder->error ? coder->error : (i32)(coder->at - bytes);
}

EXPORT i32 floats(Model *model, i32 encoding, u8 *bytes, u32 size, u32 *values, u32 count,
                  u32 drop) {
    Coder coder = start(model, bytes, size, encoding);
    code_floats(&coder, values, count, drop);
    return result(&coder, bytes);
}

/* shape: rows, columns, height, width. table: the centroids other than zero, ascending. */
EXPORT i32 shared(Model *model, i32 encoding, u8 *bytes, u32 size, i32 *levels, const u32 *shape,
                  u32 *table, u32 centroids, u32 drop) {
    Coder coder = start(model, bytes, size, encoding);
    code_table(&coder, table, centroids, drop);
    u32 negatives = 0;
    for (u32 i = 0; i < centroids; i++) negatives += table[i] >> 31;
    if (!coder.error)
        code_levels(&coder, levels, shape, negatives, centroids - negatives, 0);
    return result(&coder, bytes);
}

/* The same of whole numbers, up to MOST_WHOLE on either side of zero. */
EXPORT i32 whole(Model *model, i32 encoding, u8 *bytes, u32 size, i32 *levels, const u32 *shape) {
    Coder coder = start(model, bytes, size, encoding);
    code_levels(&coder, levels, shape, MOST_WHOLE, MOST_WHOLE, 1);
    return result(&coder, bytes);
}

EXPORT i32 text(Model *model, i32 encoding, u8 *bytes, u32 size, u8 *out, u32 count) {
    Coder coder = start(model, bytes, size, encoding);
    code_text(&coder, out, count, 0);
    return result(&coder, bytes);
}
